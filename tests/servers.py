"""A server on loopback that speaks the OpenAI protocol, can be told to misbehave, and counts what it is asked.

`python tests/servers.py --port-file FILE` runs it as a process of its own, for benchmarks.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from batch_service import BatchService
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from wire_checks import BadRequest, check_request, checked_completion

Behaviour = Callable[["ChatServer", dict[str, Any]], Any]
"""Gets the request's body; returns a Response, or the text of an answer."""

NUMBERED = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


class ChatServer:
    """The server's behaviour and what it has seen. Requests that OpenAI's own would refuse get status 400."""

    def __init__(self, *, keep_bodies: bool = True) -> None:
        self.url = ""
        self.behave: Behaviour = keep_all
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.asked: Counter[str] = Counter()
        """How often each text of a user was asked."""
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Why requests were refused as malformed."""
        self.delay = 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.models = ["test-model"]
        self.extensions: frozenset[str] = frozenset()
        """Fields beyond OpenAI's that the server takes, as vLLM does."""
        self.batches = BatchService(self.answer)
        self.intercept: Callable[[Request, bool], None] = lambda _request, _answered: None
        """Called before a request is looked at and once more before the reply to it is sent."""
        self.stop: Callable[[], None] = lambda: None
        self.settle: Callable[[], None] = lambda: None
        """Waits until every client has gone and everything that was asked is counted."""
        self._keep_bodies = keep_bodies
        self._victim: tuple[int, int] | None = None

    def kill(self, pid: int, at: int) -> None:
        """Let a process die (SIGKILL) while it waits for the answer to the `at`-th request of all."""
        self._victim = (pid, at)

    async def chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.keys.add(request.headers.get("authorization", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self._keep_bodies:
                self.bodies.append(body)
                self.headers.append(dict(request.headers))
            await asyncio.sleep(self.delay)
            self.asked[user_text(body)] += 1
            if self._victim is not None and self.asked.total() >= self._victim[1]:
                os.kill(self._victim[0], signal.SIGKILL)
                self._victim = None
            return await self.answer(body)
        finally:
            self.at_once -= 1

    async def answer(self, body: dict[str, Any]) -> Response:
        """The reply to one request, by whichever way it came."""
        try:
            check_request({name: value for name, value in body.items() if name not in self.extensions})
        except BadRequest as wrong:
            self.wrong.append(str(wrong))
            return error(400, "invalid_request_error", str(wrong))
        made = self.behave(self, body)
        if asyncio.iscoroutine(made):
            made = await made
        return made if isinstance(made, Response) else completion(made)

    async def list_models(self, _request: Request) -> Response:
        cards = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in self.models]
        return JSONResponse({"object": "list", "data": cards})

    async def stats(self, _request: Request) -> Response:
        """What a benchmark in another process wants to know."""
        seen = {"requests": self.asked.total(), "faults": dict(self.faults), "wrong": self.wrong[:3]}
        return JSONResponse(seen)

    async def asked_texts(self, _request: Request) -> Response:
        """How often each text was asked."""
        return JSONResponse(dict(self.asked))

    def app(self) -> Starlette:
        """The application: OpenAI's addresses, and the two forms of Azure's."""
        routes = [Route("/stats", self.stats), Route("/asked", self.asked_texts)]
        routes.append(Route("/v1/broken", lambda _request: error(503)))
        for prefix in ("/v1", "/openai", "/openai/v1"):
            routes.append(Route(f"{prefix}/models", self.list_models))
            routes.append(Route(f"{prefix}/chat/completions", self.chat, methods=["POST"]))
            routes += self.batches.routes(prefix)
        routes.append(Route("/openai/deployments/{deployment}/chat/completions", self.chat, methods=["POST"]))
        return Starlette(routes=routes, middleware=[Middleware(_Intercept, server=self)])


class _Intercept:
    """Tells the server of every request, before it and before the reply to it."""

    def __init__(self, app: Any, server: ChatServer) -> None:
        self.app, self.server = app, server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        self.server.paths.append(f"{request.method} {request.url.path}")
        self.server.intercept(request, False)

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.server.intercept(request, True)
            await send(message)

        await self.app(scope, receive, told)


@contextmanager
def chat_server(*, extra: dict[str, Callable[[ChatServer, Request], Response]] | None = None) -> Iterator[ChatServer]:
    """Run a `ChatServer` on a thread; `extra` are replies to GET at further paths."""
    server = ChatServer()
    app = server.app()
    for path, reply in (extra or {}).items():
        app.router.routes.append(Route(path, partial(reply, server)))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)

    def stop() -> None:
        running.should_exit = True
        thread.join(timeout=10)
        listener.close()

    def settle() -> None:
        deadline = time.monotonic() + 60
        while running.server_state.connections or running.server_state.tasks:
            assert time.monotonic() < deadline, "a client does not go"
            time.sleep(0.005)

    server.stop, server.settle = stop, settle
    try:
        yield server
    finally:
        stop()


def user_text(body: dict[str, Any]) -> str:
    """All text of the user's messages."""
    texts = []
    for message in body["messages"]:
        if message["role"] == "user":
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts += [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts)


def numbered(body: dict[str, Any]) -> list[str]:
    """The numbered sentences of a request."""
    return [sentence for _, sentence in NUMBERED.findall(user_text(body))]


def verdict(index: int, revised: str, **fields: Any) -> dict[str, Any]:
    """An entry of an answer; kept unless told otherwise."""
    entry = {"index": index, "action": "keep", "score": 4, "error_type": "correct", "objects": [], "reason": ""}
    return {**entry, "revised": revised, **fields}


def answer(*verdicts: dict[str, Any], added: list[dict[str, Any]] | None = None) -> str:
    """An expert's answer."""
    return json.dumps({"image_description": "A cat.", "sentences": list(verdicts), "added": added or []})


def keep_all(_server: ChatServer, body: dict[str, Any]) -> str:
    """The well-behaved expert: every sentence is right."""
    return answer(*(verdict(index, text) for index, text in enumerate(numbered(body), 1)))


def completion(content: str | None, finish_reason: str = "stop", **message: Any) -> Response:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, "refusal": None, **message},
        "finish_reason": finish_reason,
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "test-model-2026", "choices": [choice]}
    return JSONResponse(checked_completion({**body, "usage": usage}))


def error(status: int, code: str | None = None, message: str = "no", headers: dict[str, str] | None = None) -> Response:
    """An error in the form of the OpenAI API."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def main() -> None:
    """Serve until ended; `GET /stats` tells what was seen."""
    import faults

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="file that gets the port")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to every answer")
    parser.add_argument("--faults", type=float, default=0.0, help="share of replies that are faulty")
    parser.add_argument("--seed", type=int, default=0, help="draws the faults")
    options = parser.parse_args()
    server = ChatServer(keep_bodies=False)
    server.delay = options.latency
    server.behave = faults.at_random(options.faults, options.seed)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    unnamed = options.port_file.with_suffix(".part")
    unnamed.write_text(str(listener.getsockname()[1]))
    os.replace(unnamed, options.port_file)
    uvicorn.Server(uvicorn.Config(server.app(), log_level="critical", lifespan="off")).run(sockets=[listener])


if __name__ == "__main__":
    # `faults` imports this module by its name: there must be only one of it.
    sys.modules["servers"] = sys.modules["__main__"]
    main()
