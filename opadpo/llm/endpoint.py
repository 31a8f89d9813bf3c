"""One server that speaks the OpenAI protocol: a single attempt at a request, and what its outcome means.

What makes all requests to the server pointless (a wrong address, key or model, an empty account) is an
`EndpointError`; that it has gone is `StepFailed`. Everything else is the outcome of one request.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from opadpo.errors import EndpointError, StepFailed
from opadpo.llm.keys import Secrets, endpoint_key
from opadpo.llm.limits import Limits
from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import Answer, ChatRequest, Failure, FailureKind
from opadpo.llm.transport import OPENAI_URL, chat_path, check_url, listed_models, make_sdk, retry_after
from opadpo.llm.wire import REASON_LENGTH, body, lost_settings, read_completion, read_json, refused_setting, sound
from opadpo.recipe.endpoints import EndpointSection

if TYPE_CHECKING:
    import openai

GONE_AFTER = 16
"""So many connections that fail in a row, or pauses without an answer, mean that the server has gone."""
LONGEST_WAIT = 600.0
"""Seconds; a server that asks for a longer pause is not waited for."""

_FIRST_CONTACT_SECONDS = 30.0
_BUSY = (429, 503, 529)
"""Statuses that concern whatever is sent next, not one request."""
_PAYMENT_REQUIRED = 402
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


class Attempt(NamedTuple):
    """What came of sending a request once."""

    outcome: Answer | Failure
    """An answer, or what went wrong."""
    busy: bool = False
    """True if the server asks for a pause of everything that is sent to it."""
    wait: float | None = None
    """Seconds that the server asks to wait before the next attempt."""


class Endpoint:
    """One server. Make it inside a running event loop and close it with `close`."""

    def __init__(
        self, section: EndpointSection, prices: PriceTable, concurrency: int, *, base_url: str | None = None
    ) -> None:
        """`concurrency` is the step's, `base_url` replaces the section's.

        Raises:
            EndpointError: if the key is missing or the address is no URL.
            DependencyMissing: without azure-identity where it is needed.
        """
        self.model = section.model
        self.base_url = base_url or section.base_url or ("" if section.provider == "azure" else OPENAI_URL)
        most = min(concurrency, section.concurrency or concurrency)
        self.limits = Limits(most, section.requests_per_minute, section.tokens_per_minute)
        self.unsupported: set[str] = set()
        self._section = section
        self._prices = prices
        self._key = endpoint_key(section)
        self._secrets = Secrets([self._key])
        check_url(self.base_url, section)
        self.sdk = make_sdk(section, self.base_url, self._key, self._secrets, connections=most)
        self._path = chat_path(section)
        self._contact = asyncio.Lock()
        self._reached = False
        self._answered = False
        self._lost_in_a_row = 0

    async def close(self) -> None:
        """Close the connections."""
        await self.sdk.close()

    async def attempt(self, request: ChatRequest, messages: bytes) -> Attempt:
        """Send a request once (again only without a setting that the server does not know).

        Raises:
            EndpointError: if no request can succeed: address, key, model or quota.
            StepFailed: if the server has stopped answering.
        """
        import httpx2
        import openai

        await self.make_contact()
        sent = 0
        while True:
            dialect = set(self.unsupported)
            sent += 1
            try:
                # Not chat.completions.create: its check of every nested argument takes longer than all the rest, and
                # it would encode the images anew.
                reply = await self.sdk.post(
                    self._path,
                    content=body(request, messages, self.model, dialect),
                    cast_to=httpx2.Response,
                    options={"headers": {"Content-Type": "application/json"}},
                )
                attempt = self._completed(reply.content, request, dialect)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if self._learn(error, dialect):
                    continue
                attempt = Attempt(self._failure("bad_request", error, retryable=False))
            except openai.OpenAIError as error:
                attempt = self._sorted_out(error)
            self._answered |= isinstance(attempt.outcome, Answer)
            usage = attempt.outcome.usage.model_copy(update={"requests": sent})
            return attempt._replace(outcome=attempt.outcome.model_copy(update={"usage": usage}))

    async def make_contact(self) -> list[str]:
        """Before the first request: find out with one cheap call whether there is a server that takes the key.

        Returns the models that it lists, if it does and was not asked before.

        Raises:
            EndpointError: if it cannot be reached or refuses the key.
        """
        import httpx2
        import openai

        async with self._contact:
            if self._reached:
                return []
            timeout = min(self._section.timeout, _FIRST_CONTACT_SECONDS)
            patient = self.sdk.with_options(max_retries=1, timeout=timeout)
            models: list[str] = []
            try:
                models = listed_models(await patient.get("/models", cast_to=httpx2.Response))
            except openai.APIConnectionError as error:
                raise EndpointError(
                    "The endpoint cannot be reached",
                    seen=f"{self.base_url}: {self.clean(error.__cause__ or error)}",
                    remedy="check the address (endpoint.base_url) and that the server runs",
                ) from error
            except openai.AuthenticationError as error:
                raise self._key_refused(error) from error
            except openai.APIStatusError:
                # Some servers have no list of models; that they answer is enough.
                pass
            self._reached = True
            return models

    def clean(self, error: object) -> str:
        """An error in one line, without the key should a server repeat it."""
        text = " ".join(str(error).split()) or type(error).__name__
        text = sound(self._secrets.redact(text))
        return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 3] + "..."

    def cleaned(self, outcome: Answer | Failure) -> Answer | Failure:
        """The outcome without the key should a server repeat it."""
        if isinstance(outcome, Failure):
            return outcome.model_copy(update={"reason": self.clean(outcome.reason)})
        text = self._secrets.redact(outcome.text)
        return outcome if text == outcome.text else outcome.model_copy(update={"text": text})

    def hopeless(self, error: "openai.APIStatusError") -> EndpointError | None:
        """The error for the user if no request at all can succeed; None if it is about one request."""
        import openai

        if error.status_code == _PAYMENT_REQUIRED or error.code in _NO_CREDIT or error.type in _NO_CREDIT:
            return EndpointError(
                f"The account has no credit left ({error.code or error.type or error.status_code})",
                seen=f"{self.base_url}: {self.clean(error)}",
                remedy="add credit or raise the limit with the provider; then run the command again: it asks nothing"
                " twice that was answered",
            )
        # Later on a 403 may be about one row's content.
        if isinstance(error, openai.AuthenticationError) or (
            isinstance(error, openai.PermissionDeniedError) and not self._answered
        ):
            return self._key_refused(error)
        if isinstance(error, openai.NotFoundError):
            return EndpointError(
                "The endpoint does not know this model or address",
                seen=f"model {self.model} at {self.base_url}: {self.clean(error)}",
                remedy="check endpoint.model, and that endpoint.base_url ends as the server wants it (often /v1)",
            )
        return None

    # -- outcomes ----------------------------------------------------------------------------------------------

    def _completed(self, content: bytes, request: ChatRequest, dialect: set[str]) -> Attempt:
        self._lost_in_a_row = 0
        try:
            reply = read_json(content)
        except ValueError:
            return Attempt(Failure(kind="malformed_reply", reason="the server's reply is not JSON", retryable=True))
        outcome = read_completion(
            reply,
            self._prices,
            self.model,
            request.model,
            sample=request.sample is not None,
            left_out=lost_settings(request, dialect),
        )
        return Attempt(self.cleaned(outcome))

    def _sorted_out(self, error: "openai.OpenAIError") -> Attempt:
        """The outcome of one request; raises if the error concerns all."""
        import openai

        if isinstance(error, openai.APIConnectionError):
            return Attempt(self._lost(error))
        self._lost_in_a_row = 0
        if not isinstance(error, openai.APIStatusError):
            return Attempt(self._failure("malformed_reply", error, retryable=True))
        hopeless = self.hopeless(error)
        if hopeless is not None:
            raise hopeless from error
        wait = retry_after(error.response)
        if wait is not None and wait > LONGEST_WAIT:
            raise StepFailed(
                "The endpoint asks for a long pause",
                seen=f"{self.base_url}: {wait:.0f} s; {self.clean(error)}",
                remedy="run the command again after that time; it asks nothing twice that was answered",
            ) from error
        busy = error.status_code in _BUSY
        if busy and self.limits.pauses_in_a_row >= GONE_AFTER:
            raise self._gone(f"busy {self.limits.pauses_in_a_row} times in a row: {self.clean(error)}") from error
        if error.status_code == 429:
            return Attempt(self._failure("rate_limit", error, retryable=True), busy, wait)
        if error.status_code >= 500 or error.status_code in (408, 409):
            return Attempt(self._failure("server_error", error, retryable=True), busy, wait)
        return Attempt(self._failure("bad_request", error, retryable=False))

    def _lost(self, error: "openai.APIConnectionError") -> Failure:
        import openai

        self._lost_in_a_row += 1
        if self._lost_in_a_row >= GONE_AFTER:
            seen = f"{self._lost_in_a_row} requests lost in a row: {self.clean(error.__cause__ or error)}"
            raise self._gone(seen) from error
        if isinstance(error, openai.APITimeoutError):
            return Failure(kind="timeout", reason=f"no reply within {self._section.timeout:g} s", retryable=True)
        return self._failure("connection", error.__cause__ or error, retryable=True)

    def _gone(self, seen: str) -> StepFailed:
        return StepFailed(
            "The endpoint has stopped answering",
            seen=f"{self.base_url}: {seen}",
            remedy="see whether the server runs; then run the command again with --retry failed",
        )

    def _learn(self, error: "openai.APIStatusError", dialect: set[str]) -> bool:
        """True if the request is worth sending again without a setting that this server does not know."""
        if self.unsupported != dialect:
            return True
        name = refused_setting(error.code, f"{error.param} {_words(error)}", dialect)
        if name is None:
            return False
        self.unsupported.add(name)
        return True

    def _key_refused(self, error: "openai.APIStatusError") -> EndpointError:
        if self._section.entra:
            remedy = "give this identity the role Cognitive Services OpenAI User on the resource, or sign in as another"
        else:
            remedy = f"check the environment variable (or keyring entry) {self._section.api_key_env}"
        return EndpointError(
            "The endpoint refuses the key" if self._key else "The endpoint needs a key",
            seen=f"{self.base_url}: {self.clean(error)}",
            remedy=remedy,
        )

    def _failure(self, kind: FailureKind, error: BaseException, *, retryable: bool) -> Failure:
        import openai

        text = self.clean(_words(error) if isinstance(error, openai.APIStatusError) else error)
        if isinstance(error, openai.APIStatusError) and error.code == "content_filter":
            kind = "content_filter"
        if isinstance(error, openai.APIStatusError) and not text.startswith("Error code"):
            text = f"HTTP {error.status_code}: {text}"
        return Failure(kind=kind, reason=text, retryable=retryable)


def _words(error: "openai.APIStatusError") -> str:
    """The error's message; a server that is not like OpenAI's has it elsewhere in the reply."""
    if isinstance(error.body, Mapping) and not isinstance(error.body.get("message"), str):
        return f"{error.message} - {json.dumps(error.body, ensure_ascii=False)}"
    return error.message
