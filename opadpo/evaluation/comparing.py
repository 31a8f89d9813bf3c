"""Two models on one benchmark: every metric's difference, with its interval and a paired test.

Only items that both models were scored on are compared, each with itself. Questions about one image are not
independent, so resamples and permutations are of images. Accuracies of yes-no answers get McNemar's exact test, which
looks at the questions that one model answers rightly and the other wrongly; every other metric gets the permutation
test.
"""

from typing import Any

from opadpo.errors import DataError
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import Evaluation
from opadpo.evaluation.statistics import Difference, differences, mcnemar

Item = dict[str, Any]


def compare(
    first: Evaluation,
    second: Evaluation,
    benchmark: Benchmark,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Every metric of `first` less that of `second`.

    Args:
        first: one model's figures.
        second: those of the model that it is compared with.
        benchmark: what both are figures of.
        seed: of the resampling.
        resamples: draws of the bootstrap, and permutations.
        confidence: of the intervals.

    Raises:
        DataError: if they are of different benchmarks, sets or settings, or have no item in common.
    """
    pairs = paired_items(first, second)
    one, two = [a["counts"] for a, _ in pairs], [b["counts"] for _, b in pairs]
    found = differences(
        one,
        two,
        benchmark.figures,
        clusters=[a["image_id"] for a, _ in pairs],
        seed=seed,
        resamples=resamples,
        confidence=confidence,
    )
    if not benchmark.yes_no:
        return found
    for metric, difference in found.items():
        group, slash, name = metric.rpartition("/")
        if name == "accuracy":
            asked, right = f"{group}{slash}questions", f"{group}{slash}correct"
            answers = [(bool(a[right]), bool(b[right])) for a, b in zip(one, two, strict=True) if a.get(asked)]
            p_value = mcnemar([a for a, _ in answers], [b for _, b in answers])
            found[metric] = difference.model_copy(update={"p_value": p_value, "test": "mcnemar", "n": len(answers)})
    return found


def paired_items(first: Evaluation, second: Evaluation) -> list[tuple[Item, Item]]:
    """The items that both were scored on, in the order of `first`.

    Raises:
        DataError: as `compare`.
    """
    for what, one, two in (
        ("benchmarks", first.benchmark, second.benchmark),
        ("sets of prompts", first.provenance.set_digest, second.provenance.set_digest),
        ("settings", first.provenance.settings, second.provenance.settings),
    ):
        if one != two:
            raise DataError(
                f"Figures of different {what} cannot be compared",
                seen=f"{first.provenance.model}: {_short(one)}; {second.provenance.model}: {_short(two)}",
                remedy="caption the same set with both models, and run `opadpo evaluate` for both",
            )
    others = {_key(item): item for item in second.items}
    pairs = [(item, others[_key(item)]) for item in first.items if _key(item) in others]
    if not pairs:
        raise DataError(
            "The two models have no scored item in common",
            seen=f"{len(first.items)} and {len(second.items)} items",
            remedy="score both on the same set",
        )
    return pairs


def _key(item: Item) -> tuple[Any, Any]:
    return item["prompt_id"], item["question"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
