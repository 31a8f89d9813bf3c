"""By which names the app may be called, and from which pages: against DNS rebinding and forged requests."""

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from opadpo.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
READING = ("GET", "HEAD", "OPTIONS")


class Hosts(NamedTuple):
    """The names of this server."""

    names: frozenset[str]
    """Hosts without port. With a tunnel the port in the browser is another one, so it is left open."""
    any_address: bool = False
    """True if it listens at every address: a rebound name is never a bare IP address."""
    public: str | None = None
    """Scheme and host of the address that people use, where a proxy stands before the app."""

    @classmethod
    def of(cls, bound: str, public_url: str | None = None) -> "Hosts":
        """The names that go with the address at which the server listens.

        Raises:
            UserError: if `public_url` is no address of a site.
        """
        names: set[str] = set(LOOPBACK)
        everywhere = bound in ("0.0.0.0", "::", "")
        if bound not in LOOPBACK:
            names |= {bound.lower(), socket.gethostname().lower(), socket.getfqdn().lower()} - {"0.0.0.0", "::", ""}
        public = _origin_of(public_url) if public_url else None
        if public:
            names.add(urlsplit(public).hostname or "")
        return cls(frozenset(names), everywhere, public)

    def knows(self, host: str) -> bool:
        """True if a Host header names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self.names or (self.any_address and _is_address(name))

    def refusal(self, method: str, scheme: str, headers: Headers) -> str | None:
        """Why a request is refused; None if it comes from one of our own pages, or from no page at all."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self.knows(host):
            return "This address is not one of the app's"
        origin = headers.get("origin")
        if origin is not None:
            # Also for reading: Gradio answers pages of any port of this machine, and other people may have one.
            ours = origin == f"{scheme}://{host}" or (self.public is not None and origin == self.public)
            return None if ours else "This request comes from another site"
        if method not in READING and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "This request comes from another site"
        return None


def _origin_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
        plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme in ("http", "https") and parts.hostname and plain:
            return f"{parts.scheme}://{parts.netloc.lower()}"
    except ValueError:
        pass
    raise UserError(
        "The public address is a scheme and a host, with a port if need be",
        seen=f"--public-url {url}",
        remedy="write it like https://review.example.org; a path behind it is not possible",
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
