"""Where the server listens, by what address people call it, and how its link comes into their browser."""

import errno
import ipaddress
import os
import socket
import ssl
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import NamedTuple

from app.access.hosts import LOOPBACK
from opadpo.errors import PortInUse, UserError

DEFAULT_PORT = 7860


class Address(NamedTuple):
    """Where the app listens and how it is reached."""

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = DEFAULT_PORT
    """Port; 0 takes a free one."""
    certificate: Path | None = None
    """Certificate chain in PEM format; with it the app speaks HTTPS."""
    key: Path | None = None
    """The certificate's private key, if it is in a file of its own."""
    proxy: str | None = None
    """Address of the proxy whose word about a request's origin is taken."""
    public_url: str | None = None
    """The address that people use, where a proxy stands before the app."""

    def check(self) -> None:
        """Try what can be tried before anything starts.

        Raises:
            UserError: if certificate and key cannot be used, or the proxy is no address.
        """
        if self.key is not None and self.certificate is None:
            raise UserError("A key needs its certificate", seen=f"--key {self.key}", remedy="add --certificate FILE")
        if self.certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=_none)
            except (OSError, ssl.SSLError) as error:
                raise UserError(
                    "The certificate cannot be used",
                    seen=f"{self.certificate}, {self.key or 'no --key'}: {error.strerror or error}",
                    remedy="name a readable PEM file with the chain, and its key without a passphrase in --key",
                ) from error
        if self.proxy is not None:
            try:
                ipaddress.ip_address(self.proxy)
            except ValueError as error:
                raise UserError(
                    "A proxy is named by its IP address", seen=f"--proxy {self.proxy}", remedy="for example 127.0.0.1"
                ) from error

    def url(self, port: int) -> str:
        """The address of the first page, once the port is known."""
        if self.public_url:
            return self.public_url.rstrip("/") + "/"
        name = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"

    def warnings(self) -> Iterator[str]:
        """What is not safe about it."""
        public = (self.public_url or "").startswith("https:")
        if self.host not in LOOPBACK and self.certificate is None and not (public and self.proxy):
            yield (
                "passwords cross the network as plain text; give --certificate FILE and --key FILE, or let a proxy"
                " speak HTTPS and give --proxy ADDRESS and --public-url https://NAME"
            )


def bind(host: str, port: int, *, with_accounts: bool = False) -> socket.socket:
    """A listening socket, bound before anything heavy starts so that a taken port is told at once.

    Raises:
        PortInUse: if another program listens there.
        UserError: for an address that other machines can reach, without accounts, or that this machine does not have.
    """
    if host not in LOOPBACK and not with_accounts:
        raise UserError(
            "The app has no accounts, so it listens on this machine only",
            seen=f"--host {host}",
            remedy="make accounts first (opadpo users add WORKSPACE NAME --role admin); or leave --host away, and reach"
            " it from elsewhere through an SSH tunnel (ssh -L 7860:127.0.0.1:7860)",
        )
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise _no_address(host, error) from error
    # Without the protocol's number asyncio leaves Nagle's algorithm on: every answer would wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortInUse(
                "The app cannot listen on this port",
                seen=f"{host}:{port} ({error.strerror})",
                remedy="choose another with --port",
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_address(host, error) from error
        raise
    return listener


@contextmanager
def opened(url: str) -> Iterator[None]:
    """Open the address in the browser of this machine; for as long as the block lasts.

    The browser is given a file that only this user may read: other users of the machine see what programs are called
    with, and the address holds the token.
    """
    handle, name = tempfile.mkstemp(prefix="opadpo-", suffix=".html")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(url)}"><title>opadpo</title>')
        webbrowser.open(path.as_uri())
        yield
    finally:
        path.unlink(missing_ok=True)


def _no_address(host: str, error: OSError) -> UserError:
    return UserError(
        "This machine does not have this address",
        seen=f"--host {host} ({error.strerror})",
        remedy="name one of its own addresses, or 0.0.0.0 for all of them",
    )


def _none() -> str:
    """No passphrase: a server that asks for one cannot start by itself."""
    return ""
