"""Files and batches as the OpenAI API has them, for `servers.ChatServer`."""

import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from openai.types import Batch, FileObject
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from wire_checks import BadRequest, check_batch_file

Answer = Callable[[dict[str, Any]], Awaitable[Response]]


class BatchService:
    """Keeps files and batches. A batch is over after it was looked at `polls` times."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []
        self.polls = 1
        self.endings: list[str] = []
        """How the next batches end: expired, cancelled, failed, token_limit; completed when there are no more."""
        self.max_requests = 50_000
        self.max_bytes = 200_000_000
        self._numbers = itertools.count(1)

    def routes(self, prefix: str) -> list[Route]:
        return [
            Route(f"{prefix}/files", self.upload, methods=["POST"]),
            Route(f"{prefix}/files", self.list_files, methods=["GET"]),
            Route(f"{prefix}/files/{{name}}/content", self.content, methods=["GET"]),
            Route(f"{prefix}/batches", self.create, methods=["POST"]),
            Route(f"{prefix}/batches", self.list_batches, methods=["GET"]),
            Route(f"{prefix}/batches/{{name}}", self.retrieve, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        async with request.form(max_part_size=300_000_000) as form:
            upload: Any = form["file"]
            if form["purpose"] != "batch":
                return _refused("purpose must be batch")
            content = await upload.read()
            name = self._keep(upload.filename, content)
        return JSONResponse(self._file(name))

    async def list_files(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "has_more": False, "data": [self._file(name) for name in self.files]})

    async def content(self, request: Request) -> Response:
        return Response(self.files[request.path_params["name"]][1], media_type="application/octet-stream")

    async def create(self, request: Request) -> Response:
        body = json.loads(await request.body())
        content = self.files[body["input_file_id"]][1]
        number = next(self._numbers)
        batch: dict[str, Any] = {
            "id": f"batch_{number}",
            "object": "batch",
            "created_at": number,
            "status": "validating",
            "endpoint": body["endpoint"],
            "completion_window": body["completion_window"],
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "polls": 0,
            "ending": self.endings.pop(0) if self.endings else "completed",
        }
        self.batches[batch["id"]] = batch
        try:
            lines = check_batch_file(content)
            if len(lines) > self.max_requests or len(content) > self.max_bytes:
                raise BadRequest("the file is too large")
            if any(line["url"] != body["endpoint"] for line in lines):
                raise BadRequest("the url of a line is not the batch's")
        except BadRequest as error:
            self._fail(batch, "invalid_request", str(error))
        if batch["ending"] == "token_limit":
            self._fail(batch, "token_limit_exceeded", "Enqueued token limit reached")
        return JSONResponse(_shown(batch))

    async def list_batches(self, _request: Request) -> Response:
        found = [_shown(batch) for batch in reversed(self.batches.values())]
        return JSONResponse({"object": "list", "has_more": False, "data": found})

    async def retrieve(self, request: Request) -> Response:
        batch = self.batches[request.path_params["name"]]
        batch["polls"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["polls"] >= self.polls:
                await self._end(batch)
        return JSONResponse(_shown(batch))

    async def _end(self, batch: dict[str, Any]) -> None:
        """Answer the requests (of a batch that ends early the first half) and write the result files."""
        lines = check_batch_file(self.files[batch["input_file_id"]][1])
        ending = batch["ending"]
        if ending == "failed":
            self._fail(batch, "model_not_found", "the model takes no batches")
            return
        answered = lines if ending == "completed" else lines[: len(lines) // 2]
        good, bad = [], []
        for line in answered:
            self.lines.append(line)
            reply = await self._answer(line["body"])
            entry = {"id": "r", "custom_id": line["custom_id"], "error": None}
            response = {"status_code": reply.status_code, "request_id": "q", "body": json.loads(bytes(reply.body))}
            (good if reply.status_code == 200 else bad).append({**entry, "response": response})
        for line in lines[len(answered) :]:
            error = {"code": f"batch_{ending}", "message": f"This request was not executed: {ending}"}
            bad.append({"id": "r", "custom_id": line["custom_id"], "response": None, "error": error})
        # The service promises no order.
        batch["output_file_id"] = self._results(good[::-1])
        batch["error_file_id"] = self._results(bad)
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        batch["status"] = ending

    def _results(self, entries: list[dict[str, Any]]) -> str | None:
        return self._keep("results.jsonl", "\n".join(map(json.dumps, entries)).encode()) if entries else None

    def _keep(self, filename: str, content: bytes) -> str:
        name = f"file-{next(self._numbers)}"
        self.files[name] = (filename, content)
        return name

    def _file(self, name: str) -> dict[str, Any]:
        filename, content = self.files[name]
        shown = {"id": name, "object": "file", "bytes": len(content), "created_at": 0, "filename": filename}
        FileObject.model_validate(shown := {**shown, "purpose": "batch", "status": "processed"})
        return shown

    def _fail(self, batch: dict[str, Any], code: str, message: str) -> None:
        batch["status"] = "failed"
        batch["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": None, "param": None}]}


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in batch.items() if key not in ("polls", "ending")}
    Batch.model_validate(shown)
    return shown


def _refused(message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": None}}, 400)
