"""The batch service of one server: its calls, and what their errors mean."""

import json
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.errors import EndpointError, OpadpoError, StepFailed
from opadpo.llm.batch_file import part_path
from opadpo.llm.batch_ledger import Part
from opadpo.llm.endpoint import Endpoint
from opadpo.llm.requests import ChatRequest
from opadpo.llm.transport import batch_path
from opadpo.llm.wire import body, encode_messages
from opadpo.recipe.endpoints import EndpointSection

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

_PART_KEY = "opadpo_part"
"""Metadata of a batch: our name for its part."""
_NO_LIST = (404, 405, 501)
"""What servers say that do not list their files or batches."""
_PASSING = (408, 409, 429)


class BatchProvider:
    """Files and batches at one server."""

    def __init__(self, endpoint: Endpoint, section: EndpointSection) -> None:
        self.endpoint = endpoint
        self._path: Any = batch_path(section)
        # Patient: a lost poll or download is tried again; what makes something at the provider never is.
        self._sdk = endpoint.sdk.with_options(max_retries=4)
        self._once = endpoint.sdk.with_options(max_retries=0)

    @property
    def base_url(self) -> str:
        """Where it is; parts carry this."""
        return self.endpoint.base_url

    def line(self, request: ChatRequest, unsupported: Set[str]) -> bytes:
        """A request as a line of a file, without the settings that are `unsupported`.

        Raises:
            ImageProblem: if an image is missing or not usable.
        """
        content = body(request, encode_messages(request), self.endpoint.model, unsupported)
        head = json.dumps({"custom_id": request.key, "method": "POST", "url": self._path})
        return head[:-1].encode() + b', "body": ' + content + b"}\n"

    async def upload(self, path: Path) -> str:
        """Upload a part's file; returns the server's name for it."""
        with path.open("rb") as stream:
            uploaded = await self._sdk.files.create(file=(path.name, stream, "application/jsonl"), purpose="batch")
        return uploaded.id

    async def create(self, part: Part) -> str:
        """Make the batch of a part; returns the server's name for it.

        A call whose answer is lost may have made it: then the server's list knows.
        """
        import openai

        assert part.input_file_id is not None
        try:
            batch = await self._once.batches.create(
                input_file_id=part.input_file_id,
                endpoint=self._path,
                completion_window="24h",
                metadata={_PART_KEY: part.part_id},
            )
        except (openai.APIConnectionError, openai.InternalServerError):
            found = await self.find_batch(part)
            if found is None:
                raise
            return found
        return batch.id

    async def find_batch(self, part: Part) -> str | None:
        """The batch of a part, if it was made."""
        import openai

        try:
            async for batch in self._sdk.batches.list(limit=100):
                if (batch.metadata or {}).get(_PART_KEY) == part.part_id and batch.status != "failed":
                    return batch.id
        except openai.APIStatusError as error:
            if error.status_code not in _NO_LIST:
                raise
        return None

    async def find_file(self, part: Part, folder: Path) -> str | None:
        """The file of a part, if it was uploaded."""
        import openai

        try:
            async for file in self._sdk.files.list(purpose="batch"):
                if file.filename == part_path(folder, part.part_id).name:
                    return file.id
        except openai.APIStatusError as error:
            if error.status_code not in _NO_LIST:
                raise
        return None

    async def look(self, batch_id: str) -> "Batch":
        """How far a batch is."""
        return await self._sdk.batches.retrieve(batch_id)

    @asynccontextmanager
    async def lines(self, file_id: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a result file, while they come in."""
        async with self._sdk.files.with_streaming_response.content(file_id) as response:
            yield response.iter_lines()

    # -- errors ------------------------------------------------------------------------------------------------

    def trouble(self, error: "openai.APIError") -> OpadpoError:
        """What to tell the user of an error that ends the step."""
        import openai

        if isinstance(error, openai.APIStatusError) and not passing(error):
            return self.endpoint.hopeless(error) or EndpointError(
                "The batch service cannot be used",
                seen=f"{self.base_url}: {self.endpoint.clean(error)}",
                remedy="see whether this provider has one (/files and /batches); without --batch requests are asked"
                " one by one",
            )
        return self.lost(error)

    def lost(self, error: Exception) -> StepFailed:
        """What to tell the user where the server has gone."""
        return StepFailed(
            "The endpoint has stopped answering",
            seen=f"{self.base_url}: {self.endpoint.clean(error.__cause__ or error)}",
            remedy="run the command again: it goes on with the batches that are with the provider",
        )


def passing(error: "openai.APIStatusError") -> bool:
    """True for an error that may be over at the next look."""
    code = error.status_code
    return (code in _PASSING or code >= 500) and code != 501 and error.code != "insufficient_quota"
