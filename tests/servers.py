"""A chat-completions server on loopback that can be told to misbehave and counts what it is asked."""

import asyncio
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

Behaviour = Callable[["ChatServer", dict[str, Any]], Any]
"""Gets the request's body; returns a Response, or the text of an answer."""

NUMBERED = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


class ChatServer:
    """The server's behaviour and what it has seen."""

    def __init__(self) -> None:
        self.url = ""
        self.behave: Behaviour = keep_all
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.delay = 0.0
        self.at_once = 0
        self.most_at_once = 0
        self.stop: Callable[[], None] = lambda: None

    @property
    def asked(self) -> Counter[str]:
        """How often each question of a user was asked."""
        return Counter(user_text(body) for body in self.bodies)

    async def chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.keys.add(request.headers.get("authorization", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
            made = self.behave(self, body)
        finally:
            self.at_once -= 1
        if asyncio.iscoroutine(made):
            made = await made
        return made if isinstance(made, Response) else completion(made)

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "test-model", "object": "model", "created": 0}]})


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Run a `ChatServer` on a thread."""
    server = ChatServer()
    routes = [Route("/v1/models", server.models), Route("/v1/chat/completions", server.chat, methods=["POST"])]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)

    def stop() -> None:
        running.should_exit = True
        thread.join(timeout=10)
        listener.close()

    server.stop = stop
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
    return JSONResponse({**body, "usage": usage})


def error(status: int, code: str | None = None, message: str = "no", headers: dict[str, str] | None = None) -> Response:
    """An error in the form of the OpenAI API."""
    body = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def html(_server: ChatServer, _body: dict[str, Any]) -> Response:
    """A gateway's error page with status 200."""
    return HTMLResponse("<html><body>Bad gateway</body></html>")


def torn_json(_server: ChatServer, _body: dict[str, Any]) -> Response:
    """A reply that ends in the middle."""
    return Response('{"id": "c", "object": "chat.completion", "choi', media_type="application/json")
