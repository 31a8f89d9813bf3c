"""Headers that make a browser keep to what our pages need, as strict as Gradio allows."""

import base64
import hashlib
import re
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
"""For what is no page."""
_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)


def page_policy(page: bytes, later: Iterable[bytes] = ()) -> str:
    """What a page of Gradio's may load and run: this server's files, and the scripts that the server wrote into it.

    `later` are further inline scripts, which Gradio adds in the browser. It makes functions of the `js` texts of
    events ('unsafe-eval') and styles components one by one ('unsafe-inline' for styles).
    """
    hashes = " ".join(dict.fromkeys(_hash(script) for script in [*_SCRIPT.findall(page), *later]))
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' {hashes}; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self';"
        " worker-src 'self' blob:; manifest-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
    )


def own_policy(page: bytes, styles: Iterable[bytes]) -> str:
    """The same for a page of ours that loads nothing."""
    scripts = " ".join(_hash(script) for script in _SCRIPT.findall(page)) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src {' '.join(map(_hash, styles))}; img-src data:;"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


class Secured:
    """A `send` that puts the headers on an answer."""

    def __init__(self, send: Send, later: Iterable[bytes] = ()) -> None:
        self._send = send
        self._later = later
        self._start: Message | None = None
        self._page = bytearray()

    async def __call__(self, message: Message) -> None:
        """Pass a message on; a page is kept back until it is whole, since its policy names what is in it."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(ALWAYS)
            if "content-security-policy" not in headers:
                if headers.get("content-type", "").startswith("text/html"):
                    self._start = message
                    return
                headers["Content-Security-Policy"] = NOTHING
        elif message["type"] == "http.response.body" and self._start is not None:
            self._page += message.get("body", b"")
            if message.get("more_body", False):
                return
            headers = MutableHeaders(scope=self._start)
            headers["Content-Security-Policy"] = page_policy(bytes(self._page), self._later)
            headers["Cache-Control"] = "no-store"
            await self._send(self._start)
            self._start = None
            message = {"type": "http.response.body", "body": bytes(self._page)}
        await self._send(message)


def _hash(text: bytes) -> str:
    # Browsers hash the text with the line ends that HTML turns all others into.
    plain = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return f"'sha256-{base64.b64encode(hashlib.sha256(plain).digest()).decode()}'"
