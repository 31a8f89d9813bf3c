"""Rows of work that are done by asking a model: what a step does, whatever it asks for.

A step gives rows and a function that asks what a row needs through an `Asker` and makes a result of the answers.
`carry_out` first settles what earlier runs have asked, then tells the price, and asks for the rest, one by one or
through the batch service. It may be ended at any moment and called again.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from opadpo.errors import CostRefused, OpadpoError, StepFailed, UserError
from opadpo.llm.asking import Asker, NotAsked
from opadpo.llm.batch_ledger import BatchLedger
from opadpo.llm.batching import BatchRunner
from opadpo.llm.client import ChatClient, check_budget
from opadpo.llm.estimate import Estimate, Estimator
from opadpo.llm.keys import endpoint_key
from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import ChatRequest
from opadpo.llm.running import run_to_end
from opadpo.llm.server import running_server
from opadpo.llm.store import RequestStore
from opadpo.progress import Progress
from opadpo.recipe.endpoints import AskingSection

SERVER_LOG = "server.log"
"""Output of a server that the step starts, beside the store."""

_MOST_ROUNDS = 8
"""A row asks and perhaps asks back; more rounds than this beside retries mean that batches expire for ever."""

Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Asking:
    """How to ask."""

    section: AskingSection
    """The recipe's settings."""
    store: RequestStore
    """What is known, and where answers are kept."""
    progress: Progress
    """Where to tell how far it is."""
    retry_failed: bool = False
    """Ask again, once, what has failed in earlier runs."""
    batch: bool = False
    """Use the provider's batch service."""
    agree: Callable[[Estimate], bool] | None = None
    """Asks a person whether the price is all right; None if nobody is there."""


@dataclass(frozen=True)
class Work(Generic[Row, Result]):
    """What to do."""

    name: str
    """For progress."""
    rows: Callable[[], Iterator[Row]]
    """All rows, in the same order at every call."""
    talk: Callable[[Row, Asker], Awaitable[Result]]
    """Asks for one row; what goes wrong with the row alone is in its result."""
    take: Callable[[Row, Result], None]
    """Gets each result once, in any order."""


def carry_out(work: Work[Row, Result], how: Asking) -> None:
    """Do the work. Also where an event loop runs already (a notebook, the app).

    Raises:
        CostRefused: if the estimate is above the set amount, or there is no price, and nobody agrees.
        BudgetReached: if the budget is used up; what was answered is kept.
        EndpointError: if the server cannot be used at all: address, key, model or quota.
        StepFailed: if the server has stopped answering.
        UserError: if there is a budget and no price, or requests wait at the batch service and `batch` is not set.
    """
    run_to_end(_Run(work, how).go())


class _Run(Generic[Row, Result]):
    def __init__(self, work: Work[Row, Result], how: Asking) -> None:
        self.work, self.how, self.section = work, how, how.section
        self.asker = Asker(how.store, retry_failed=how.retry_failed)
        self.ledger = BatchLedger(how.store)
        self.asker.ask_again(self.ledger.waiting_keys())
        self.pending: set[int] = set()
        self.stop: list[OpadpoError] = []

    async def go(self) -> None:
        done, estimate = await self._settle_known()
        with self.how.progress.task(self.work.name, done + len(self.pending), done=done) as task:
            if not self.pending:
                return
            self._check(estimate)
            with self._base_url() as base_url:
                spent = self.how.store.spent().cost_usd
                async with ChatClient(
                    self.section, base_url=base_url, spent=spent, say=self.how.progress.warn
                ) as client:
                    self.asker.client = client
                    await (self._in_batches if self.how.batch else self._one_by_one)(client, task.advance)

    async def _settle_known(self) -> tuple[int, Estimate]:
        """Take over what earlier runs have asked; returns the number of such rows, and what the rest will cost."""
        batch = self.how.batch
        prices = PriceTable(self.section.prices, factor=self.section.batch.price_factor if batch else 1.0)
        estimator = Estimator(prices, self.section.endpoint.model, batch=batch)
        handed_in = self.ledger.waiting_keys()
        done = 0
        for place, row in enumerate(self.work.rows()):
            try:
                self.work.take(row, await self.work.talk(row, self.asker))
                done += 1
            except NotAsked as missing:
                self.pending.add(place)
                if missing.request.key not in handed_in:
                    estimator.add(missing.request)
        return done, estimator.result()

    def _check(self, estimate: Estimate) -> None:
        """Everything that can be said before the first call."""
        waiting = len(self.ledger.waiting_keys())
        if waiting and not self.how.batch:
            raise UserError(
                "Requests of an earlier run are with the batch service",
                seen=f"{waiting} requests in {len(self.ledger.open_parts())} batches",
                remedy="run the command with --batch: it waits for them; or cancel the batches with the provider and"
                " run it with --batch once, which keeps what was answered",
            )
        check_budget(self.section, PriceTable(self.section.prices))
        for endpoint in (self.section.endpoint, *self.section.more_endpoints):
            endpoint_key(endpoint)
        if estimate.cost_usd is not None or self.section.endpoint.api_key_required:
            self._agree(estimate)

    def _agree(self, estimate: Estimate) -> None:
        """Tell the price, and ask about one that is high or unknown."""
        self.how.progress.say(estimate.text)
        unknown = estimate.cost_usd is None and estimate.requests > 0
        if (math.inf if unknown else estimate.cost_usd or 0.0) <= self.section.ask_above_usd:
            return
        if self.how.agree is None:
            raise CostRefused(
                "Nobody knows what this costs: the model has no price"
                if unknown
                else "The estimate is above what may be spent without asking",
                seen=f"{estimate.text}; ask_above_usd is {self.section.ask_above_usd:g}",
                remedy=f"set prices, for example prices: {{{self.section.endpoint.model}: {{input: 2.5, output: 10}}}},"
                " or say --yes; in a job nobody can: submit it with --set and the section's prices"
                if unknown
                else "say --yes if that is all right, or raise ask_above_usd (a job has nobody to ask: use --set);"
                " --batch costs half where there is one",
            )
        if not self.how.agree(estimate):
            raise CostRefused("Nothing was asked: you did not agree to the price", seen=estimate.text)

    @contextlib.contextmanager
    def _base_url(self) -> Iterator[str | None]:
        """The first server's address; a server that the recipe names the command of runs meanwhile."""
        endpoint = self.section.endpoint
        if endpoint.base_url or not endpoint.server_command:
            yield endpoint.base_url
            return
        log: Path = self.how.store.path.with_name(SERVER_LOG)
        self.how.progress.say(f"starting the server of {self.work.name} (its output: {log})")
        with running_server(endpoint.server_command, log) as url:
            yield url

    def _pending_rows(self) -> Iterator[tuple[int, Row]]:
        pending = frozenset(self.pending)
        return ((place, row) for place, row in enumerate(self.work.rows()) if place in pending)

    async def _one_by_one(self, _client: ChatClient, advance: Callable[[int], None], limit: int | None = None) -> None:
        """Ask for every row that is pending (at most `limit`), many at once."""
        rows = self._pending_rows()
        left = len(self.pending) if limit is None else limit

        async def work() -> None:
            nonlocal left
            while left > 0 and not self.stop:
                left -= 1
                place, row = next(rows)
                try:
                    self.work.take(row, await self.work.talk(row, self.asker))
                except OpadpoError as error:
                    # What is in flight when another request meets a hard stop is paid for: it may finish.
                    self.stop.append(error)
                    return
                self.pending.discard(place)
                advance(1)

        await asyncio.gather(*(work() for _ in range(min(self.section.concurrency, left))))
        if self.stop:
            raise self.stop[0]

    async def _in_batches(self, client: ChatClient, advance: Callable[[int], None]) -> None:
        """Hand in what rows ask for, wait, and go round again with what they ask for then."""
        if not self.ledger.open_parts():
            # Thousands of requests with a setting that the server does not know would all fail in a day.
            await self._one_by_one(client, advance, limit=1)
        self.asker.client = None
        folder = self.how.store.path.parent
        runner = BatchRunner(self.section, client, self.how.store, folder, self.how.progress, self.asker)
        rounds = _MOST_ROUNDS + 2 * self.section.max_retries
        for _ in range(rounds):
            if not await runner.answer(self._missing(advance)):
                return
        if self.pending:
            raise StepFailed(
                "The batch service leaves requests without an answer",
                seen=f"{len(self.pending)} rows after {rounds} rounds",
                remedy="run the command again, or without --batch",
            )

    async def _missing(self, advance: Callable[[int], None]) -> AsyncIterator[ChatRequest]:
        """The next request of every pending row; rows that need none are done."""
        for place, row in self._pending_rows():
            try:
                self.work.take(row, await self.work.talk(row, self.asker))
            except NotAsked as missing:
                yield missing.request
                continue
            self.pending.discard(place)
            advance(1)
