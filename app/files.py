"""The app's own scripts and styles, served under an address that changes with their content."""

import re
from functools import cache

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.theme import ASSETS
from opadpo.hashing import bytes_digest

DESK = ASSETS / "desk"


@cache
def version() -> str:
    """Digest of all files of the desk: a browser may keep what it has for as long as this stays."""
    return bytes_digest(b"".join(path.read_bytes() for path in sorted(DESK.iterdir())))[:12]


def address(name: str) -> str:
    """Where a file of the desk is served."""
    return f"/assets/{version()}/{name}"


def modules(main: str) -> list[str]:
    """A script of the desk and all that it imports."""
    found, left = [main], [main]
    while left:
        text = (DESK / left.pop()).read_text(encoding="utf-8")
        new = [name for name in re.findall(r'^import .* from "\./([\w.]+)";$', text, re.MULTILINE) if name not in found]
        found += new
        left += new
    return found


class _Kept(StaticFiles):
    """Static files that never change under their address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


def serve(api: FastAPI) -> None:
    """Serve the files of the desk."""
    api.mount(f"/assets/{version()}", _Kept(directory=DESK))
