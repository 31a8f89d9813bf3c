"""Intervals cover what they should, tests agree with SciPy's and with arithmetic."""

import numpy as np
import pytest
from scipy import stats

from opadpo.errors import DataError
from opadpo.evaluation.figures import percent
from opadpo.evaluation.statistics import differences, intervals, mcnemar, win_rate


def rate(sums):
    return {"rate": percent(sums["part"], sums["whole"])}


def made(values: list[int]) -> list[dict[str, int]]:
    return [{"part": value, "whole": 1} for value in values]


def test_the_interval_of_a_rate_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).integers(0, 2, 200).tolist()
    ours = intervals(made(values), rate, resamples=4000)["rate"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    assert ours.value == pytest.approx(100 * np.mean(values))
    assert (ours.low, ours.high) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1.5)


def test_clusters_widen_the_interval_as_much_as_they_repeat() -> None:
    values = np.random.default_rng(3).integers(0, 2, 100).tolist()
    alone = intervals(made(values), rate, resamples=3000)["rate"]
    copied = [value for value in values for _ in range(4)]
    wrong = intervals(made(copied), rate, resamples=3000)["rate"]
    right = intervals(made(copied), rate, clusters=[i for i in range(100) for _ in range(4)], resamples=3000)["rate"]
    assert right.high - right.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert wrong.high - wrong.low == pytest.approx((alone.high - alone.low) / 2, rel=0.15)


def test_a_rate_over_mentions_is_not_a_mean_of_rates() -> None:
    counts = [{"part": 1, "whole": 1}, {"part": 0, "whole": 9}]
    assert intervals(counts, rate, resamples=50)["rate"].value == 10.0


def test_equal_models_do_not_differ() -> None:
    counts = made([0, 1, 1, 0, 1])
    found = differences(counts, counts, rate, resamples=200)["rate"]
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_permutation_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(5)
    first = rng.integers(0, 2, 60)
    second = np.where(rng.random(60) < 0.3, 1, first)
    ours = differences(made(first.tolist()), made(second.tolist()), rate, resamples=5000)["rate"]
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        permutation_type="samples",
        n_resamples=5000,
        vectorized=True,
        rng=6,
    )
    assert ours.value == pytest.approx(100 * (first.mean() - second.mean()))
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.02)


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    first = [1] * 40 + [0] * 60
    second = [1] * 30 + [0] * 70  # the same items but ten
    found = differences(made(first), made(second), rate, resamples=2000)["rate"]
    assert found.low > 0
    assert found.p_value < 0.01
    assert intervals(made(first), rate, resamples=2000)["rate"].low < 30 + 5


def test_mcnemar_is_the_exact_test_of_the_discordant_pairs() -> None:
    first = [True] * 12 + [False] * 3 + [True] * 50
    second = [False] * 12 + [True] * 3 + [True] * 50
    assert mcnemar(first, second) == pytest.approx(stats.binomtest(12, 15).pvalue)
    assert mcnemar([True, False], [True, False]) == 1.0


def test_a_win_rate_counts_a_tie_as_half() -> None:
    found = win_rate(6, 2, 2)
    assert found.value == 70.0
    assert 0 < found.low < 70 < found.high < 100
    assert win_rate(10, 0).high == pytest.approx(100.0)


def test_other_items_are_refused() -> None:
    with pytest.raises(DataError, match="2, 1 items"):
        differences(made([1, 0]), made([1]), rate)
    with pytest.raises(DataError, match="0 items"):
        intervals([], rate)
    with pytest.raises(DataError, match="2 and 1"):
        mcnemar([True, False], [True])
    with pytest.raises(DataError, match="0 votes"):
        win_rate(0, 0)
