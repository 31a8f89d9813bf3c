"""Result files of the batch service: lines in any order, joined by `custom_id`."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from opadpo.errors import EndpointError
from opadpo.llm.endpoint import Endpoint
from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import Answer, Failure, FailureKind
from opadpo.llm.wire import read_completion, read_json
from opadpo.recipe.endpoints import AskingSection

_KEPT_AT_ONCE = 500
_NOT_ASKED = ("batch_expired", "batch_cancelled")
"""Codes of requests that the service did not come to: they are asked again."""
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "invalid_api_key")


class ResultReader:
    """Reads the files of one batch."""

    def __init__(self, section: AskingSection, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._prices = PriceTable(section.prices, factor=section.batch.price_factor)
        self.left_open: set[str] = set()
        """Requests that were not asked, and have no outcome therefore."""
        self.hopeless: EndpointError | None = None
        """Why no request can succeed, if a line says so."""

    async def read(self, lines: AsyncIterator[str]) -> AsyncIterator[list[tuple[str, Answer | Failure]]]:
        """Outcomes by key, some hundreds at a time. Lines that belong to no request are passed over."""
        found: dict[str, Answer | Failure] = {}
        async for line in lines:
            try:
                entry = read_json(line)
            except ValueError:
                continue
            key = entry.get("custom_id") if isinstance(entry, Mapping) else None
            outcome = self._outcome(entry) if isinstance(key, str) else None
            if outcome is not None:
                usage = outcome.usage.model_copy(update={"requests": 1})
                found[str(key)] = self._endpoint.cleaned(outcome.model_copy(update={"usage": usage}))
            elif isinstance(key, str):
                self.left_open.add(key)
            if len(found) >= _KEPT_AT_ONCE:
                yield list(found.items())
                found = {}
        if found:
            yield list(found.items())

    def _outcome(self, entry: Mapping[str, Any]) -> Answer | Failure | None:
        """What came of a request; None if it was not asked."""
        response = entry.get("response")
        response = response if isinstance(response, Mapping) else {}
        status, reply = response.get("status_code"), response.get("body")
        if status == 200:
            return read_completion(reply, self._prices, self._endpoint.model)
        error = entry.get("error") or (reply.get("error") if isinstance(reply, Mapping) else None) or {}
        error = error if isinstance(error, Mapping) else {"message": str(error)}
        code, message = error.get("code"), error.get("message") or "no reason given"
        if code in _NOT_ASKED:
            return None
        if code in _NO_CREDIT:
            self.hopeless = EndpointError(
                f"The provider has answered no more requests of a batch ({code})",
                seen=f"{self._endpoint.base_url}: {self._endpoint.clean(message)}",
                remedy="see to the account and its key; then run the command again: it asks nothing twice that was"
                " answered",
            )
            return None
        kind, retryable = _kind(status, code)
        return Failure(kind=kind, reason=f"HTTP {status}: {message}" if status else str(message), retryable=retryable)


def _kind(status: Any, code: Any) -> tuple[FailureKind, bool]:
    if code == "content_filter":
        return "content_filter", False
    if status == 429:
        return "rate_limit", True
    if isinstance(status, int) and 400 <= status < 500:
        return "bad_request", False
    return "server_error", True
