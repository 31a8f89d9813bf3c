"""Whether a request is one that the OpenAI API would take, by the types of its own SDK."""

import base64
import io
import json
from typing import Any, get_type_hints

from openai.types.chat import (
    ChatCompletion,
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.shared_params import ResponseFormatJSONSchema
from PIL import Image
from pydantic import TypeAdapter, ValidationError

_KNOWN = set(get_type_hints(CompletionCreateParamsNonStreaming))
_MESSAGE = TypeAdapter[Any](ChatCompletionMessageParam)
_PART = TypeAdapter[Any](ChatCompletionContentPartParam)
_FORMAT = TypeAdapter[Any](ResponseFormatJSONSchema)


class BadRequest(Exception):
    """What is wrong with a request."""


def check_request(body: Any) -> None:
    """Raise `BadRequest` unless the body is a chat-completions request whose images can be decoded."""
    if not isinstance(body, dict) or not {"model", "messages"} <= set(body):
        raise BadRequest("an object with model and messages is needed")
    if unknown := set(body) - _KNOWN:
        raise BadRequest(f"unknown: {sorted(unknown)}")
    try:
        for message in body["messages"]:
            _MESSAGE.validate_python(message, strict=True)
            # Iterables are validated only when somebody looks into them.
            for part in message["content"] if isinstance(message["content"], list) else []:
                _PART.validate_python(part, strict=True)
                if part["type"] == "image_url":
                    _check_image(part["image_url"]["url"])
        if "response_format" in body:
            _FORMAT.validate_python(body["response_format"], strict=True)
    except (ValidationError, TypeError, KeyError, ValueError, OSError) as error:
        raise BadRequest(str(error)) from error


def check_batch_file(content: bytes) -> list[dict[str, Any]]:
    """The lines of a batch's input; raises `BadRequest` unless all are requests with names of their own."""
    lines = [json.loads(line) for line in content.splitlines()]
    for line in lines:
        if set(line) != {"custom_id", "method", "url", "body"} or line["method"] != "POST":
            raise BadRequest(f"a line with {sorted(line)}")
        check_request(line["body"])
    if len({line["custom_id"] for line in lines}) != len(lines):
        raise BadRequest("a custom_id twice")
    return lines


def checked_completion(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, if it is a completion by the SDK's type."""
    ChatCompletion.model_validate(reply)
    return reply


def _check_image(url: str) -> None:
    head, _, data = url.partition(";base64,")
    if not head.startswith("data:image/"):
        raise ValueError(f"no data URI: {url[:40]}")
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        kind = Image.MIME[image.format or ""]
    if head != f"data:{kind}":
        raise ValueError(f"{head}, but the image is {kind}")
