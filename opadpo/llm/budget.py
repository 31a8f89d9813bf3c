"""A limit in dollars that holds although what is in flight has no price yet."""

import asyncio

from opadpo.errors import BudgetReached


class Budget:
    """Money: what is spent, and what may still be charged for requests in flight."""

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        """`limit` and `spent` in US dollars; without a limit everything passes."""
        self.limit = limit
        self.spent = spent
        self._reserved = 0.0
        self._in_flight = 0
        self._changed = asyncio.Event()

    def free(self) -> float:
        """US dollars that nothing has a claim on; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.spent - self._reserved

    async def reserve(self, amount: float) -> None:
        """Claim the most that a request can cost; waits while requests in flight may leave enough.

        Raises:
            BudgetReached: if the rest of the budget is too small for it.
        """
        while amount > self.free():
            if not self._in_flight:
                raise BudgetReached(
                    "The budget is used up",
                    seen=f"${self.spent:.4f} of ${self.limit or 0:.4f} spent; the next request may cost ${amount:.4f}",
                    remedy="raise max_cost_usd and run the command again: it asks nothing twice that was answered",
                )
            self._changed.clear()
            await self._changed.wait()
        self.claim(amount)

    def claim(self, amount: float) -> None:
        """Claim an amount without asking whether there is room: it is on its way already."""
        self._reserved += amount
        self._in_flight += 1

    def settle(self, reserved: float, cost: float) -> None:
        """The request has ended and cost that much."""
        self._reserved -= reserved
        self._in_flight -= 1
        self.spent += cost
        self._changed.set()
