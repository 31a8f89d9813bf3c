"""A client of one OpenAI-compatible server: every request ends as an answer or as a failure with its reason.

What makes all requests pointless (a wrong address, key or model, an empty account) stops the step instead, with an
`EndpointError`.
"""

import asyncio
import os
from contextvars import ContextVar
from ipaddress import ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from opadpo.errors import EndpointError, StepFailed
from opadpo.images import ImageProblem
from opadpo.llm.requests import Answer, ChatRequest, Failure, FailureKind, Message
from opadpo.recipe.sections import EndpointSection
from opadpo.records import Usage

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"
_FIRST_CONTACT_SECONDS = 30.0
_GONE_AFTER = 16
"""So many connections that fail in a row mean that the server has gone, not that a row is unlucky."""
_REASON_LENGTH = 300

_attempts: ContextVar[list[int]] = ContextVar("attempts")


def endpoint_key(endpoint: EndpointSection) -> str | None:
    """The key from the environment; None if there is none and none is needed.

    Raises:
        EndpointError: if the endpoint needs one, or it cannot be one.
    """
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key and endpoint.api_key_required:
        raise EndpointError(
            "The endpoint needs a key",
            seen=f"environment variable {endpoint.api_key_env} is not set",
            remedy=f"set it: export {endpoint.api_key_env}=...; for a server without keys set api_key_required: false",
        )
    if not key.isascii() or not key.isprintable():
        raise EndpointError(
            "The endpoint's key cannot be sent: it holds characters that no key has",
            seen=f"environment variable {endpoint.api_key_env}",
            remedy="copy the key again: one line of letters, digits and signs",
        )
    return key or None


class ChatClient:
    """Asks one server. Make it inside a running event loop; use as an async context manager."""

    def __init__(self, endpoint: EndpointSection, *, base_url: str | None = None, max_retries: int = 4) -> None:
        """`base_url` replaces the endpoint's; `max_retries` is for passing errors (429, 5xx, lost connections).

        Raises:
            EndpointError: if the key is missing or the address is no URL.
        """
        self.model = endpoint.model
        self.base_url = base_url or endpoint.base_url or OPENAI_URL
        self._key_variable = endpoint.api_key_env
        self._key = endpoint_key(endpoint)
        self._timeout = endpoint.timeout
        _check_url(self.base_url)
        self._sdk = self._make_sdk(max_retries)
        self._contact = asyncio.Lock()
        self._reached = False
        self._answered = False
        self._lost_in_a_row = 0
        self._unsupported: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sdk.close()

    async def ask(self, request: ChatRequest) -> Answer | Failure:
        """Ask for one completion. Whatever goes wrong with this request alone is a `Failure`.

        Raises:
            EndpointError: if no request can succeed: address, key, model or quota.
            StepFailed: if the server has stopped answering.
        """
        import httpx2
        import openai

        try:
            messages = await asyncio.to_thread(_wire_messages, request.messages)
        except ImageProblem as problem:
            return Failure(kind="image", reason=f"image {problem.reason}", retryable=True)
        await self._make_contact()
        attempts: list[int] = []
        _attempts.set(attempts)
        while True:
            dialect = set(self._unsupported)
            try:
                # Not chat.completions.create: its check of every nested argument takes longer than all the rest.
                body = _body(request, messages, dialect)
                response = await self._sdk.post("/chat/completions", body=body, cast_to=httpx2.Response)
                self._lost_in_a_row = 0
                outcome = _read_completion(response.json(), request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if self._learn(error, dialect):
                    continue
                outcome = self._failure("bad_request", error, retryable=False)
            except openai.OpenAIError as error:
                outcome = self._sorted_out(error)
            except ValueError:
                outcome = Failure(kind="malformed_reply", reason="the server's reply is not JSON", retryable=True)
            self._answered |= isinstance(outcome, Answer)
            usage = outcome.usage.model_copy(update={"requests": len(attempts)})
            return outcome.model_copy(update={"usage": usage})

    # -- contact -----------------------------------------------------------------------------------------------

    def _make_sdk(self, max_retries: int) -> "openai.AsyncOpenAI":
        import openai

        hooks = {"request": [_count_attempt], "response": [self._stop_on_empty_account]}
        # A proxy of the environment cannot reach a server on this machine.
        http = openai.DefaultAsyncHttpxClient(event_hooks=hooks, trust_env=not _is_local(self.base_url))
        return openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.base_url,
            timeout=self._timeout,
            max_retries=max_retries,
            http_client=http,
        )

    async def _make_contact(self) -> None:
        """Before the first request: find out with one cheap call whether there is a server that takes the key."""
        import httpx2
        import openai

        async with self._contact:
            if self._reached:
                return
            patient = self._sdk.with_options(max_retries=1, timeout=min(self._timeout, _FIRST_CONTACT_SECONDS))
            try:
                await patient.get("/models", cast_to=httpx2.Response)
            except openai.APIConnectionError as error:
                raise EndpointError(
                    "The endpoint cannot be reached",
                    seen=f"{self.base_url}: {self._clean(error.__cause__ or error)}",
                    remedy="check the address (endpoint.base_url) and that the server runs",
                ) from error
            except openai.AuthenticationError as error:
                raise self._key_refused(error) from error
            except openai.APIStatusError:
                # Some servers have no list of models; that they answer is enough.
                pass
            self._reached = True

    async def _stop_on_empty_account(self, response: "httpx2.Response") -> None:
        # The SDK would retry this 429 like any other, though it can never succeed.
        if response.status_code == 429 and b"insufficient_quota" in await response.aread():
            raise EndpointError(
                "The account has no credit left (insufficient_quota)",
                seen=self.base_url,
                remedy="add credit or raise the limit with the provider; then run the command again: it asks nothing"
                " twice that was answered",
            )

    # -- errors ------------------------------------------------------------------------------------------------

    def _sorted_out(self, error: "openai.OpenAIError") -> Failure:
        """A failure of one row; raises if the error concerns all rows."""
        import openai

        if isinstance(error, openai.APIConnectionError):
            return self._lost(error)
        self._lost_in_a_row = 0
        if isinstance(error, openai.AuthenticationError):
            raise self._key_refused(error) from error
        # Later on a 403 may be about one row's content.
        if isinstance(error, openai.PermissionDeniedError) and not self._answered:
            raise self._key_refused(error) from error
        if isinstance(error, openai.NotFoundError):
            raise EndpointError(
                "The endpoint does not know this model or address",
                seen=f"model {self.model} at {self.base_url}: {self._clean(error)}",
                remedy="check endpoint.model, and that endpoint.base_url ends as the server wants it (often /v1)",
            ) from error
        if isinstance(error, openai.RateLimitError):
            return self._failure("rate_limit", error, retryable=True)
        if isinstance(error, openai.APIStatusError):
            if error.status_code >= 500 or error.status_code in (408, 409):
                return self._failure("server_error", error, retryable=True)
            return self._failure("bad_request", error, retryable=False)
        return self._failure("malformed_reply", error, retryable=True)

    def _lost(self, error: "openai.APIConnectionError") -> Failure:
        import openai

        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _GONE_AFTER:
            raise StepFailed(
                "The endpoint has stopped answering",
                seen=f"{self.base_url}: {self._lost_in_a_row} requests lost in a row: {self._clean(error.__cause__)}",
                remedy="see whether the server runs; then run the command again with --retry failed",
            ) from error
        if isinstance(error, openai.APITimeoutError):
            return Failure(kind="timeout", reason=f"no reply within {self._timeout:g} s", retryable=True)
        return self._failure("connection", error.__cause__ or error, retryable=True)

    def _learn(self, error: "openai.APIStatusError", dialect: set[str]) -> bool:
        """True if the request is worth sending again without a setting that this server does not know."""
        if self._unsupported != dialect:
            return True
        text = f"{error.param} {error.message}".lower()
        words = ("not support", "unsupported", "unrecognized", "unknown", "extra inputs", "not permitted")
        if not any(word in f"{error.code} {text}".lower() for word in words):
            return False
        for name in ("response_format", "temperature", "max_tokens"):
            if name in text and name not in dialect:
                self._unsupported.add(name)
                return True
        return False

    def _key_refused(self, error: "openai.APIStatusError") -> EndpointError:
        return EndpointError(
            "The endpoint refuses the key" if self._key else "The endpoint needs a key",
            seen=f"{self.base_url}: {self._clean(error)}",
            remedy=f"check the environment variable {self._key_variable}",
        )

    def _failure(self, kind: FailureKind, error: BaseException, *, retryable: bool) -> Failure:
        import openai

        text = self._clean(error)
        if isinstance(error, openai.APIStatusError) and error.code == "content_filter":
            kind = "content_filter"
        if isinstance(error, openai.APIStatusError) and not text.startswith("Error code"):
            text = f"HTTP {error.status_code}: {text}"
        return Failure(kind=kind, reason=text, retryable=retryable)

    def _clean(self, error: BaseException | None) -> str:
        """An error in one line, without the key should a server repeat it."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "***")
        return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + "..."


async def _count_attempt(_request: "httpx2.Request") -> None:
    attempts = _attempts.get(None)
    if attempts is not None:
        attempts.append(1)


def _wire_messages(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    wire: list[dict[str, Any]] = []
    for message in messages:
        content: str | list[dict[str, Any]] = message.text
        if message.picture is not None:
            image = {"type": "image_url", "image_url": {"url": message.picture.data_uri()}}
            content = [image, {"type": "text", "text": message.text}]
        wire.append({"role": message.role, "content": content})
    return wire


def _body(request: ChatRequest, messages: list[dict[str, Any]], unsupported: set[str]) -> dict[str, Any]:
    """The request as it is sent, without the settings that the server has refused."""
    limit = "max_completion_tokens" if "max_tokens" in unsupported else "max_tokens"
    body: dict[str, Any] = {"model": request.model, "messages": messages, limit: request.max_tokens}
    if request.temperature is not None and "temperature" not in unsupported:
        body["temperature"] = request.temperature
    if request.schema is not None and "response_format" not in unsupported:
        schema = {"name": request.schema_name, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _read_completion(body: Any, request: ChatRequest) -> Answer | Failure:
    """The outcome in a reply with status 200; nothing of its form is taken for granted."""
    reply = body if isinstance(body, dict) else {}
    model, choices = reply.get("model"), reply.get("choices")
    about: dict[str, Any] = {"usage": _usage(reply.get("usage")), "model": model if isinstance(model, str) else ""}
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        error = reply.get("error")
        reason = f"the server's reply is no chat completion{f': {error}' if error else ''}"[:_REASON_LENGTH]
        return Failure(kind="malformed_reply", reason=reason, retryable=True, **about)
    finish, content, refusal = choice.get("finish_reason"), message.get("content"), message.get("refusal")
    if refusal:
        reason = f"the model refuses: {refusal}"[:_REASON_LENGTH]
        return Failure(kind="refusal", reason=reason, retryable=False, **about)
    if finish == "content_filter":
        return Failure(kind="content_filter", reason="stopped by the content filter", retryable=False, **about)
    if finish == "length":
        reason = f"the answer was cut at {request.max_tokens} tokens; raise max_tokens"
        return Failure(kind="length", reason=reason, retryable=False, **about)
    if not isinstance(content, str) or not content.strip():
        return Failure(kind="malformed_reply", reason="the answer is empty", retryable=True, **about)
    return Answer(text=content, finish_reason=str(finish or "stop"), **about)


def _usage(usage: Any) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    names = ("prompt_tokens", "completion_tokens")
    return Usage(**{name: counts[name] for name in names if isinstance(counts.get(name), int)})


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError(
            "The endpoint's address is no URL", seen=url, remedy="write it like https://host/v1 (endpoint.base_url)"
        )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
