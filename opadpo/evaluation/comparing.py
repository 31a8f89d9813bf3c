"""Two models on one benchmark: every metric's difference, with its interval and a paired test.

Only items that both models were scored on are compared, each with itself. Questions about one image are not
independent, so resamples and permutations are of images. Accuracies of yes-no answers get McNemar's exact test, which
looks at the questions that one model answers rightly and the other wrongly; every other metric gets the permutation
test.
"""

from typing import Any, NamedTuple

from opadpo.errors import DataError
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import Evaluation
from opadpo.evaluation.statistics import Difference, differences, mcnemar

Item = dict[str, Any]
JUDGE = "judge"
"""The setting that holds the exact model that has judged."""


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


class Differing(NamedTuple):
    """Why figures of two models mean nothing beside each other."""

    what: str
    """In the plural: benchmarks, sets of prompts, judges or settings."""
    first: str
    """What the first has."""
    second: str
    """What the second has."""
    remedy: str
    """What to do about it."""


def differing(first: Evaluation, second: Evaluation) -> Differing | None:
    """What keeps two evaluations from being compared; None if nothing does."""
    one, two = first.provenance, second.provenance
    again = "caption the same set with both models, and run `opadpo evaluate` for both"
    if first.benchmark != second.benchmark:
        return Differing("benchmarks", first.benchmark, second.benchmark, again)
    if one.set_digest != two.set_digest:
        return Differing("sets of prompts", one.set_digest[:12], two.set_digest[:12], again)
    names = [name for name in {**one.settings, **two.settings} if one.settings.get(name) != two.settings.get(name)]
    if not names:
        return None
    ours, theirs = (", ".join(f"{name} {_short(each.settings.get(name))}" for name in names) for each in (one, two))
    if names == [JUDGE]:
        # The server's alias has moved on between the two runs; what was judged is kept under the name asked for.
        exact = (
            "name one exact version of the model in evaluate.judge.endpoint.model, and run `opadpo evaluate` for both"
        )
        return Differing("judges", ours, theirs, exact)
    return Differing("settings", ours, theirs, "run `opadpo evaluate` for both under the same settings")


def paired_items(first: Evaluation, second: Evaluation) -> list[tuple[Item, Item]]:
    """The items that both were scored on, in the order of `first`.

    Raises:
        DataError: as `compare`.
    """
    if differ := differing(first, second):
        raise DataError(
            f"Figures of different {differ.what} cannot be compared",
            seen=f"{first.provenance.model}: {differ.first}; {second.provenance.model}: {differ.second}",
            remedy=differ.remedy,
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
