"""Everything that a server on the other side of the internet does wrong, for `servers.ChatServer`."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from time import time
from typing import Any

import servers
from starlette.responses import HTMLResponse, Response

Fault = Callable[[dict[str, Any]], Any]


class Reset(Response):
    """A connection that is reset in the middle of a body."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"500")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "c", "object": "chat.comp', "more_body": True})
        await asyncio.sleep(0.005)
        transport = receive.__self__.transport
        # Without lingering, the kernel sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def hang(_body: dict[str, Any]) -> Response:
    await asyncio.sleep(3)
    return servers.completion("late")


def torn_json(_body: dict[str, Any]) -> Response:
    return Response('{"id": "c", "object": "chat.completion", "choi', media_type="application/json")


def html(_body: dict[str, Any]) -> Response:
    return HTMLResponse("<html><body>Bad gateway</body></html>")


def too_many(wait: str | None) -> Fault:
    headers = {"retry-after": wait} if wait is not None else {}
    return lambda _body: servers.error(429, "rate_limit_exceeded", "slow down", headers)


def too_many_until_date(_body: dict[str, Any]) -> Response:
    return servers.error(429, "rate_limit_exceeded", "slow down", {"retry-after": formatdate(time(), usegmt=True)})


def wrong_indices(body: dict[str, Any]) -> str:
    return servers.answer(servers.verdict(len(servers.numbered(body)) + 7, "x"))


FAULTS: dict[str, Fault] = {
    "429": too_many(None),
    "429 with Retry-After": too_many("0.2"),
    "429 until a date": too_many_until_date,
    "500": lambda _body: servers.error(500),
    "503": lambda _body: servers.error(503, headers={"retry-after": "0.1"}),
    "hang": hang,
    "reset": lambda _body: Reset(),
    "torn JSON": torn_json,
    "HTML with 200": html,
    "refusal": lambda _body: servers.completion(None, refusal="I cannot help with that"),
    "content filter": lambda _body: servers.completion("", "content_filter"),
    "length": lambda _body: servers.completion('{"sentences": [', "length"),
    "wrong indices": wrong_indices,
}


def at_random(share: float, seed: int, otherwise: servers.Behaviour = servers.keep_all) -> servers.Behaviour:
    """A server that does one of all these in `share` of its replies."""
    draw = random.Random(seed)

    def behave(server: servers.ChatServer, body: dict[str, Any]) -> Any:
        if draw.random() >= share:
            return otherwise(server, body)
        name = draw.choice(list(FAULTS))
        server.faults[name] += 1
        return FAULTS[name](body)

    return behave
