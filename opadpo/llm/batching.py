"""The provider's batch service: requests in files, answers within a day, at half the price.

Every step of a part is noted in the ledger before or right after it is taken, so that a run that ends anywhere finds
out at its next start how far each part got: a file that was uploaded and a batch that was made without being noted
carry our name for the part and are found with the provider.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.errors import BudgetReached, EndpointError, StepFailed
from opadpo.images import ImageProblem
from opadpo.llm.batch_file import PartWriter, part_path
from opadpo.llm.batch_ledger import BatchLedger, Part
from opadpo.llm.batch_results import ResultReader
from opadpo.llm.budget import Budget
from opadpo.llm.client import ChatClient
from opadpo.llm.requests import ChatRequest, Failure
from opadpo.llm.store import RequestStore
from opadpo.llm.transport import batch_path
from opadpo.llm.wire import body, encode_messages
from opadpo.progress import Progress
from opadpo.recipe.endpoints import AskingSection

if TYPE_CHECKING:
    from openai.types import Batch

_PART_KEY = "opadpo_part"
"""Metadata of a batch: our name for its part."""
_OVER = ("completed", "failed", "expired", "cancelled")
_TOO_MUCH_ENQUEUED = "token_limit_exceeded"
_LOST_POLLS = 16


class BatchRunner:
    """Has requests answered by the batch service of a client's first server."""

    def __init__(
        self,
        section: AskingSection,
        client: ChatClient,
        store: RequestStore,
        folder: Path,
        progress: Progress,
        *,
        note: Callable[[Sequence[str]], None] = lambda _keys: None,
    ) -> None:
        """Files of parts are kept in `folder` until they are done with; `note` is told which requests have ended."""
        self._section = section
        self._client = client
        self._endpoint = client.endpoints[0]
        # Patient: a lost poll or download is tried again; what makes something at the provider never is.
        self._sdk = self._endpoint.sdk.with_options(max_retries=4)
        self._once = self._endpoint.sdk.with_options(max_retries=0)
        self._store = store
        self._ledger = BatchLedger(store)
        self._folder = folder
        self._progress = progress
        self._note = note
        self._seen: dict[str, str] = {}
        self._stop: EndpointError | StepFailed | None = None

    async def answer(self, requests: AsyncIterator[ChatRequest]) -> int:
        """Have requests answered; their outcomes are in the store when this returns.

        What earlier runs have handed in is waited for as well, and not handed in again. Requests of a batch that
        expired have no outcome: ask again. Returns how many requests were handed in or waited for.

        Raises:
            EndpointError: if the provider refuses the batch, the key or the account.
            StepFailed: if a batch was cancelled, or the provider has stopped answering.
            BudgetReached: if the rest of the budget is too small for a single request.
        """
        await self._endpoint.make_contact()
        self._forget_files()
        handled = 0
        for part in self._ledger.open_parts():
            self._client.budget.claim(part.reserved_usd)
            handled += part.requests
            await self._hand_in(part, again=True)
        handled += await self._hand_in_all(requests)
        await self._wait(lambda open_parts: not open_parts)
        if self._stop is not None:
            raise self._stop
        return handled

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
                try:
                    line, worst = await asyncio.to_thread(self._line, request)
                except ImageProblem as problem:
                    failure = Failure(kind="image", reason=f"image {problem.reason}", retryable=True)
                    self._store.put([(request.key, failure)])
                    self._note([request.key])
                    continue
                if not writer.has_room(line):
                    await self._send(writer)
                await self._make_room(writer, worst)
                writer.write(request.key, line, worst)
                handled += 1
            await self._send(writer)
        finally:
            writer.discard()
        return handled

    def _line(self, request: ChatRequest) -> tuple[bytes, float]:
        """A request as a line of a file, and the most that it can cost."""
        endpoint = self._endpoint
        content = body(request, encode_messages(request), endpoint.model, endpoint.unsupported)
        head = json.dumps({"custom_id": request.key, "method": "POST", "url": batch_path(self._section.endpoint)})
        worst = self._client.worst_cost(request, factor=self._section.batch.price_factor)
        return head[:-1].encode() + b', "body": ' + content + b"}\n", worst

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
        """Note the part that is written, then hand it in."""
        if not writer.keys:
            return
        part_id, keys, worst = writer.finish()
        part = self._ledger.add(part_id, self._endpoint.base_url, keys, worst)
        self._client.budget.claim(worst)
        await self._hand_in(part, again=False)

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
        try:
            if part.batch_id is None and again:
                found = await self._find_batch(part)
                part = self._ledger.created(part, found) if found else part
            if part.batch_id is not None:
                return
            if part.input_file_id is None:
                if not path.exists():
                    self._close(part)
                    return
                found = await self._find_file(part) if again else None
                part = self._ledger.uploaded(part, found or await self._upload(path))
            await self._create(part)
        except openai.APIStatusError as error:
            raise self._endpoint.hopeless(error) or self._refused(part, error) from error
        except openai.APIConnectionError as error:
            raise self._lost(error) from error

    async def _upload(self, path: Path) -> str:
        with path.open("rb") as stream:
            uploaded = await self._sdk.files.create(file=(path.name, stream, "application/jsonl"), purpose="batch")
        return uploaded.id

    async def _create(self, part: Part) -> None:
        """Make the batch. A call whose answer is lost may have made it: then the provider's list knows."""
        import openai

        assert part.input_file_id is not None
        path: Any = batch_path(self._section.endpoint)
        try:
            batch = await self._once.batches.create(
                input_file_id=part.input_file_id,
                endpoint=path,
                completion_window="24h",
                metadata={_PART_KEY: part.part_id},
            )
            batch_id = batch.id
        except (openai.APIConnectionError, openai.InternalServerError):
            found = await self._find_batch(part)
            if found is None:
                raise
            batch_id = found
        self._ledger.created(part, batch_id)
        self._progress.say(f"batch {batch_id}: {part.requests} requests handed in")

    async def _find_batch(self, part: Part) -> str | None:
        import openai

        try:
            async for batch in self._sdk.batches.list(limit=100):
                if (batch.metadata or {}).get(_PART_KEY) == part.part_id and batch.status != "failed":
                    return batch.id
        except openai.APIStatusError as error:
            if error.status_code not in (404, 405, 501):
                raise
        return None

    async def _find_file(self, part: Part) -> str | None:
        import openai

        try:
            async for file in self._sdk.files.list(purpose="batch"):
                if file.filename == part_path(self._folder, part.part_id).name:
                    return file.id
        except openai.APIStatusError as error:
            if error.status_code not in (404, 405, 501):
                raise
        return None

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
                except openai.APIStatusError as error:
                    raise self._endpoint.hopeless(error) or self._refused(part, error) from error
                except (openai.APIConnectionError, httpx2.TransportError) as error:
                    lost += 1
                    if lost >= _LOST_POLLS:
                        raise self._lost(error) from error
            if not enough(self._ledger.open_parts()):
                await asyncio.sleep(self._section.batch.poll_seconds)

    async def _look_at(self, part: Part, *, alone: bool) -> None:
        if part.batch_id is None:
            await self._hand_in(part, again=True)
            return
        batch = await self._sdk.batches.retrieve(part.batch_id)
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
        reader = ResultReader(self._section, self._endpoint)
        cost = 0.0
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            async with self._sdk.files.with_streaming_response.content(file_id) as response:
                async for outcomes in reader.read(response.iter_lines()):
                    cost += sum(outcome.usage.cost_usd for _, outcome in outcomes)
                    self._note(self._ledger.keep(part, outcomes))
        if batch.status == "completed" and not reader.hopeless:
            missing = self._ledger.keys_of(part.part_id) - reader.left_open
            lost = Failure(
                kind="malformed_reply", reason="the batch's results do not hold this request", retryable=True
            )
            self._note(self._ledger.keep(part, [(key, lost) for key in missing]))
        left = self._close(part, cost)
        self._stop = self._stop or reader.hopeless or self._why_to_stop(batch, left)

    def _close(self, part: Part, cost: float = 0.0) -> int:
        left = self._ledger.close(part)
        part_path(self._folder, part.part_id).unlink(missing_ok=True)
        self._client.budget.settle(part.reserved_usd, cost)
        return left

    # -- errors ------------------------------------------------------------------------------------------------

    def _why_to_stop(self, batch: "Batch", left: int) -> EndpointError | StepFailed | None:
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
                seen=f"{batch.id}: {self._endpoint.clean(told)}",
                remedy="correct what it says (a model that takes no batches; batch.max_requests too large for"
                " your limits), then run the command again",
            )
        return None

    def _refused(self, part: Part, error: Exception) -> EndpointError:
        return EndpointError(
            "The batch service cannot be used",
            seen=f"{part.base_url}: {self._endpoint.clean(error)}",
            remedy="see whether this provider has one (/files and /batches); without --batch requests are asked one"
            " by one",
        )

    def _lost(self, error: Exception) -> StepFailed:
        return StepFailed(
            "The endpoint has stopped answering",
            seen=f"{self._endpoint.base_url}: {self._endpoint.clean(error.__cause__ or error)}",
            remedy="run the command again: it goes on with the batches that are with the provider",
        )


def _error_code(batch: "Batch") -> str | None:
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    return errors[0].code if errors else None
