"""Every failure of the API as JSON: what, seen, remedy; never a traceback. And a limit on what is sent."""

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opadpo.errors import Busy, Conflict, NotFound, OpadpoError, UserError, WorkspaceError
from opadpo.review.editing import SentenceProblem
from opadpo.review.store import StaleEdit

MAX_BODY = 2_000_000
LARGER = {"/api/asking/questions": 20_000_000}
"""Addresses that take more: images."""

_STATUSES: tuple[tuple[type[OpadpoError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Busy, 503),
    (WorkspaceError, 500),
    (UserError, 422),
)


def problem(status: int, what: str, seen: object = None, remedy: str | None = None, **more: Any) -> JSONResponse:
    """An answer that says what is wrong."""
    shown = None if seen is None else str(seen)[:2000]
    return JSONResponse({"error": {"what": what, "seen": shown, "remedy": remedy}, **more}, status_code=status)


def install(api: FastAPI) -> None:
    """Answer errors as JSON, and refuse bodies that are too large."""
    api.add_exception_handler(OpadpoError, _ours)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(OSError, _unreadable)
    api.add_exception_handler(HTTPException, _http)
    api.add_middleware(BodyLimit)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OpadpoError)
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    more: dict[str, Any] = {}
    if isinstance(error, SentenceProblem):
        more["sentence"] = error.position
    elif status == 422:
        more["sentence"] = None
    if isinstance(error, StaleEdit):
        more["theirs"] = error.theirs.model_dump(mode="json") if error.theirs else None
    return problem(status, error.what, error.seen, error.remedy, **more)


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    logging.getLogger(__name__).error("%s failed", request.url.path, exc_info=error)
    return problem(500, "A file cannot be read or written", error, "look at the file that is named")


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["loc"][0] == "query":
        name = str(first["loc"][1]) if len(first["loc"]) > 1 else "query"
        seen = f"{name}={_short(first.get('input'))}"
        return problem(
            422, f"The address asks for a {name} that there is not", seen, "clear the filters", sentence=None
        )
    place = next((p for p, name in zip(first["loc"][2:], first["loc"][1:], strict=False) if name == "sentences"), None)
    return problem(
        422,
        f"{where}: {first['msg']}",
        _short(first.get("input")),
        "send only the fields that are named, of their types and within their limits",
        sentence=place if isinstance(place, int) else None,
    )


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), request.url.path)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return (text if len(text) <= 80 else text[:77] + "...").encode("utf-8", "replace").decode()


class BodyLimit:
    """Refuses what is larger than `MAX_BODY` bytes (or `LARGER`), announced or not; to Gradio's addresses too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more, limit = bytearray(), True, LARGER.get(scope["path"], MAX_BODY)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                answer = problem(413, "The request is too large", f"over {limit:,} bytes", "send less at once")
                await answer(scope, receive, send)
                return
        sent = False

        async def whole() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, whole, send)
