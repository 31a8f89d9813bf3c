"""Metrics as functions of counts: every item has counts, a metric is a ratio of their sums.

One definition serves the figure itself, its interval and the tests of differences: they differ only in which items are
summed. All functions take numbers or arrays of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Sums = Mapping[str, Any]
"""Name of a count -> its sum over items: a number, or an array with one entry per resample."""
Figures = Callable[[Sums], dict[str, Any]]
"""Sums of counts -> metrics in percent."""


def percent(part: Any, whole: Any) -> Any:
    """100 * part / whole; 0 where nothing was counted."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    result = np.divide(100.0 * part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
    return float(result) if result.ndim == 0 else result


def detection(right: Any, predicted: Any, actual: Any) -> tuple[Any, Any, Any]:
    """(precision, recall, F1) in percent of one class from counts; 0 where a denominator is 0.

    Args:
        right: items of the class that were predicted as such.
        predicted: items that were predicted as of the class.
        actual: items of the class.
    """
    return percent(right, predicted), percent(right, actual), percent(2 * np.asarray(right), predicted + actual)


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of each count over items; a count that an item lacks is 0 there."""
    sums: Counter[str] = Counter()
    for item in counts:
        sums.update(item)
    return dict(sums)
