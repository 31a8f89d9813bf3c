"""The provider's batch service: requests in files, answers within a day, at half the price.

Every step of a part is noted in the ledger before or right after it is taken, so that a run that ends anywhere finds
out at its next start how far each part got: a file that was uploaded and a batch that was made without being noted
carry our name for the part and are found with the provider.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opadpo.errors import BudgetReached, EndpointError, OpadpoError, StepFailed
from opadpo.images import ImageProblem
from opadpo.llm.asking import Asker
from opadpo.llm.batch_file import PartWriter, part_path
from opadpo.llm.batch_ledger import BatchLedger, Part
from opadpo.llm.batch_provider import BatchProvider, passing
from opadpo.llm.batch_results import ResultReader
from opadpo.llm.budget import Budget
from opadpo.llm.client import ChatClient
from opadpo.llm.requests import Answer, ChatRequest, Failure
from opadpo.llm.store import RequestStore
from opadpo.progress import Progress
from opadpo.recipe.endpoints import AskingSection

if TYPE_CHECKING:
    from openai.types import Batch

_OVER = ("completed", "failed", "expired", "cancelled")
_TOO_MUCH_ENQUEUED = "token_limit_exceeded"
_LOST_POLLS = 16


class BatchRunner:
    """Has requests answered by the batch services of a client's servers, which get parts in turn."""

    def __init__(
        self,
        section: AskingSection,
        client: ChatClient,
        store: RequestStore,
        folder: Path,
        progress: Progress,
        asker: Asker,
    ) -> None:
        """Files of parts are kept in `folder` until they are done with; `asker` is told which requests have ended."""
        self._section = section
        self._client = client
        self._providers: dict[str, BatchProvider] = {}
        for endpoint, settings in zip(client.endpoints, (section.endpoint, *section.more_endpoints), strict=True):
            self._providers.setdefault(endpoint.base_url.rstrip("/"), BatchProvider(endpoint, settings))
        self._turns = list(self._providers.values())
        """Those that get parts: the next one first."""
        self._store = store
        self._ledger = BatchLedger(store)
        self._folder = folder
        self._progress = progress
        self._asker = asker
        self._tries: Counter[str] = Counter()
        self._seen: dict[str, str] = {}
        self._stop: EndpointError | StepFailed | None = None

    async def answer(self, requests: AsyncIterator[ChatRequest]) -> int:
        """Have requests answered; their outcomes are in the store when this returns.

        What earlier runs have handed in is waited for as well, and not handed in again. Requests of a batch that
        expired have no outcome, and those that have failed in passing have one that is not the last: ask again.
        Returns how many requests were handed in or waited for.

        Raises:
            EndpointError: if a provider refuses the batch, the key or the account, or one is not in the recipe any
                more where requests wait.
            StepFailed: if a batch was cancelled, or the provider has stopped answering.
            BudgetReached: if the rest of the budget is too small for a single request.
        """
        open_parts = self._ledger.open_parts()
        await self._make_contact({self._provider(part) for part in open_parts})
        self._forget_files()
        handled = 0
        for part in open_parts:
            self._client.budget.claim(part.reserved_usd)
            handled += part.requests
            await self._hand_in(part, again=True)
        handled += await self._hand_in_all(requests)
        await self._wait(lambda open_parts: not open_parts)
        if self._stop is not None:
            raise self._stop
        return handled

    def _provider(self, part: Part) -> BatchProvider:
        """The server that has a part.

        Raises:
            EndpointError: if the recipe does not name it any more.
        """
        provider = self._providers.get(part.base_url.rstrip("/"))
        if provider is None:
            raise EndpointError(
                "Requests of an earlier run are with a batch service that the recipe does not name any more",
                seen=f"{part.requests} requests at {part.base_url}; the recipe has {', '.join(self._providers)}",
                remedy="name that server again until its answers are here; it may be one of more_endpoints",
            )
        return provider

    async def _make_contact(self, needed: set[BatchProvider]) -> None:
        """See that there are servers; one that is not is left out, unless requests wait there."""
        for provider in list(self._turns):
            try:
                await provider.endpoint.make_contact()
            except EndpointError as error:
                if provider in needed:
                    raise
                self._leave_out(provider, error)

    def _leave_out(self, provider: BatchProvider, error: OpadpoError) -> None:
        """No more parts for a server.

        Raises:
            OpadpoError: the error itself if there is no other server.
        """
        if self._turns == [provider]:
            raise error
        self._turns.remove(provider)
        self._progress.warn(f"{provider.base_url} gets no batches, the other servers do: {error}")

    # -- making parts ------------------------------------------------------------------------------------------

    async def _hand_in_all(self, requests: AsyncIterator[ChatRequest]) -> int:
        """Write requests into files and hand each in when it is full."""
        handled = 0
        waiting = self._ledger.waiting_keys()
        writer = PartWriter(self._folder, self._section.batch.max_requests, self._section.batch.max_megabytes)
        try:
            async for request in requests:
                if request.key in waiting:
                    continue
                waiting.add(request.key)
                provider = self._turns[0]
                try:
                    line, worst = await asyncio.to_thread(self._line, request)
                except ImageProblem as problem:
                    failure = Failure(kind="image", reason=f"image {problem.reason}", retryable=True)
                    self._store.put([(request.key, failure)])
                    self._asker.note([request.key])
                    continue
                if not writer.has_room(line):
                    await self._send(writer)
                await self._make_room(writer, worst)
                if self._turns[0] is not provider:
                    line, worst = await asyncio.to_thread(self._line, request)
                writer.write(request.key, line, worst)
                handled += 1
            await self._send(writer)
        finally:
            writer.discard()
        return handled

    def _line(self, request: ChatRequest) -> tuple[bytes, float]:
        """A request as a line of a file for the next server, and the most that it can cost."""
        # The servers have the same model: what one does not know the others do not know either.
        unsupported = set[str]().union(*(each.unsupported for each in self._client.endpoints))
        worst = self._client.worst_cost(request, factor=self._section.batch.price_factor)
        return self._turns[0].line(request, unsupported), worst

    async def _make_room(self, writer: PartWriter, worst: float) -> None:
        """Where the budget has no room for one more request: hand in what there is, and wait for its true cost."""
        budget: Budget = self._client.budget
        if writer.worst + worst <= budget.free():
            return
        await self._send(writer)
        await self._wait(lambda open_parts: not open_parts or worst <= budget.free())
        if worst > budget.free():
            raise BudgetReached(
                "The budget is used up",
                seen=f"${budget.spent:.4f} of ${budget.limit or 0:.4f} spent; the next request may cost ${worst:.4f}",
                remedy="raise max_cost_usd and run the command again: it asks nothing twice that was answered",
            )

    async def _send(self, writer: PartWriter) -> None:
        """Note the part that is written, then hand it in; the next part is for the next server."""
        if not writer.keys:
            return
        part_id, keys, worst = writer.finish()
        provider = self._turns[0]
        part = self._ledger.add(part_id, provider.base_url, keys, worst)
        self._client.budget.claim(worst)
        await self._hand_in(part, again=False)
        if self._turns[0] is provider:
            self._turns.append(self._turns.pop(0))

    def _forget_files(self) -> None:
        """Delete files of parts that were never noted: nothing of them was sent."""
        kept = {part.part_id for part in self._ledger.open_parts()}
        for path in self._folder.glob("batch-*.jsonl"):
            if path.stem.removeprefix("batch-") not in kept:
                path.unlink()

    # -- handing in --------------------------------------------------------------------------------------------

    async def _hand_in(self, part: Part, *, again: bool) -> None:
        """Upload a part's file and make the batch, unless that is done; `again` looks with the provider first."""
        import openai

        path = part_path(self._folder, part.part_id)
        provider = self._provider(part)
        try:
            if part.batch_id is None and again:
                found = await provider.find_batch(part)
                part = self._ledger.created(part, found) if found else part
            if part.batch_id is not None:
                return
            if part.input_file_id is None:
                if not path.exists():
                    self._close(part)
                    return
                found = await provider.find_file(part, self._folder) if again else None
                part = self._ledger.uploaded(part, found or await provider.upload(path))
            part = self._ledger.created(part, await provider.create(part))
            self._progress.say(f"batch {part.batch_id}: {part.requests} requests handed in")
        except openai.APIError as error:
            trouble = provider.trouble(error)
            if part.input_file_id is not None or not isinstance(trouble, EndpointError):
                raise trouble from error
            # It has taken nothing: its requests are asked for in the next round, by others.
            self._leave_out(provider, trouble)
            self._close(part)

    # -- waiting -----------------------------------------------------------------------------------------------

    async def _wait(self, enough: Callable[[list[Part]], bool]) -> None:
        """Look at the open parts until `enough`, keeping the results of those that are over."""
        import httpx2
        import openai

        lost = 0
        while True:
            open_parts = self._ledger.open_parts()
            if enough(open_parts):
                return
            for part in open_parts:
                try:
                    await self._look_at(part, alone=len(open_parts) == 1)
                    lost = 0
                except (openai.APIError, httpx2.TransportError) as error:
                    provider = self._provider(part)
                    if isinstance(error, openai.APIStatusError) and not passing(error):
                        raise provider.trouble(error) from error
                    lost += 1
                    if lost >= _LOST_POLLS:
                        raise provider.lost(error) from error
            if not enough(self._ledger.open_parts()):
                await asyncio.sleep(self._section.batch.poll_seconds)

    async def _look_at(self, part: Part, *, alone: bool) -> None:
        if part.batch_id is None:
            await self._hand_in(part, again=True)
            return
        batch = await self._provider(part).look(part.batch_id)
        counts = batch.request_counts
        done = f", {counts.completed + counts.failed} of {counts.total} done" if counts and counts.total else ""
        if self._seen.get(batch.id) != batch.status + done:
            self._seen[batch.id] = batch.status + done
            self._progress.say(f"batch {batch.id}: {batch.status}{done}")
        if batch.status not in _OVER:
            return
        if batch.status == "failed" and _error_code(batch) == _TOO_MUCH_ENQUEUED and not alone:
            # There is a limit on what may wait at once: this part's turn comes when another one is done.
            self._ledger.created(part, None)
            return
        await self._collect(part, batch)

    async def _collect(self, part: Part, batch: "Batch") -> None:
        """Keep the outcomes of a batch that is over, then close its part."""
        provider = self._provider(part)
        reader = ResultReader(self._section, provider.endpoint)
        cost = 0.0
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            async with provider.lines(file_id) as lines:
                async for outcomes in reader.read(lines):
                    cost += sum(outcome.usage.cost_usd for _, outcome in outcomes)
                    self._keep(part, outcomes)
        if batch.status == "completed" and not reader.hopeless:
            missing = self._ledger.keys_of(part.part_id) - reader.left_open
            lost = Failure(
                kind="malformed_reply", reason="the batch's results do not hold this request", retryable=True
            )
            self._keep(part, [(key, lost) for key in missing])
        left = self._close(part, cost)
        self._stop = self._stop or reader.hopeless or self._why_to_stop(batch, left, provider)

    def _keep(self, part: Part, outcomes: Sequence[tuple[str, Answer | Failure]]) -> None:
        """Keep outcomes. What failed in passing is to be handed in again, as often as the recipe says."""
        new = set(self._ledger.keep(part, outcomes))
        for key, outcome in outcomes:
            if key not in new:
                continue
            self._tries[key] += 1
            if isinstance(outcome, Failure) and outcome.retryable and self._tries[key] <= self._section.max_retries:
                self._asker.ask_again([key])
            else:
                self._asker.note([key])

    def _close(self, part: Part, cost: float = 0.0) -> int:
        left = self._ledger.close(part)
        part_path(self._folder, part.part_id).unlink(missing_ok=True)
        self._client.budget.settle(part.reserved_usd, cost)
        return left

    # -- errors ------------------------------------------------------------------------------------------------

    def _why_to_stop(self, batch: "Batch", left: int, provider: BatchProvider) -> EndpointError | StepFailed | None:
        if batch.status == "cancelled" and left:
            return StepFailed(
                "A batch was cancelled at the provider",
                seen=f"{batch.id}: {left} requests without an answer",
                remedy="run the command again to hand them in again; without --batch they are asked one by one",
            )
        if batch.status == "failed":
            errors = batch.errors.data if batch.errors and batch.errors.data else []
            told = "; ".join(f"{error.code}: {error.message}" for error in errors[:3]) or "no reason given"
            return EndpointError(
                "The provider has refused a batch",
                seen=f"{batch.id}: {provider.endpoint.clean(told)}",
                remedy="correct what it says (a model that takes no batches; batch.max_requests too large for"
                " your limits), then run the command again",
            )
        return None


def _error_code(batch: "Batch") -> str | None:
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    return errors[0].code if errors else None
