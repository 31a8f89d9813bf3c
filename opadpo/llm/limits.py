"""How much may be sent to one server now: in flight, per minute, and not while it asks for a pause."""

import random
import time
from collections import deque
from collections.abc import Callable

_MINUTE = 60.0
_ROUNDING = 1e-6
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class MinuteBudget:
    """Amounts within any 60 seconds; exact, because it keeps what was taken in the last 60."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._taken: deque[list[float]] = deque()
        self._sum = 0.0

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` fits. What is larger than the whole budget goes when nothing else was taken."""
        self._forget(now)
        excess = self._sum + min(amount, self.budget) - self.budget
        wait = 0.0
        for moment, taken in self._taken:
            if excess <= _ROUNDING:
                break
            excess -= taken
            wait = moment + _MINUTE - now
        return wait

    def take(self, amount: float, now: float) -> list[float]:
        """Count `amount`; the entry can be corrected later with `correct`."""
        entry = [now, amount]
        self._taken.append(entry)
        self._sum += amount
        return entry

    def correct(self, entry: list[float], amount: float, now: float) -> None:
        """It was `amount` in truth."""
        if now - entry[0] < _MINUTE:
            self._sum += amount - entry[1]
            entry[1] = amount

    def free_share(self, now: float) -> float:
        """What is left of the budget, 0 to 1."""
        self._forget(now)
        return max(0.0, 1 - self._sum / self.budget)

    def _forget(self, now: float) -> None:
        while self._taken and now - self._taken[0][0] >= _MINUTE:
            self._sum -= self._taken.popleft()[1]
        if not self._taken:
            self._sum = 0.0


class Permit:
    """One request that may be sent."""

    __slots__ = ("entries", "sent_at")

    def __init__(self, sent_at: float, entries: list[tuple[MinuteBudget, list[float]]]) -> None:
        self.sent_at = sent_at
        self.entries = entries


class Limits:
    """The room at one server. Its window of requests in flight halves when the server is busy and grows again."""

    def __init__(
        self,
        concurrency: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = concurrency
        self._window = float(concurrency)
        self._requests = MinuteBudget(requests_per_minute) if requests_per_minute else None
        self._tokens = MinuteBudget(tokens_per_minute) if tokens_per_minute else None
        self._clock = clock
        self._paused_until = 0.0
        self._slowed_at = 0.0
        self.in_flight = 0
        self.pauses_in_a_row = 0
        """How often the server was busy since it last answered."""

    def room(self, tokens: float) -> float:
        """Share of this server that is free, 0 to 1; 0 if a request of so many tokens cannot be sent now."""
        now = self._clock()
        slots = 1 - self.in_flight / max(1.0, self._window)
        if slots <= 0 or self._wait(tokens, now) > 0:
            return 0.0
        budgets = [budget for budget in (self._requests, self._tokens) if budget]
        return max(1e-9, min([slots, *(budget.free_share(now) for budget in budgets)]))

    def delay(self, tokens: float) -> float | None:
        """Seconds until a request can be sent; None if one in flight has to end first."""
        if self.in_flight >= max(1, int(self._window)):
            return None
        return self._wait(tokens, self._clock())

    def take(self, tokens: float) -> Permit:
        """Count a request as sent."""
        now = self._clock()
        self.in_flight += 1
        amounts = ((self._requests, 1.0), (self._tokens, tokens))
        return Permit(now, [(budget, budget.take(amount, now)) for budget, amount in amounts if budget])

    def give_back(self, permit: Permit, tokens: float | None = None) -> None:
        """The request has ended; `tokens` is what it used in truth, None if nobody knows."""
        self.in_flight -= 1
        if tokens is not None and self._tokens:
            entry = permit.entries[-1][1]
            self._tokens.correct(entry, tokens, self._clock())

    def answered(self) -> None:
        """The server answers: a little more may be in flight."""
        self.pauses_in_a_row = 0
        self._window = min(self._most, self._window + 1 / self._window)

    def slow_down(self, permit: Permit, wait: float | None) -> float:
        """The server is busy: send nothing for `wait` seconds (None: ever longer) and then less at once.

        Returns the seconds. Of many requests that were in flight together only the first counts.
        """
        now = self._clock()
        if permit.sent_at >= self._slowed_at:
            self._slowed_at = now
            self._window = max(1.0, self._window / 2)
            self.pauses_in_a_row += 1
        if wait is None:
            wait = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self.pauses_in_a_row - 1)) * random.uniform(0.75, 1.25)
        self._paused_until = max(self._paused_until, now + wait)
        return wait

    def _wait(self, tokens: float, now: float) -> float:
        waits = [self._paused_until - now]
        waits += [
            budget.delay(amount, now) for budget, amount in ((self._requests, 1), (self._tokens, tokens)) if budget
        ]
        return max(0.0, *waits)
