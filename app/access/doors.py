"""The two ways to come in: the link with its token, or a name and a password."""

import secrets
from abc import ABC, abstractmethod
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.access import pages
from app.access.guard import owner
from opadpo.accounts import passwords
from opadpo.accounts.people import User
from opadpo.accounts.sessions import LONGEST, Sessions, TooManyAttempts, WrongPassword
from opadpo.hashing import digest
from opadpo.workspace import Workspace

LOGIN, LOGOUT, ME = "/login", "/logout", "/api/access/me"
MAX_FORM = 10_000


class Door(ABC):
    """How one comes in; `user` is asked at every request."""

    with_accounts: bool

    def __init__(self, workspace: Workspace, sessions: Sessions, *, secure: bool) -> None:
        """`secure`: the cookie is for HTTPS only, whatever the server itself speaks."""
        self.name = workspace.root.name
        self.sessions = sessions
        # Cookies do not know of ports: two apps on one machine must not take each other's.
        self.cookie = f"opadpo-{digest(str(workspace.root))[:8]}"
        self._secure = secure

    @abstractmethod
    def user(self, token: str) -> User | None:
        """Whose session a cookie's token is."""

    @abstractmethod
    async def enter(self, request: Request) -> Response | None:
        """The answer to a request that comes to get in; None if this one does not."""

    @abstractmethod
    def closed(self, request: Request) -> Response:
        """The page for those who are not in."""

    remedy: str
    """The same for those who want JSON."""

    def link(self, url: str) -> str:
        """The address of the first page, with what lets one in."""
        return url

    async def inside(self, request: Request, user: User) -> Response | None:
        """The answer to requests about the session itself; None for all others."""
        if request.url.path == ME:
            return JSONResponse({"name": user.name, "role": user.role, "accounts": self.with_accounts})
        if request.url.path == LOGOUT and request.method == "POST":
            await run_in_threadpool(self.sessions.end, request.cookies.get(self.cookie, ""))
            answer = RedirectResponse(LOGIN if self.with_accounts else "/", 303)
            answer.delete_cookie(self.cookie, **self._kind(request))
            answer.headers["Clear-Site-Data"] = '"cache"'
            return answer
        return None

    def let_in(self, request: Request, token: str, target: str) -> Response:
        """On to `target`, with a session's token in a cookie."""
        answer = RedirectResponse(target, 303)
        answer.set_cookie(self.cookie, token, max_age=LONGEST, **self._kind(request))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _kind(self, request: Request) -> dict:
        secure = self._secure or request.url.scheme == "https"
        return {"path": "/", "httponly": True, "samesite": "strict", "secure": secure}


class LinkDoor(Door):
    """Without accounts: the link that the terminal shows."""

    with_accounts = False
    remedy = "open the link with ?token= that `opadpo app` printed in its terminal"

    def __init__(self, workspace: Workspace, sessions: Sessions, *, secure: bool) -> None:
        super().__init__(workspace, sessions, secure=secure)
        self._token = secrets.token_urlsafe(32)
        self._owner = owner()
        self._command = f"opadpo app {workspace.root.name}"

    def link(self, url: str) -> str:
        """The address with the token."""
        return f"{url}?{urlencode({'token': self._token})}"

    def user(self, token: str) -> User | None:
        """The owner, if it is a session of theirs."""
        return self._owner if self.sessions.is_owner(token) else None

    async def enter(self, request: Request) -> Response | None:
        """A visit with the link's token; on to the same address without it."""
        shown = request.query_params.get("token")
        if shown is None or request.method != "GET":
            return None
        if not secrets.compare_digest(shown.encode(), self._token.encode()):
            return None
        rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        target = local(request.url.path + (f"?{urlencode(rest)}" if rest else ""))
        return self.let_in(request, await run_in_threadpool(self.sessions.open_owner), target)

    def closed(self, request: Request) -> Response:
        """Where to find the link."""
        return pages.without_link(self.name, self._command)


class AccountDoor(Door):
    """With accounts: the log-in page."""

    with_accounts = True
    remedy = "log in again in another tab of this browser; what you have written stays here"

    def __init__(self, workspace: Workspace, sessions: Sessions, *, secure: bool) -> None:
        super().__init__(workspace, sessions, secure=secure)
        passwords.fits("", None)  # the first one takes longer, which would tell that there is no such account

    def user(self, token: str) -> User | None:
        """Whose session it is."""
        return self.sessions.user(token)

    async def enter(self, request: Request) -> Response | None:
        """The log-in form, and what comes back from it."""
        if request.url.path != LOGIN:
            return None
        if request.method == "POST":
            return await self._sign_in(request)
        return pages.login(self.name, local(request.query_params.get("next", "/")))

    def closed(self, request: Request) -> Response:
        """To the log-in page, and back afterwards."""
        asked = urlsplit(str(request.url))
        rest = [pair for pair in parse_qsl(asked.query, keep_blank_values=True) if pair[0] != "token"]
        target = asked.path + (f"?{urlencode(rest)}" if rest else "")
        return RedirectResponse(LOGIN + ("" if target == "/" else "?" + urlencode({"next": target})), 303)

    async def _sign_in(self, request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM:
                return pages.refused("The form is too large", "Go back and try again.", 413)
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        name, password, target = (fields.get(key, [""])[0] for key in ("name", "password", "next"))
        address = request.client.host if request.client else ""
        try:
            token = await run_in_threadpool(self.sessions.sign_in, name, password, address)
        except TooManyAttempts as error:
            answer = self._again(f"{error.what}. You can {error.remedy}.", target, name, 429)
            answer.headers["Retry-After"] = str(error.seconds)
            return answer
        except WrongPassword as error:
            return self._again(f"{error.what}.", target, name, 401)
        return self.let_in(request, token, local(target))

    def _again(self, trouble: str, target: str, name: str, status: int) -> Response:
        return pages.login(self.name, local(target), name=name[:64], trouble=trouble, status=status)


def local(target: str) -> str:
    """A path of this app; the first page instead of an address elsewhere."""
    # Browsers read `//x` and `/\\x` as another host, and drop control characters before they look.
    safe = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if safe else "/"
