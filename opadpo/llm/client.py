"""A client of one or several servers of the same model: every request ends as an answer or a failure with its reason.

Requests go where there is most room. What passes is tried again, on another server if there is one; a server that
cannot be used any more is left out, and only when none is left does asking stop, with an `EndpointError` or
`StepFailed` that says why.
"""

import asyncio
import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from opadpo.errors import EndpointError, StepFailed, UserError
from opadpo.images import ImageProblem
from opadpo.llm.budget import Budget
from opadpo.llm.endpoint import Attempt, Endpoint
from opadpo.llm.limits import Permit
from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import Answer, ChatRequest, Failure
from opadpo.llm.tokens import answer_tokens, most_prompt_tokens, prompt_tokens
from opadpo.llm.wire import encode_messages, total_usage
from opadpo.recipe.endpoints import AskingSection, EndpointSection
from opadpo.records import Usage

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_MARGIN = 1.1
"""A request may have so many times the tokens that it should have at the most; more if answers show it."""
_HEADROOM = 1.1
_FRUITLESS = 32
"""If so many requests fail and none was ever answered, the next ones will fail as well."""


def _nothing(_message: str) -> None:
    """Tell nobody."""


class _Prepared(NamedTuple):
    """A request, ready to be sent."""

    request: ChatRequest
    messages: bytes
    """The conversation as it is sent, images and all."""
    tokens: int
    """About how many tokens it has; 0 where nobody counts them."""
    worst_cost: float
    """The most that sending it once can cost, in US dollars."""


class ChatClient:
    """Asks servers. Make it inside a running event loop; use as an async context manager."""

    def __init__(
        self,
        asked: AskingSection | EndpointSection,
        *,
        base_url: str | None = None,
        max_retries: int | None = None,
        spent: float = 0.0,
        say: Callable[[str], None] = _nothing,
    ) -> None:
        """With an endpoint alone the rest has its defaults.

        `base_url` replaces that of the first endpoint, `max_retries` the section's; `spent` are the US dollars that
        count towards the budget already; `say` is told of servers that are left out.

        Raises:
            EndpointError: if a key is missing or an address is no URL.
            UserError: if there is a budget and the model has no price.
        """
        section = asked if isinstance(asked, AskingSection) else AskingSection(endpoint=asked)
        self.prices = PriceTable(section.prices)
        check_budget(section, self.prices)
        self.budget = Budget(section.max_cost_usd, spent)
        self._retries = section.max_retries if max_retries is None else max_retries
        self._say = say
        first = Endpoint(section.endpoint, self.prices, section.concurrency, base_url=base_url)
        more = [Endpoint(each, self.prices, section.concurrency) for each in section.more_endpoints]
        self.endpoints = [first, *more]
        self._alive = list(self.endpoints)
        self._stopped: EndpointError | StepFailed | None = None
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._margin = _MARGIN
        self._answered = False
        self._warned = False
        self._fruitless: Counter[str] = Counter()
        self._counts_tokens = section.max_cost_usd is not None or any(
            each.tokens_per_minute for each in (section.endpoint, *section.more_endpoints)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for endpoint in self.endpoints:
            await endpoint.close()

    async def ask(self, request: ChatRequest) -> Answer | Failure:
        """Ask for one completion. Whatever goes wrong with this request alone is a `Failure`.

        Raises:
            EndpointError: if no request can succeed: address, key, model or quota.
            StepFailed: if the servers have stopped answering, or no request was ever answered.
            BudgetReached: if the rest of the budget is too small for this request.
        """
        if not self._answered and self._fruitless.total() >= _FRUITLESS:
            raise self._nothing_answered()
        try:
            prepared = await self._prepared(request)
        except ImageProblem as problem:
            return Failure(kind="image", reason=f"image {problem.reason}", retryable=True)
        parts: list[Usage] = []
        tries = 0
        endpoint: Endpoint | None = None
        while True:
            endpoint, attempt = await self._attempt(prepared, avoid=endpoint)
            parts.append(attempt.outcome.usage)
            tries += not attempt.busy
            if not self._again(endpoint, attempt, tries):
                self._count(attempt.outcome)
                return attempt.outcome.model_copy(update={"usage": total_usage(parts)})
            if not attempt.busy:
                await asyncio.sleep(_pause(tries) if attempt.wait is None else attempt.wait)

    def worst_cost(self, request: ChatRequest, *, factor: float = 1.0) -> float:
        """The most US dollars that sending a request once can cost; `factor` scales the prices. 0 without a budget.

        Raises:
            ImageProblem: if an image is missing or not usable.
        """
        if self.budget.limit is None:
            return 0.0
        names = (request.model, self.endpoints[0].model)
        prompt = math.ceil(most_prompt_tokens(request) * self._margin)
        return factor * self.prices.cost(names, prompt, request.max_tokens)

    # -- one attempt -------------------------------------------------------------------------------------------

    async def _prepared(self, request: ChatRequest) -> _Prepared:
        """Everything about a request that is made once, however often it is sent.

        Raises:
            ImageProblem: if an image is missing or not usable.
        """

        def prepare() -> _Prepared:
            tokens = prompt_tokens(request) if self._counts_tokens else 0
            return _Prepared(request, encode_messages(request), tokens, self.worst_cost(request))

        if all(message.picture is None for message in request.messages):
            return prepare()
        return await asyncio.to_thread(prepare)

    async def _attempt(self, prepared: _Prepared, avoid: Endpoint | None) -> tuple[Endpoint, Attempt]:
        """Send a request once to a server that is alive."""
        request, tokens = prepared.request, prepared.tokens
        await self.budget.reserve(prepared.worst_cost)
        cost = 0.0
        try:
            while True:
                endpoint, permit = await self._admit(tokens + answer_tokens(request) if tokens else 0, avoid)
                used: int | None = None
                try:
                    attempt = await endpoint.attempt(request, prepared.messages)
                    usage = attempt.outcome.usage
                    cost, used = usage.cost_usd, (usage.prompt_tokens + usage.completion_tokens) or None
                    if used is None and isinstance(attempt.outcome, Answer):
                        cost = self._untold(prepared.worst_cost)
                    self._note(endpoint, permit, attempt, tokens)
                    return endpoint, attempt
                except (EndpointError, StepFailed) as error:
                    self._leave_out(endpoint, error)
                finally:
                    endpoint.limits.give_back(permit, used)
                    self._freed.set()
        finally:
            self.budget.settle(prepared.worst_cost, cost)

    async def _admit(self, tokens: int, avoid: Endpoint | None) -> tuple[Endpoint, Permit]:
        """Wait for room; the server with most of it, one other than `avoid` if there is a choice.

        Raises:
            EndpointError, StepFailed: if no server is left.
        """
        # In a queue, so that the first who waits is the first who goes.
        async with self._turn:
            while True:
                if not self._alive:
                    assert self._stopped is not None
                    raise self._stopped
                free = [(each.limits.room(tokens), each is not avoid, each) for each in self._alive]
                free = [entry for entry in free if entry[0] > 0]
                if free:
                    _, _, endpoint = max(free, key=lambda entry: (entry[1], entry[0]))
                    return endpoint, endpoint.limits.take(tokens)
                delays = [delay for each in self._alive if (delay := each.limits.delay(tokens)) is not None]
                self._freed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), min(delays, default=None))

    def _note(self, endpoint: Endpoint, permit: Permit, attempt: Attempt, tokens: int) -> None:
        """Learn from an attempt how much the server bears, and how many tokens requests really have."""
        if attempt.busy:
            endpoint.limits.slow_down(permit, attempt.wait)
        elif isinstance(attempt.outcome, Answer):
            endpoint.limits.answered()
            if tokens:
                self._margin = max(self._margin, _HEADROOM * attempt.outcome.usage.prompt_tokens / tokens)

    def _again(self, endpoint: Endpoint, attempt: Attempt, tries: int) -> bool:
        if isinstance(attempt.outcome, Answer) or not attempt.outcome.retryable:
            return False
        # A server that is busy is busy for all: the row gives up only if no other was answered in the meantime.
        return endpoint.limits.pauses_in_a_row <= self._retries if attempt.busy else tries <= self._retries

    def _untold(self, worst: float) -> float:
        """What to count for an answer of which the server does not tell the tokens: the most it can have cost."""
        if worst and not self._warned:
            self._warned = True
            self._say(
                "The server does not tell how many tokens it used: max_cost_usd counts the most that each request can"
                " cost, and only those of this run"
            )
        return worst

    def _count(self, outcome: Answer | Failure) -> None:
        """Note whether anything is answered at all."""
        if isinstance(outcome, Answer):
            self._answered = True
        elif not self._answered:
            self._fruitless[outcome.reason] += 1

    def _nothing_answered(self) -> StepFailed:
        reason, times = self._fruitless.most_common(1)[0]
        return StepFailed(
            f"None of the first {self._fruitless.total()} requests was answered",
            seen=f"{', '.join(each.base_url for each in self.endpoints)}: {times} times {reason}",
            remedy="see to the reason; then run the command again with --retry failed, which asks for these once more",
        )

    def _leave_out(self, endpoint: Endpoint, error: EndpointError | StepFailed) -> None:
        if endpoint in self._alive:
            self._alive.remove(endpoint)
            self._stopped = error
            if self._alive:
                self._say(f"{endpoint.base_url} is left out, the other servers go on: {error}")


def check_budget(section: AskingSection, prices: PriceTable) -> None:
    """See that a budget can be held.

    Raises:
        UserError: if there is one, and a model has no price.
    """
    models = [each.model for each in (section.endpoint, *section.more_endpoints)]
    unpriced = [model for model in models if prices.price(model) is None]
    if section.max_cost_usd is not None and unpriced:
        raise UserError(
            "A budget needs the price of the model",
            seen=f"max_cost_usd {section.max_cost_usd:g}, no price of {', '.join(unpriced)}",
            remedy=f"set prices, for example prices: {{{unpriced[0]}: {{input: 2.5, output: 10}}}}, or no budget",
        )


def _pause(tries: int) -> float:
    """Seconds before the next try, longer each time and never the same for all."""
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.75, 1.25)
