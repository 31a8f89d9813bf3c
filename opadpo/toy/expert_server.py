"""The toy expert as an OpenAI-compatible server: `python -m opadpo.toy.expert_server --port 0`.

It answers `GET /v1/models` and `POST /v1/chat/completions`. It knows of a scene only what it sees: the
pixels of the request's image (a data URI) go through `opadpo.toy.sight`, and the numbered sentences of the
request's text through `opadpo.toy.expert`. The text must hold lines such as `[1] There is a cup at the top
left.` between `<response>` and `</response>`. Errors have the form of the OpenAI API.
"""

import argparse
import base64
import binascii
import errno
import io
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opadpo.errors import OpadpoError, PortInUse, StepFailed
from opadpo.toy.expert import judge
from opadpo.toy.sight import truth_of

MODEL = "toy-expert"
"""The name of the only model that is served."""

_RESPONSE = re.compile(r"<response>(.*?)</response>", re.DOTALL)
_NUMBERED = re.compile(r"^\s*\[(\d+)\]\s*(.*?)\s*$", re.MULTILINE)
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,(.+)", re.DOTALL)
_IMAGE_TOKENS = 85


class RequestError(Exception):
    """A request that is refused, with the status and the code of the OpenAI error that says why."""

    def __init__(self, message: str, *, status: int = 400, code: str = "invalid_request") -> None:
        """`message` is for people, `code` for programs."""
        super().__init__(message)
        self.status = status
        self.code = code


def complete(body: Any) -> dict[str, Any]:
    """Answer one chat-completions request.

    Raises:
        RequestError: if the model is unknown, or the request has no readable image or no numbered sentences.
    """
    if not isinstance(body, dict):
        raise RequestError("The body must be a JSON object")
    if body.get("model") != MODEL:
        raise RequestError(f"The model {body.get('model')!r} does not exist", status=404, code="model_not_found")
    if body.get("stream"):
        raise RequestError("This server does not stream", code="unsupported_parameter")
    text, image = _read_messages(body.get("messages"))
    answer = judge(_sentences(text), truth_of(image)).model_dump(mode="json")
    content = json.dumps(answer)
    prompt_tokens, completion_tokens = _count(text) + _IMAGE_TOKENS, _count(content)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _read_messages(messages: Any) -> tuple[str, Image.Image]:
    """All text of the user's messages, and their one image."""
    if not isinstance(messages, list) or not messages:
        raise RequestError("'messages' must be a list with at least one message")
    texts: list[str] = []
    images: list[Image.Image] = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise RequestError("Every message must be an object with a role and content")
        if message["role"] != "user":
            continue
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise RequestError("The content of a message must be a string or a list of parts")
        texts += [str(part.get("text", "")) for part in parts if part.get("type") == "text"]
        images += [_read_image(part.get("image_url")) for part in parts if part.get("type") == "image_url"]
    if len(images) != 1:
        raise RequestError(f"Exactly one image is needed, {len(images)} given", code="invalid_image")
    return "\n".join(texts), images[0]


def _read_image(image_url: Any) -> Image.Image:
    """The picture of an `image_url` part, which must hold a base64 data URI."""
    url = image_url.get("url") if isinstance(image_url, dict) else image_url
    match = _DATA_URI.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise RequestError("image_url must be a data URI: data:image/png;base64,...", code="invalid_image_url")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(match[1], validate=True)))
        image.load()
    except (binascii.Error, UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise RequestError(f"The image cannot be read: {error}", code="invalid_image") from error
    return image


def _sentences(text: str) -> dict[int, str]:
    """The numbered sentences of the last `<response>` block (earlier ones may be examples)."""
    blocks = _RESPONSE.findall(text)
    if not blocks:
        raise RequestError("No <response> ... </response> block in the user's text", code="no_response_block")
    numbered = _NUMBERED.findall(blocks[-1])
    sentences = {int(number): sentence for number, sentence in numbered}
    if not sentences or len(sentences) != len(numbered):
        raise RequestError("The <response> block needs lines '[1] ...', each number once", code="no_sentences")
    return sentences


def _count(text: str) -> int:
    """Words and marks: what stands for tokens in the usage."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def _error(message: str, status: int, code: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": body}, status_code=status)


def _model_card() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "opadpo"}


async def _list_models(_request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model_card()]})


async def _get_model(request: Request) -> Response:
    name = request.path_params["name"]
    if name != MODEL:
        raise RequestError(f"The model {name!r} does not exist", status=404, code="model_not_found")
    return JSONResponse(_model_card())


async def _chat(request: Request) -> Response:
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise RequestError(f"The body is not JSON: {error}", code="invalid_json") from error
    return JSONResponse(await run_in_threadpool(complete, body))


async def _refused(_request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return _error(str(error), error.status, error.code)
    assert isinstance(error, HTTPException)
    return _error(error.detail, error.status_code, "not_found" if error.status_code == 404 else "invalid_request")


def create_app() -> Starlette:
    """The ASGI application."""
    routes = [
        Route("/v1/models", _list_models),
        Route("/v1/models/{name}", _get_model),
        Route("/v1/chat/completions", _chat, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={RequestError: _refused, HTTPException: _refused})


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; bound before the server starts, so that port 0 can be announced."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # Without this a restart on the same port fails for a minute after connections were open.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortInUse(
            "The toy expert cannot listen",
            seen=f"{host}:{port} is in use",
            remedy="choose another port, or 0 for any",
        ) from error
    return listener


def _server() -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(create_app(), log_level="warning", lifespan="off", access_log=False))


@contextmanager
def serve(port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Run the server on a thread of this process; yields its base URL, `http://127.0.0.1:PORT/v1`.

    Raises:
        PortInUse: if another program has the port.
        StepFailed: if the server does not come up within ten seconds.
    """
    listener = _listen(host, port)
    server = _server()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="toy-expert", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise StepFailed("The toy expert did not start", remedy="run the step again")
            time.sleep(0.005)
        yield f"http://{host}:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve until interrupted; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m opadpo.toy.expert_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="file that gets the port once the server listens")
    options = parser.parse_args(arguments)
    try:
        listener = _listen(options.host, options.port)
    except OpadpoError as error:
        print(error, flush=True)
        return error.exit_status
    listener.listen(128)
    port = listener.getsockname()[1]
    if options.port_file:
        partial = options.port_file.with_name(f"{options.port_file.name}.part")
        partial.write_text(f"{port}\n", encoding="ascii")
        os.replace(partial, options.port_file)
    print(f"http://{options.host}:{port}/v1", flush=True)
    _server().run(sockets=[listener])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
