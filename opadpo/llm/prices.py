"""What models cost: the prices that ship with the package, and those of the recipe before them."""

import re
from collections.abc import Mapping

from opadpo.recipe.endpoints import PriceSection

AS_OF = "2026-03"
"""Month in which the prices below were current."""
SOURCE = "https://platform.openai.com/docs/pricing"
"""Where the provider publishes them."""


def _price(given: float, output: float, cached: float | None = None) -> PriceSection:
    return PriceSection(input=given, output=output, cached_input=cached)


BUILT_IN = {
    "gpt-4-turbo": _price(10.00, 30.00),
    "gpt-4.1": _price(2.00, 8.00, 0.50),
    "gpt-4.1-mini": _price(0.40, 1.60, 0.10),
    "gpt-4.1-nano": _price(0.10, 0.40, 0.025),
    "gpt-4o": _price(2.50, 10.00, 1.25),
    "gpt-4o-mini": _price(0.15, 0.60, 0.075),
    "gpt-5": _price(1.25, 10.00, 0.125),
    "gpt-5-mini": _price(0.25, 2.00, 0.025),
    "gpt-5-nano": _price(0.05, 0.40, 0.005),
    "gpt-5.1": _price(1.25, 10.00, 0.125),
    "gpt-5.4": _price(2.50, 15.00),
    "o1": _price(15.00, 60.00, 7.50),
    "o3": _price(2.00, 8.00, 0.50),
    "o4-mini": _price(1.10, 4.40, 0.275),
}
"""US dollars per million tokens; without a price for cached tokens they count in full."""

_DATED = re.compile(r"-\d{4}(-\d{2}-\d{2})?$")
_MILLION = 1_000_000


class PriceTable:
    """Prices by model; the recipe's first."""

    def __init__(self, prices: Mapping[str, PriceSection] | None = None, *, factor: float = 1.0) -> None:
        """`prices` are the recipe's; `factor` scales all (the batch service costs half)."""
        self._prices = dict(prices or {})
        self._factor = factor

    def price(self, *models: str) -> PriceSection | None:
        """The price of the first of these names that has one; None if none has.

        A name in the recipe stands for all that begin with it, the longest first. A built-in one stands for itself
        and its dated versions only: `gpt-5-pro` is not `gpt-5`.
        """
        for model in models:
            named = [name for name in self._prices if model.startswith(name)]
            if named:
                return self._prices[max(named, key=len)]
            built_in = BUILT_IN.get(_DATED.sub("", model))
            if built_in is not None:
                return built_in
        return None

    def cost(self, models: tuple[str, ...], prompt: int, completion: int, *, cached: int = 0) -> float:
        """US dollars for so many tokens, `cached` of those of the prompt from the server's cache; 0 without a price."""
        price = self.price(*models)
        if price is None:
            return 0.0
        cached = min(cached, prompt)
        cheap = price.input if price.cached_input is None else price.cached_input
        total = (prompt - cached) * price.input + cached * cheap + completion * price.output
        return total / _MILLION * self._factor
