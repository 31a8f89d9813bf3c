"""Many connections at a bearable cost."""

import itertools
from urllib.request import getproxies

import httpx2

_PER_POOL = 8


class _Pools(httpx2.AsyncBaseTransport):
    """Several small pools in turn: a pool looks at each of its idle connections for every request that begins or ends.

    In one pool of 64 connections that takes longer than sending and receiving.
    """

    def __init__(self, count: int) -> None:
        tls = httpx2.create_ssl_context()
        unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._transports = [httpx2.AsyncHTTPTransport(verify=tls, limits=unlimited) for _ in range(count)]
        self._turn = itertools.cycle(self._transports)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await next(self._turn).handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports:
            await transport.aclose()


def http_client(connections: int, *, local: bool) -> httpx2.AsyncClient:
    """A client for about so many connections; `local` for a server on this machine, which no proxy can reach."""
    import openai

    if not local and getproxies():
        return openai.DefaultAsyncHttpxClient()
    return openai.DefaultAsyncHttpxClient(trust_env=False, transport=_Pools(-(-connections // _PER_POOL)))
