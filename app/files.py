"""The app's own scripts and styles, served under an address that changes with their content."""

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
