"""Requests and replies as they travel: the chat-completions format."""

import json
from collections.abc import Mapping, Sequence, Set
from typing import Any

from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import Answer, ChatRequest, Failure, Sample
from opadpo.records import Usage

REASON_LENGTH = 300
"""Longest reason of a failure."""
_MOST_TOKENS = 10**12
"""A count above this is no count."""

LEARNABLE = (
    "response_format", "temperature", "max_tokens", "return_token_ids", "repetition_penalty", "top_k", "top_p", "seed",
    "generation_config",
)  # fmt: skip
"""Settings that a server may not know; it is then asked without them."""


def encode_messages(request: ChatRequest) -> bytes:
    """The conversation as JSON. It holds the images, so it is made once and sent as often as needed.

    Raises:
        ImageProblem: if an image is missing or not usable.
    """
    wire: list[dict[str, Any]] = []
    for message in request.messages:
        content: str | list[dict[str, Any]] = message.text
        if message.picture is not None:
            image_url = {"url": message.picture.data_uri()}
            if message.picture.detail != "auto":
                image_url["detail"] = message.picture.detail
            content = [{"type": "image_url", "image_url": image_url}, {"type": "text", "text": message.text}]
        wire.append({"role": message.role, "content": content})
    return json.dumps(wire, separators=(",", ":")).encode()


def body(request: ChatRequest, messages: bytes, model: str, unsupported: Set[str] = frozenset()) -> bytes:
    """The request as JSON, without the settings that the server has refused."""
    limit = "max_completion_tokens" if "max_tokens" in unsupported else "max_tokens"
    settings: dict[str, Any] = {"model": model, limit: request.max_tokens}
    if request.temperature is not None and "temperature" not in unsupported:
        settings["temperature"] = request.temperature
    if request.schema is not None and "response_format" not in unsupported:
        schema = {"name": request.schema_name, "strict": True, "schema": request.schema}
        settings["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.sample is not None:
        settings |= _sampling(request, request.sample, unsupported)
    head = json.dumps(settings, separators=(",", ":")).encode()
    return head[:-1] + b',"messages":' + messages + b"}"


def _sampling(request: ChatRequest, sample: Sample, unsupported: Set[str]) -> dict[str, Any]:
    """How to decode, in OpenAI's words and in those that vLLM and SGLang add.

    A server that takes nothing from the model's own defaults has to be told of everything. `transformers serve` knows
    none of the added words, but a whole `generation_config`, without which it does not sample at all.
    """
    settings: dict[str, Any] = {
        "top_p": sample.top_p,
        "seed": sample.seed,
        "top_k": sample.top_k or -1,
        "repetition_penalty": 1.0,
        "return_token_ids": True,
    }
    settings = {name: value for name, value in settings.items() if name not in unsupported}
    if "top_k" in unsupported and "generation_config" not in unsupported:
        whole = {
            "max_new_tokens": request.max_tokens,
            "do_sample": bool(request.temperature),
            "repetition_penalty": 1.0,
        }
        if request.temperature:
            whole |= {"temperature": request.temperature, "top_k": sample.top_k, "top_p": sample.top_p}
        settings["generation_config"] = json.dumps(whole)
    return settings


def lost_settings(request: ChatRequest, unsupported: Set[str]) -> list[str]:
    """What a server that does not know these settings leaves out of a sample's decoding."""
    if request.sample is None:
        return []
    told = {"top_k", "repetition_penalty"} if "generation_config" not in unsupported else set[str]()
    return sorted(unsupported & {"temperature", "top_p", "top_k", "repetition_penalty", "seed"} - told)


def refused_setting(code: object, text: str, known: Set[str]) -> str | None:
    """The setting that a server does not know, by its error; None if the error is about something else."""
    text = text.lower()
    words = ("not support", "unsupported", "unrecognized", "unknown", "unexpected", "extra inputs", "not permitted")
    if not any(word in f"{code} {text}".lower() for word in words):
        return None
    return next((name for name in LEARNABLE if name in text and name not in known), None)


def read_json(content: str | bytes) -> Any:
    """A reply's JSON, with texts that can be written down (see `sound`).

    Raises:
        ValueError: if it is none, or nested more deeply than anything meant.
    """
    try:
        return sound(json.loads(content))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def sound(value: Any) -> Any:
    """A JSON value with U+FFFD for what no file or database takes as text: half a surrogate pair, NUL."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {sound(key): sound(item) for key, item in value.items()}
    return [sound(item) for item in value] if isinstance(value, list) else value


def read_completion(
    reply: Any, prices: PriceTable, *asked_models: str, sample: bool = False, left_out: Sequence[str] = ()
) -> Answer | Failure:
    """The outcome in a reply with status 200; nothing of its form is taken for granted.

    `asked_models` are names by which the model may have a price if that which the server reports has none. A `sample`
    may be cut or empty, and was made without the settings that are `left_out`.
    """
    reply = reply if isinstance(reply, Mapping) else {}
    model, choices = reply.get("model"), reply.get("choices")
    model = model if isinstance(model, str) else ""
    names = tuple(name for name in (model, *asked_models) if name)
    about: dict[str, Any] = {"usage": _usage(reply.get("usage"), names, prices), "model": model}
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        error = reply.get("error")
        reason = f"the server's reply is no chat completion{f': {error}' if error else ''}"[:REASON_LENGTH]
        return Failure(kind="malformed_reply", reason=reason, retryable=True, **about)
    finish, content, refusal = choice.get("finish_reason"), message.get("content"), message.get("refusal")
    if refusal:
        reason = f"the model refuses: {refusal}"[:REASON_LENGTH]
        return Failure(kind="refusal", reason=reason, retryable=False, **about)
    if finish == "content_filter":
        return Failure(kind="content_filter", reason="stopped by the content filter", retryable=False, **about)
    if sample:
        text = content if isinstance(content, str) else ""
        ids = {"token_ids": _token_ids(choice.get("token_ids")), "left_out": list(left_out)}
        return Answer(text=text, finish_reason=str(finish or "stop"), **ids, **about)
    if finish == "length":
        reason = f"the answer was cut at {about['usage'].completion_tokens} tokens; raise max_tokens for it"
        return Failure(kind="length", reason=reason, retryable=False, **about)
    if not isinstance(content, str) or not content.strip():
        return Failure(kind="malformed_reply", reason="the answer is empty", retryable=True, **about)
    return Answer(text=content, finish_reason=str(finish or "stop"), **about)


def _token_ids(value: Any) -> list[int] | None:
    """The ids of an answer; None if the server does not tell them."""
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < 2**31 for i in value):
        return None
    return value


def total_usage(parts: list[Usage]) -> Usage:
    """The sum of what requests cost."""
    return Usage(
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        requests=sum(part.requests for part in parts),
        cost_usd=sum(part.cost_usd for part in parts),
    )


def _usage(usage: Any, models: tuple[str, ...], prices: PriceTable) -> Usage:
    counts = usage if isinstance(usage, Mapping) else {}
    details = counts.get("prompt_tokens_details")
    prompt, completion = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    cost = prices.cost(models, prompt, completion, cached=cached)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < _MOST_TOKENS else 0
