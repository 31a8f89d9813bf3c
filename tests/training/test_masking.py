"""Masked images have the released structure, and depend on a seed alone."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.errors import UserError
from opadpo.training.masking import mask_image

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "image_masking.json").read_text())["cases"]
MODES: dict[str, Literal["pixels", "patches"]] = {"random": "pixels", "blockwise": "patches"}


def image_of(case: dict) -> torch.Tensor:
    """The case's image, or a random one of its shape where the vectors give only counts."""
    shape = case["shape"][1:]
    if "image_row_major" in case:
        return torch.tensor(case["image_row_major"], dtype=torch.float32).view(shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, case["dtype"]))


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['shape'][2]}-{c['ratio']}-{c['method']}-{c['dtype']}")
def test_structure_of_the_released_code(case):
    image = image_of(case)
    before = image.clone()
    masked = mask_image(image, case["ratio"], MODES[case["method"]], seed=3)
    assert torch.equal(image, before)
    assert masked.dtype == image.dtype
    changed = masked != image
    places = changed.any(0)
    if case["dtype"] == "float32":
        assert int(places.sum()) == case["masked_positions"]
        assert torch.equal(changed.all(0), places)
    else:  # in bfloat16 some pixels equal the mean by chance
        assert 0.98 * case["masked_positions"] < int(places.sum()) <= case["masked_positions"]
    if case["ratio"]:
        assert masked[changed].unique().tolist() == [image.mean().item()]
    if "image_row_major" in case:
        assert masked[changed].unique().item() == pytest.approx(case["distinct_fill_values"][0], abs=1e-7)
    if MODES[case["method"]] == "patches":
        blocks = places.unfold(0, 14, 14).unfold(1, 14, 14).flatten(2).float().mean(-1)
        assert int((blocks == 1).sum()) == case["blocks_fully_masked"]
        assert int(((blocks > 0) & (blocks < 1)).sum()) == case["blocks_partly_masked"]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    ratio=st.floats(0, 1),
    mode=st.sampled_from(["pixels", "patches"]),
    global_seed=st.integers(0, 100),
)
def test_places_depend_on_the_seed_alone(seed, ratio, mode, global_seed):
    image = torch.randn(3, 8, 12, generator=torch.Generator().manual_seed(1))
    first = mask_image(image, ratio, mode, 4, seed=seed)
    torch.manual_seed(global_seed)
    state = torch.get_rng_state()
    again = mask_image(2 * image.double(), ratio, mode, 4, seed=seed)
    assert torch.equal(first != image, again != 2 * image.double())
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_draws_another_mask():
    image = torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(1))
    draws = {tuple((mask_image(image, 0.3, seed=s) != image).any(0).flatten().tolist()) for s in range(5)}
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 30, 28), {"mode": "patches"}, "30 x 28 with patches of 14"),
        ((1, 3, 28, 28), {}, "(1, 3, 28, 28)"),
        ((3, 28, 28), {"ratio": 1.5}, "1.5"),
    ],
)
def test_images_that_cannot_be_masked(shape, options, message):
    with pytest.raises(UserError) as caught:
        mask_image(torch.zeros(shape), **{"ratio": 0.3, "seed": 0, **options})
    assert message in str(caught.value)


def test_integer_images_are_refused():
    with pytest.raises(UserError, match="uint8"):
        mask_image(torch.zeros(3, 28, 28, dtype=torch.uint8), 0.3, seed=0)
