"""`opadpo evaluate`: figures of captions on benchmarks."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from opadpo.errors import MissingArtefact, UserError, WorkspaceError
from opadpo.evaluation.result import Evaluation, Provenance, read_evaluation, write_evaluation
from opadpo.progress import Progress
from opadpo.records import Caption, Prompt
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.tables import iter_prompts, read_records
from opadpo.workspace import Workspace

Rows = Sequence[tuple[Caption, Prompt]]
Scores = tuple[dict[str, float], list[dict[str, Any]]]


class Benchmark(NamedTuple):
    """How a benchmark is scored."""

    prompt_set: str
    """The captions that it reads."""
    score: Callable[[Rows], Scores]
    """Metrics in percent, and one row per caption."""


def evaluate(
    workspace: Workspace,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    *,
    progress: Progress,
) -> StepResult:
    """Score captions; figures are in `StepResult.figures[model][benchmark]`.

    Args:
        workspace: with captions.
        models: names of models; None: every one that has captions.
        benchmarks: names of benchmarks; None: the recipe's.
        progress: told about every model.

    Raises:
        MissingArtefact: if a model has no captions; nothing is written then.
        UserError: if a benchmark is unknown, or the prompts are not of its kind.
        WorkspaceError: if captions are of other prompts than the workspace's.
    """
    started = time.monotonic()
    chosen = {name: _benchmark(name) for name in dict.fromkeys(benchmarks or workspace.recipe.evaluate.benchmarks)}
    pairs = [
        (model, name)
        for name, benchmark in chosen.items()
        for model in _models(workspace, models, benchmark.prompt_set)
    ]
    figures: dict[str, dict[str, Any]] = {}
    outputs, warnings, made = [], [], 0
    with progress.task("Scoring captions", len(pairs)) as task:
        for model, name in pairs:
            plan = plans.evaluation(workspace, model, name, chosen[name].prompt_set)
            if workspace.state(plan) != "done":
                evaluation = _score(workspace, model, name, chosen[name])
                with workspace.writing(plan) as writer:
                    write_evaluation(writer.folder / f"{name}.json", evaluation)
                    writer.finish({"items": len(evaluation.items)})
                made += 1
            warnings += _stale_captions(workspace, model, chosen[name].prompt_set)
            figures.setdefault(model, {})[name] = read_evaluation(workspace.evaluation(model, name)).metrics
            outputs.append(plan.artefact)
            task.advance()
    return StepResult(
        step="evaluate",
        status="done" if made else "up_to_date",
        outputs=outputs,
        counts={"models": len(figures), "evaluations": len(pairs), "made": made},
        figures=figures,
        warnings=list(dict.fromkeys(warnings)),
        seconds=time.monotonic() - started,
    )


def score_toy(rows: Rows) -> Scores:
    """Exact CHAIR and coverage in the toy world.

    Raises:
        UserError: if a prompt has no truth of a toy scene.
    """
    from opadpo.toy.chair import score

    truths: list[Mapping[str, Any]] = []
    for _, prompt in rows:
        truth = prompt.extra.get("truth")
        if not isinstance(truth, dict) or "objects" not in truth:
            raise UserError(
                "The toy benchmark needs prompts of the toy world, whose truth is known",
                seen=f"prompt {prompt.prompt_id} from {prompt.source}",
                remedy="set prepare.source.kind to toy, or choose another benchmark",
            )
        truths.append(truth)
    result = score([caption.response for caption, _ in rows], truths)
    items = [
        {"prompt_id": prompt.prompt_id, **item.model_dump(mode="json")}
        for (_, prompt), item in zip(rows, result.items, strict=True)
    ]
    return result.metrics.model_dump(), items


BENCHMARKS = {"toy": Benchmark("heldout", score_toy)}
"""Name -> how it is scored."""


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UserError("There is no such benchmark", seen=name, remedy=f"use one of: {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def _models(workspace: Workspace, wanted: Sequence[str] | None, prompt_set: str) -> list[str]:
    """The models to score: those asked for, or all that have captions; the base first."""
    command = f"run `opadpo caption {workspace.shown} --model"
    if wanted is not None:
        names = list(dict.fromkeys(wanted))
        for name in names:
            workspace.captions(name, prompt_set)
            workspace.require(f"captions/{name}/{prompt_set}.parquet", f"{command} {name}`")
        return names
    folders = sorted((workspace.root / "captions").glob("*"), key=lambda path: (path.name != plans.BASE, path.name))
    names = [path.name for path in folders if workspace.manifest(f"captions/{path.name}/{prompt_set}.parquet")]
    if not names:
        raise MissingArtefact(
            "There are no captions to score yet", seen=workspace.root / "captions", remedy=f"{command} base`"
        )
    return names


def _score(workspace: Workspace, model: str, name: str, benchmark: Benchmark) -> Evaluation:
    path = workspace.captions(model, benchmark.prompt_set)
    captions = read_records(path, Caption)
    prompts = {p.prompt_id: p for p in iter_prompts(workspace)}
    strangers = [row.prompt_id for row in captions if row.prompt_id not in prompts]
    if strangers or not captions:
        raise WorkspaceError(
            "The captions are not of the workspace's prompts" if strangers else "The captions are empty",
            seen=f"{path}: {len(strangers)} of {len(captions)} rows",
            remedy=f"run `opadpo caption {workspace.shown} --model {model}` again",
        )
    metrics, items = benchmark.score([(row, prompts[row.prompt_id]) for row in captions])
    first = captions[0]
    return Evaluation(
        benchmark=name,
        metrics=metrics,
        items=items,
        provenance=Provenance(
            model=model,
            base=first.model,
            adapter_hash=first.adapter_hash,
            template=first.template,
            image_aspect=first.image_aspect,
            decoding=first.sampling,
            prompt_set=benchmark.prompt_set,
            captions=workspace.fingerprint(f"captions/{model}/{benchmark.prompt_set}.parquet"),
            n=len(captions),
        ),
    )


def _stale_captions(workspace: Workspace, model: str, prompt_set: str) -> list[str]:
    if workspace.state(plans.captions(workspace, model, prompt_set)) != "stale":
        return []
    return [f"the captions of {model} are stale; run `opadpo caption {workspace.shown} --model {model}` to renew them"]
