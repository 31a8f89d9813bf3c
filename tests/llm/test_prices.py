import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from opadpo.llm.estimate import Estimator
from opadpo.llm.prices import BUILT_IN, PriceTable
from opadpo.llm.requests import ChatRequest, Message, Picture
from opadpo.llm.tokens import IMAGE_RULES, Patches, Tiles, image_tokens, text_tokens
from opadpo.recipe.endpoints import PriceSection


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "low", "tokens"),
    [
        # The examples of the provider's page.
        ("gpt-4o", (1024, 1024), False, 765),
        ("gpt-4o-2024-08-06", (2048, 4096), False, 1105),
        ("gpt-4.1", (4096, 8192), True, 85),
        ("gpt-4o", (512, 512), False, 255),
        ("gpt-4o", (513, 512), False, 425),
        ("gpt-4o-mini", (128, 64), False, 8500),
        ("gpt-5", (1024, 1024), False, 630),
        ("gpt-4.1-mini", (1024, 1024), False, math.ceil(1024 * 1.62)),
        ("gpt-4.1-mini", (1800, 2400), False, math.ceil(1452 * 1.62)),
        ("o4-mini", (1800, 2400), True, math.ceil(1452 * 1.72)),
        ("some-local-model", (512, 512), False, 255),
    ],
)
def test_images_count_as_the_provider_publishes(
    tmp_path: Path, model: str, size: tuple[int, int], low: bool, tokens: int
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", size).save(path)
    assert image_tokens(Picture(path, "0", 10_000, detail="low" if low else "high"), model) == tokens


def test_an_image_counts_as_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (2000, 1000)).save(path)
    assert image_tokens(Picture(path, "0", 512), "gpt-4o") == 85 + 170


@given(st.integers(1, 9000), st.integers(1, 9000), st.booleans())
def test_no_image_has_more_tokens_than_the_rules_allow(width: int, height: int, low: bool) -> None:
    for rule in IMAGE_RULES.values():
        tokens = rule.tokens(width, height, low=low)
        if isinstance(rule, Patches):
            assert 0 < tokens <= math.ceil(1536 * rule.factor)
        elif isinstance(rule, Tiles):
            assert rule.base <= tokens <= rule.base + 8 * rule.tile


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The quick brown fox jumps over the lazy dog.", 8, 14),
        ("图中有一只猫，它在睡觉。", 8, 20),
        ("هذا كلب يجري في الحديقة.", 6, 20),
        ("", 0, 0),
    ],
)
def test_texts_of_any_script_count_about_right(text: str, low: int, high: int) -> None:
    assert low <= text_tokens(text) <= high


def test_prices_of_the_recipe_come_first_and_stand_for_a_beginning() -> None:
    table = PriceTable({"gpt-4o": PriceSection(input=1, output=2), "qwen": PriceSection(input=3, output=4)})
    assert table.price("gpt-4o-2024-08-06") == PriceSection(input=1, output=2)
    assert table.price("qwen2.5-vl-72b") == PriceSection(input=3, output=4)
    assert table.price("unknown", "gpt-4.1") == BUILT_IN["gpt-4.1"]


def test_built_in_prices_are_of_their_models_and_dated_versions_only() -> None:
    table = PriceTable()
    assert table.price("gpt-4o-mini-2024-07-18") == BUILT_IN["gpt-4o-mini"]
    assert table.price("gpt-5-pro") is None
    assert table.cost(("gpt-5-pro",), 1000, 1000) == 0


def test_cached_tokens_and_batches_cost_less() -> None:
    assert PriceTable().cost(("gpt-4o",), 1_000_000, 1_000_000) == 12.5
    assert PriceTable().cost(("gpt-4o",), 1_000_000, 0, cached=400_000) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)
    assert PriceTable(factor=0.5).cost(("gpt-4o",), 1_000_000, 1_000_000) == 6.25


def test_an_estimate_of_very_many_requests_looks_at_every_tenth_only(tmp_path: Path) -> None:
    requests = 25_000
    estimator = Estimator(PriceTable(), "gpt-4o")
    request = ChatRequest("gpt-4o", (Message("user", "x" * 400),), max_tokens=1000, expected_tokens=50)
    for _ in range(requests):
        estimator.add(request)
    estimate = estimator.result()
    assert estimate.requests == requests
    assert estimate.prompt_tokens == 104 * requests
    assert estimate.completion_tokens == 50 * requests
    assert estimate.cost_usd == pytest.approx(requests * (104 * 2.5 + 50 * 10) / 1e6)
    assert "about $19.00" in estimate.text
