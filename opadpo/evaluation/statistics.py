"""How sure a figure is: intervals and paired tests, over items that may come in clusters (questions of one image).

The bootstrap draws clusters with replacement (percentile interval); the permutation test swaps the two models' results
cluster by cluster. Both sum counts and apply the benchmark's own definition of its metrics, so a rate over all mentions
is handled as what it is, not as a mean of rates.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.figures import Figures

Counts = Sequence[Mapping[str, int]]
"""One entry per item."""

_CHUNK = 500
"""Resamples at a time: bounds memory at some thousand clusters."""


class Interval(BaseModel):
    """A metric of one model."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    value: float
    """Percent."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class Difference(BaseModel):
    """A metric of one model less that of another on the same items."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    value: float
    """Percentage points."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    p_value: float
    """Of a difference at least as large if the two models were exchangeable, two-sided."""
    test: Literal["permutation", "mcnemar"]
    """How it was found."""
    n: int
    """Items that were compared."""


class _Grouped(NamedTuple):
    """Counts summed per cluster."""

    names: list[str]
    sums: NDArray[np.float64]
    """(clusters, names)."""


def intervals(
    counts: Counts,
    figures: Figures,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Every metric with its bootstrap interval.

    Args:
        counts: of every item.
        figures: metrics from sums of counts.
        clusters: what each item belongs to; None: every item stands alone.
        seed: of the resampling.
        resamples: how many.
        confidence: of the interval.

    Raises:
        DataError: if there is no item.
    """
    (grouped,) = _group([counts], clusters)
    values = figures(_named(grouped, grouped.sums.sum(0)))
    drawn = _collect(
        figures(_named(grouped, weights @ grouped.sums)) for weights in _draws(len(grouped.sums), seed, resamples)
    )
    tail = 50 * (1 - confidence)
    result = {}
    for name, value in values.items():
        low, high = np.percentile(drawn[name], [tail, 100 - tail])
        result[name] = Interval(value=value, low=float(low), high=float(high))
    return result


def differences(
    first: Counts,
    second: Counts,
    figures: Figures,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Every metric of `first` less that of `second`, with a paired interval and a permutation test.

    Args:
        first: counts of one model's items.
        second: the other's, of the same items in the same order.
        figures: metrics from sums of counts.
        clusters: what each item belongs to; None: every item stands alone.
        seed: of the resampling.
        resamples: how many draws, and how many permutations.
        confidence: of the interval.

    Raises:
        DataError: if the numbers of items differ, or there is none.
    """
    one, two = _group([first, second], clusters)
    observed = _minus(figures(_named(one, one.sums.sum(0))), figures(_named(two, two.sums.sum(0))))
    drawn = _collect(
        _minus(figures(_named(one, weights @ one.sums)), figures(_named(two, weights @ two.sums)))
        for weights in _draws(len(one.sums), seed, resamples)
    )
    swapped = _collect(
        _minus(figures(_named(one, one.sums.sum(0) + moved)), figures(_named(two, two.sums.sum(0) - moved)))
        for moved in (swaps @ (two.sums - one.sums) for swaps in _swaps(len(one.sums), seed + 1, resamples))
    )
    tail = 50 * (1 - confidence)
    result = {}
    for name, value in observed.items():
        low, high = np.percentile(drawn[name], [tail, 100 - tail])
        # Rounding must not make an equal difference look smaller.
        as_large = int((np.abs(swapped[name]) >= abs(value) - 1e-9).sum())
        result[name] = Difference(
            value=value,
            low=float(low),
            high=float(high),
            p_value=(1 + as_large) / (1 + resamples),
            test="permutation",
            n=len(first),
        )
    return result


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided McNemar test of two models' right and wrong answers to the same questions.

    Raises:
        DataError: if the numbers of answers differ.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise DataError(
            "A paired test needs both models' answers to the same questions",
            seen=f"{len(first)} and {len(second)} answers",
            remedy="caption the same set with both models",
        )
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def win_rate(wins: int, losses: int, ties: int = 0, *, confidence: float = 0.95) -> Interval:
    """Share of comparisons that were won, in percent, a tie as half; Wilson's interval.

    Raises:
        DataError: if there was no comparison.
    """
    from scipy.stats import norm

    n = wins + losses + ties
    if n == 0:
        raise DataError("There are no votes to count", seen="0 votes", remedy="vote in the Compare tab first")
    share, z = (wins + ties / 2) / n, float(norm.ppf(0.5 + confidence / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(value=100 * share, low=100 * float(centre - half), high=100 * float(centre + half))


def _group(several: Sequence[Counts], clusters: Sequence[Hashable] | None) -> list[_Grouped]:
    sizes = {len(counts) for counts in several}
    size = max(sizes)
    if len(sizes) > 1 or size == 0 or (clusters is not None and len(clusters) != size):
        raise DataError(
            "Statistics need the same items for every model, and at least one",
            seen=f"{', '.join(str(len(counts)) for counts in several)} items",
            remedy="score captions of the same set",
        )
    places: dict[Hashable, int] = {}
    rows = np.array([places.setdefault(key, len(places)) for key in (range(size) if clusters is None else clusters)])
    names = sorted({name for counts in several for item in counts for name in item})
    grouped = []
    for counts in several:
        table = np.array([[item.get(name, 0) for name in names] for item in counts], dtype=np.float64)
        sums = np.zeros((len(places), len(names)))
        np.add.at(sums, rows, table)
        grouped.append(_Grouped(names, sums))
    return grouped


def _named(grouped: _Grouped, sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name: sums[..., column] for column, name in enumerate(grouped.names)}


def _draws(clusters: int, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """(chunk, clusters): how often each cluster is in each resample."""
    return _chunks(
        seed, resamples, lambda rng, size: rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)
    )


def _swaps(clusters: int, seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """(chunk, clusters): 1 where the two models' results change places."""
    return _chunks(seed, resamples, lambda rng, size: rng.integers(0, 2, size=(size, clusters)))


def _chunks(
    seed: int, resamples: int, draw: Callable[[np.random.Generator, int], NDArray[np.int64]]
) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        yield draw(rng, min(_CHUNK, resamples - start)).astype(np.float64)


def _minus(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {name: first[name] - second[name] for name in first}


def _collect(chunks: Iterator[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for chunk in chunks:
        for name, values in chunk.items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}
