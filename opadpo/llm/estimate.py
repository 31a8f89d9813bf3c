"""What a run will cost, before its first request."""

import math
from typing import NamedTuple

from opadpo.images import ImageProblem
from opadpo.llm.prices import PriceTable
from opadpo.llm.requests import ChatRequest
from opadpo.llm.tokens import answer_tokens, prompt_tokens

_ALL = 5_000
_EVERY = 10


class Estimate(NamedTuple):
    """Requests, tokens and money, each about."""

    requests: int
    """Requests."""
    prompt_tokens: int
    """Tokens of requests, images by the provider's published rule."""
    completion_tokens: int
    """Tokens of answers."""
    cost_usd: float | None
    """US dollars; None if the model has no price."""
    batch: bool
    """Whether it is the price of the batch service."""

    @property
    def text(self) -> str:
        """The estimate in one line."""
        tokens = f"{_short(self.prompt_tokens)} tokens in, {_short(self.completion_tokens)} out"
        if self.cost_usd is None:
            price = "no price known"
        else:
            price = f"about ${self.cost_usd:.2f}" + (" as a batch" if self.batch else "")
        return f"estimate: {self.requests} requests, {tokens}, {price} (counted without the model's tokenizer)"


class Estimator:
    """Adds up requests. Of very many only every tenth is looked at after the first 5,000."""

    def __init__(self, prices: PriceTable, *models: str, batch: bool = False) -> None:
        """`models` are names by which the model may have a price."""
        self._prices = prices
        self._models = models
        self._batch = batch
        self.requests = 0
        self._prompt = self._completion = 0

    def add(self, request: ChatRequest) -> None:
        """Count a request."""
        self.requests += 1
        if self.requests > _ALL and self.requests % _EVERY:
            return
        weight = _EVERY if self.requests > _ALL else 1
        try:
            self._prompt += weight * prompt_tokens(request)
        except ImageProblem:
            # It will fail without being sent.
            return
        self._completion += weight * answer_tokens(request)

    def result(self) -> Estimate:
        """The estimate."""
        cost: float | None = None
        if self._prices.price(*self._models) is not None:
            cost = self._prices.cost(self._models, self._prompt, self._completion)
        return Estimate(self.requests, self._prompt, self._completion, cost, self._batch)


def _short(number: int) -> str:
    """A number with a unit: 1234567 as 1.2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(math.ceil(number))
