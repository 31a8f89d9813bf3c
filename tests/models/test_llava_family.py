"""LLaVA-1.5: prompts and pixels as the original makes them, adapter targets."""

import re
from typing import Any

import numpy as np
import pytest
import tiny_llava
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from opadpo.errors import ModelError, UserError
from opadpo.models.base import fetch_base
from opadpo.models.families.base import Processing
from opadpo.models.families.llava import Llava
from opadpo.models.loading import load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
    " and polite answers to the user's questions. USER: <image>\nWhat is in the picture? ASSISTANT:"
)
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def load(folder, *lines):
    recipe = parse_recipe("\n".join([f"model: {{base: {folder}, device: cpu}}", *lines]))
    return load_processing(fetch_base(recipe.model, SilentProgress()), recipe)


@pytest.fixture(scope="module")
def processing(tiny_llava_folder) -> Processing:
    return load(tiny_llava_folder)


@pytest.fixture(scope="module")
def toy(tiny_llava_folder) -> Processing:
    return load(tiny_llava_folder, "prompt: {template: toy}")


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_vicuna_prompt_is_the_original_s(processing):
    """One begin-of-sequence first; text before and after the image tokenized apart, as LLaVA's own code does."""
    tokenizer = processing.tokenizer
    before, after = VICUNA.split("<image>")
    bos, image = tokenizer.bos_token_id, 3
    expected = [
        *tokenizer(before)["input_ids"],
        *[image] * tiny_llava.IMAGE_TOKENS,
        *tokenizer(after)["input_ids"][1:],
    ]
    got = processing.encode("What is in the picture?", noise(40, 30))
    assert got.input_ids == expected
    assert got.input_ids[0] == bos
    assert bos not in got.input_ids[1:]
    assert got.text_tokens == len(expected) - tiny_llava.IMAGE_TOKENS


def test_a_llama_tokenizer_gives_the_newline_after_the_image_its_own_space():
    """In the original, `USER: ` ends in a lone space token and the newline after the image begins with another."""
    from transformers import LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", "▁", "\n", "U", "S", "E", "R", ":", "Q", "?", "A", "I", "T", "N"]
    tokenizer = LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})

    class Config:
        image_token_id = tokenizer.convert_tokens_to_ids("<image>")

    made = Processing(Llava(), tokenizer, None, Config(), "toy", "pad")
    tokens = tokenizer.convert_ids_to_tokens(made.family.text_ids(made, "Q?"))
    assert tokens == [
        *("<s>", "▁", "U", "S", "E", "R", ":", "▁"),
        *("<image>", "▁", "\n", "Q", "?", "▁", "A", "S", "S", "I", "S", "T", "A", "N", "T", ":"),
    ]


def test_toy_prompt_is_the_library_processor_s(toy):
    from transformers import LlavaProcessor

    library: Any = LlavaProcessor(
        image_processor=toy.image_processor,
        tokenizer=toy.tokenizer,
        patch_size=tiny_llava.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    text = "USER: <image>\nDescribe the image. ASSISTANT:"
    image = noise(32, 32)
    expected = library(images=image, text=text, return_tensors="pt")
    got = toy.encode("Describe the image.", image)
    assert got.input_ids == expected["input_ids"][0].tolist()
    torch.testing.assert_close(got.model_inputs["pixel_values"], expected["pixel_values"][0], rtol=0, atol=0)


@given(question=st.text(max_size=60) | st.sampled_from(["<image>", "</s><s>", "{question}", "a <image> b"]))
def test_a_question_never_makes_special_tokens(toy, question):
    ids = toy.family.text_ids(toy, question)
    assert ids.count(3) == 1
    assert ids.count(1) == 1
    assert 2 not in ids


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_response_survives_encoding(toy, text):
    encoded = toy.family.encode_response(toy, text)
    assert toy.family.decode(toy, encoded.input_ids) in (text, text.removeprefix(" "))
    assert len(encoded.offsets) == len(encoded.input_ids)
    assert all(0 <= start <= end <= len(text) for start, end in encoded.offsets)


def expand_and_normalise(image, side, crop):
    """The original's geometry in plain numpy and Pillow: mean-colour square, bicubic resize, centre crop, scale."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    if not crop:
        longest = max(height, width)
        square = np.empty((longest, longest, 3), dtype=np.uint8)
        square[:] = [int(channel * 255) for channel in MEAN.astype(float)]
        top, left = (longest - height) // 2, (longest - width) // 2
        square[top : top + height, left : left + width] = pixels
        pixels = square
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    size = (int(side * width / shorter), int(side * height / shorter))
    pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    pixels = pixels[top : top + side, left : left + side].astype(np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("aspect", ["pad", "square"])
@settings(max_examples=15)
@given(width=st.integers(20, 90), height=st.integers(20, 90))
def test_pixels_are_the_original_s(processing, aspect, width, height):
    image = noise(width, height)
    got = processing.encode("A?", image, aspect).model_inputs["pixel_values"]
    expected = expand_and_normalise(image, tiny_llava.IMAGE_SIDE, crop=aspect == "square")
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)


def test_native_follows_the_model_s_own_config(processing):
    image = noise(70, 40)
    native = processing.encode("A?", image, "native").model_inputs["pixel_values"]
    square = processing.encode("A?", image, "square").model_inputs["pixel_values"]
    pad = processing.encode("A?", image, "pad").model_inputs["pixel_values"]
    assert torch.equal(native, square)
    assert not torch.equal(native, pad)


def test_unknown_template_lists_the_known_ones(tiny_llava_folder):
    with pytest.raises(UserError, match=r"seen: chatml(.|\n)*toy, vicuna_v1"):
        load(tiny_llava_folder, "prompt: {template: chatml}")


@pytest.mark.parametrize("targets", ["language", "all"])
def test_lora_targets_are_exactly_the_linear_layers(targets):
    model = tiny_llava.make_model(tiny_llava.make_tokenizer())
    pattern = re.compile(Llava().lora_targets(targets))
    hit = {name for name, _ in model.named_modules() if pattern.fullmatch(name)}
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    expected = linear - {"lm_head"}
    if targets == "language":
        expected = {name for name in expected if name.startswith("model.language_model.")}
    assert hit == expected
    assert len(hit) == (14 if targets == "language" else 28)


def test_rows_with_other_keys_are_not_batched(processing):
    with pytest.raises(ModelError, match="different keys"):
        processing.family.collate_model_inputs([{"pixel_values": torch.ones(1)}, {"image_sizes": torch.ones(1)}])
