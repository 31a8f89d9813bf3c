"""The gate before the whole app: every request passes it, those to Gradio's own addresses too."""

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import pages
from app.access.doors import Door
from app.access.headers import Secured
from app.access.hosts import Hosts
from app.api.errors import problem
from app.theme import ASSETS
from opadpo.errors import OpadpoError

_FORWARDED = (b"x-forwarded-", b"forwarded")


class Gate:
    """Lets in who has a session; tells the app behind who it is, in `request.state.user`."""

    def __init__(self, app: ASGIApp, door: Door, hosts: Hosts) -> None:
        self._app = app
        self._door = door
        self._hosts = hosts
        self._later = [(ASSETS / "app.js").read_bytes()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "websocket":  # no page of ours opens one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The server has used what a trusted proxy says; Gradio would believe everybody.
        headers = [(key, value) for key, value in scope["headers"] if not key.lower().startswith(_FORWARDED)]
        scope = {**scope, "headers": headers, "state": {**scope.get("state", {})}}
        secured = Secured(send, self._later)
        answer = await self._answer(Request(scope, receive))
        if answer is not None:
            await answer(scope, receive, secured)
        else:
            await self._app(scope, receive, secured)

    async def _answer(self, request: Request) -> Response | None:
        """What is said here; None to pass the request on."""
        reason = self._hosts.refusal(request.method, request.url.scheme, Headers(scope=request.scope))
        if reason is not None:
            return _refusal(request, 403, reason, "Call the app by its own address (see --public-url).")
        try:
            answer = await self._door.enter(request)
            if answer is not None:
                return answer
            token = request.cookies.get(self._door.cookie)
            user = await run_in_threadpool(self._door.user, token) if token else None
            if user is None:
                return self._closed(request)
            request.state.user = user
            return await self._door.inside(request, user)
        except OpadpoError as error:
            return _refusal(request, 503, error.what, error.remedy or "Try again.")

    def _closed(self, request: Request) -> Response:
        if not _is_visit(request):
            return problem(401, "You are not logged in", request.url.path, self._door.remedy)
        if request.headers.get("sec-fetch-site") == "cross-site":
            return pages.again(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
        return self._door.closed(request)


def _refusal(request: Request, status: int, what: str, remedy: str) -> Response:
    if _is_visit(request):
        return pages.refused(what, remedy, status)
    return problem(status, what, request.url.path, remedy)


def _is_visit(request: Request) -> bool:
    """True if a person waits for a page."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
