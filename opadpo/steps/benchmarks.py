"""The registry: every benchmark that can be scored, and every set of prompts that is made for one."""

from collections.abc import Sequence

from opadpo.errors import UserError
from opadpo.evaluation import judged, public
from opadpo.evaluation.benchmark import Benchmark, BenchmarkSet, Context, Row, Scored, item


def _score_toy(rows: Sequence[Row], context: Context) -> Scored:
    """Exact CHAIR and coverage in the toy world.

    Raises:
        UserError: if a prompt has no truth of a toy scene.
    """
    from opadpo.toy.chair import score

    truths = []
    for row in rows:
        truth = row.prompt.extra.get("truth")
        if not isinstance(truth, dict) or "objects" not in truth:
            raise UserError(
                "The toy benchmark needs prompts of the toy world, whose truth is known",
                seen=f"prompt {row.prompt.prompt_id} from {row.prompt.source}",
                remedy="set prepare.source.kind to toy, or choose another benchmark",
            )
        truths.append(truth)
    result = score([row.caption.response for row in rows], truths)
    return Scored(
        [
            item(row, found.counts(), **found.model_dump(mode="json"))
            for row, found in zip(rows, result.items, strict=True)
        ]
    )


def _toy() -> Benchmark:
    from opadpo.toy.chair import chair_figures

    return Benchmark(
        name="toy",
        title="Toy world",
        prompt_set="heldout",
        score=_score_toy,
        figures=chair_figures,
        hallucination="chair_s",
        coverage="coverage",
        directions={"chair_i": "lower", "chair_s": "lower", "coverage": "higher"},
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (_toy(), *public.BENCHMARKS, *judged.BENCHMARKS)
}
"""Name -> benchmark."""

SETS: dict[str, BenchmarkSet] = {each.name: each for each in (*public.SETS, *judged.SETS)}
"""Name of a set of prompts -> how it is made. Every other set is part of the workspace's own prompts."""


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        UserError: if there is none; the message lists those that are.
    """
    if name not in BENCHMARKS:
        raise UserError("There is no such benchmark", seen=name, remedy=f"use one of: {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def artefact_of_set(name: str) -> str:
    """The artefact that holds the prompts of a set: `benchmarks/<set>`, or the workspace's `prompts`."""
    return f"benchmarks/{name}" if name in SETS else "prompts"
