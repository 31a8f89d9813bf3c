from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from opadpo.llm.limits import Limits, MinuteBudget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.integers(1, 200),
    st.lists(st.tuples(st.floats(0, 40), st.floats(0.5, 60)), min_size=1, max_size=60),
)
def test_no_minute_ever_has_more_than_its_budget_and_no_wait_is_longer_than_needed(
    budget: int, sends: list[tuple[float, float]]
) -> None:
    kept, now, sent = MinuteBudget(budget), 0.0, deque[tuple[float, float]]()
    for pause, amount in sends:
        now += pause
        amount = min(amount, budget)
        wait = kept.delay(amount, now)
        if wait > 1e-3:  # a shorter one is lost in the rounding of times
            just_before = now + wait * 0.999
            in_window = sum(size for moment, size in sent if just_before - moment < 60)
            assert in_window + amount > budget - 1e-4
        now += wait + 1e-6
        kept.take(amount, now)
        sent.append((now, amount))
    for start, _ in sent:
        assert sum(size for moment, size in sent if 0 <= moment - start < 60) <= budget + 1e-4


def test_true_usage_takes_the_place_of_the_estimate() -> None:
    kept = MinuteBudget(100)
    entry = kept.take(80, 0.0)
    assert kept.delay(50, 1.0) > 0
    kept.correct(entry, 10, 2.0)
    assert kept.delay(50, 2.0) == 0
    assert kept.free_share(2.0) == 0.9


def test_a_request_larger_than_the_whole_budget_goes_alone() -> None:
    kept = MinuteBudget(10)
    assert kept.delay(500, 0.0) == 0
    kept.take(500, 0.0)
    assert kept.delay(1, 59.0) == 1.0
    assert kept.delay(1, 60.0) == 0


def test_many_busy_replies_at_once_count_as_one_and_the_window_grows_again() -> None:
    clock = Clock()
    limits = Limits(16, clock=clock)
    permits = [limits.take(0) for _ in range(16)]
    assert limits.room(0) == 0
    assert limits.delay(0) is None
    clock.now += 0.1
    for permit in permits:
        assert limits.slow_down(permit, 2.0) == 2.0
        limits.give_back(permit)
    assert limits.pauses_in_a_row == 1
    assert limits.delay(0) == 2.0
    clock.now += 2.0
    assert limits.room(0) > 0

    def at_once() -> int:
        taken = []
        while limits.room(0) > 0:
            taken.append(limits.take(0))
        for permit in taken:
            limits.give_back(permit)
        return len(taken)

    assert at_once() == 8
    for _ in range(200):
        limits.answered()
    assert at_once() == 16
    assert limits.pauses_in_a_row == 0


def test_without_a_word_from_the_server_pauses_get_longer() -> None:
    clock = Clock()
    limits = Limits(4, clock=clock)
    waits = []
    for _ in range(10):
        clock.now += 100
        permit = limits.take(0)
        waits.append(limits.slow_down(permit, None))
        limits.give_back(permit)
    assert waits[0] < 1
    assert waits[2] > waits[0]
    assert max(waits) <= 75


def test_the_server_with_most_room_comes_first() -> None:
    clock = Clock()
    small, large = Limits(2, clock=clock), Limits(8, clock=clock)
    small.take(0)
    large.take(0)
    assert large.room(0) > small.room(0)
    metered = Limits(8, requests_per_minute=2, clock=clock)
    metered.take(0)
    assert large.room(0) > metered.room(0) > 0
