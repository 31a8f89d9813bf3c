"""Asking with a memory: what was answered before comes from the store, what is answered now is kept first."""

import asyncio
from collections.abc import Iterable

from opadpo.llm.client import ChatClient
from opadpo.llm.requests import Answer, ChatRequest, Failure
from opadpo.llm.store import RequestStore


class NotAsked(Exception):
    """A request without an outcome, met while only looking up."""

    def __init__(self, request: ChatRequest) -> None:
        super().__init__(request.key)
        self.request = request


class Asker:
    """Answers requests from the store, else from the server; an answer is on disk before anyone sees it."""

    def __init__(self, store: RequestStore, client: ChatClient | None = None, *, retry_failed: bool = False) -> None:
        """Without a client, only look up. `retry_failed` asks again, once, what has failed in earlier runs."""
        self.client = client
        self._store = store
        self._retry_failed = retry_failed
        self._in_flight: dict[str, asyncio.Task[Answer | Failure]] = {}
        self._asked: set[str] = set()
        self._again: set[str] = set()
        self._waiting: list[tuple[str, Answer | Failure]] = []
        self._writing = asyncio.Lock()

    async def ask(self, request: ChatRequest) -> Answer | Failure:
        """The outcome of a request. The same request asked twice at once is sent once.

        Raises:
            NotAsked: if there is no client and no outcome.
            EndpointError, StepFailed, BudgetReached: as `ChatClient.ask`.
        """
        known = self._store.get(request.key)
        retry = self._retry_failed and request.key not in self._asked
        again = isinstance(known, Failure) and (retry or request.key in self._again)
        if known is not None and not again:
            return known
        if self.client is None:
            raise NotAsked(request)
        task = self._in_flight.get(request.key)
        if task is None:
            task = asyncio.create_task(self._ask(self.client, request))
            self._in_flight[request.key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(request.key, None))
        return await task

    def reject(self, requests: list[ChatRequest], failure: Failure) -> None:
        """The answers to these requests cannot be used: they count as failed from now on."""
        if self.client is not None:
            self._asked.update(request.key for request in requests)
        self._store.mark_failed([request.key for request in requests], failure)

    def note(self, keys: Iterable[str]) -> None:
        """These requests were asked in this run, by other means."""
        self._asked.update(keys)
        self._again.difference_update(keys)

    def ask_again(self, keys: Iterable[str]) -> None:
        """These requests have no last outcome yet: a failure that is kept of them does not count."""
        self._again.update(keys)

    async def _ask(self, client: ChatClient, request: ChatRequest) -> Answer | Failure:
        outcome = await client.ask(request)
        self._again.discard(request.key)
        self._waiting.append((request.key, outcome))
        await self._commit()
        if isinstance(outcome, Failure):
            self._asked.add(request.key)
        return outcome

    async def _commit(self) -> None:
        """Write all that waits in one transaction; whoever comes meanwhile waits for the next one."""
        async with self._writing:
            batch, self._waiting = self._waiting, []
            try:
                if batch:
                    await asyncio.to_thread(self._store.put, batch)
            except BaseException:
                # Nothing of it may be believed to be on disk: the others that wait must meet the error as well.
                self._waiting = batch + self._waiting
                raise
