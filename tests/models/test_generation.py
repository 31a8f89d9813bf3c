"""Sampling: exact, greedy as the library, the same for a row in any batch."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from opadpo.models.base import fetch_base
from opadpo.models.families.base import Processing
from opadpo.models.generation import filtered_logits, generate
from opadpo.models.loading import load_model, load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.records import Sampling

GREEDY = Sampling(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=24)
RANDOM = Sampling(temperature=1.0, top_k=30, top_p=0.95, max_new_tokens=24)
QUESTIONS = ["Describe the image.", "What is in the picture?", "A?", "Is there a dog at the bottom left of it?"]


@pytest.fixture(scope="module")
def loaded(tiny_llava_folder) -> tuple[Any, Processing]:
    recipe = parse_recipe(f"model: {{base: {tiny_llava_folder}, device: cpu}}\nprompt: {{template: toy}}")
    pin = fetch_base(recipe.model, SilentProgress())
    return load_model(pin, recipe), load_processing(pin, recipe)


@pytest.fixture(scope="module")
def rows(loaded):
    _, processing = loaded
    draw = random.Random(0)
    colours = [tuple(draw.randrange(256) for _ in range(3)) for _ in range(12)]
    return [
        (processing.encode(QUESTIONS[i % len(QUESTIONS)], Image.new("RGB", (40, 30), colour)), 1000 + i)
        for i, colour in enumerate(colours)
    ]


@pytest.mark.slow
def test_greedy_is_the_library_s_greedy(loaded, rows):
    model, processing = loaded
    got = generate(model, processing, rows, GREEDY)
    for (prompt, _), response in zip(rows, got, strict=True):
        ids = torch.tensor([prompt.input_ids])
        images = {key: value[None] for key, value in prompt.model_inputs.items()}
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, **images
        )
        assert response.token_ids == whole[0, ids.shape[1] :].tolist()
    assert len({tuple(response.token_ids) for response in got}) > 1


@pytest.mark.slow
def test_a_row_s_sample_does_not_depend_on_its_batch(loaded, rows):
    model, processing = loaded
    together = generate(model, processing, rows, RANDOM)
    alone = [generate(model, processing, [row], RANDOM)[0] for row in rows]
    assert together == alone
    order = random.Random(1).sample(range(len(rows)), len(rows))
    assert generate(model, processing, [rows[i] for i in order], RANDOM) == [together[i] for i in order]
    assert {response.finish_reason for response in together} == {"stop", "length"}


def test_seed_decides_the_sample(loaded, rows):
    model, processing = loaded
    prompt, seed = rows[0]
    first, again, other = (generate(model, processing, [(prompt, s)], RANDOM)[0] for s in (seed, seed, seed + 1))
    assert first == again
    assert first != other


def test_end_of_sequence_is_kept_and_not_shown(loaded, rows):
    model, processing = loaded
    for response in generate(model, processing, rows, RANDOM):
        ended = response.finish_reason == "stop"
        assert (response.token_ids[-1] == processing.tokenizer.eos_token_id) == ended
        assert processing.tokenizer.eos_token_id not in response.token_ids[:-1]
        assert len(response.token_ids) == RANDOM.max_new_tokens or ended
        assert "</s>" not in response.text


@pytest.mark.slow
def test_samples_follow_the_model_s_distribution(loaded, rows):
    """First tokens of many seeds against the filtered probabilities (chi-squared)."""
    model, processing = loaded
    prompt, _ = rows[0]
    one = RANDOM.model_copy(update={"max_new_tokens": 1, "top_k": 6})
    responses = generate(model, processing, [(prompt, seed) for seed in range(3000)], one)
    ids = torch.tensor([prompt.input_ids])
    with torch.inference_mode():
        logits = model(input_ids=torch.LongTensor(ids), **{k: v[None] for k, v in prompt.model_inputs.items()}).logits[
            :, -1
        ]
    expected = filtered_logits(logits, one).softmax(-1)[0] * 3000
    seen = torch.bincount(torch.tensor([r.token_ids[0] for r in responses]), minlength=len(expected))
    kept = expected > 0
    assert seen[~kept].sum() == 0
    chi_squared = ((seen[kept] - expected[kept]) ** 2 / expected[kept]).sum().item()
    assert 2 <= kept.sum() <= 6
    assert chi_squared < 20.5  # exceeded by a right sampler once in a thousand seeds (5 degrees of freedom)


@pytest.mark.slow
@given(
    data=st.data(),
    temperature=st.floats(0.2, 3),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
)
def test_filters_are_those_of_transformers(data, temperature, top_k, top_p):
    from transformers.generation.logits_process import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    values = data.draw(st.lists(st.floats(-8, 8, width=16), min_size=10, max_size=10, unique=True))
    logits = torch.tensor([values])
    library = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    library.extend([TopKLogitsWarper(top_k)] if top_k else [])
    library.extend([TopPLogitsWarper(top_p)] if top_p < 1 else [])
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=1)
    expected = library(torch.LongTensor([[0]]), torch.FloatTensor(logits))
    ordered = logits.double().div(temperature).sort(descending=True).values[0, : top_k or None]
    assume((ordered.softmax(-1).cumsum(-1) - top_p).abs().min() > 1e-5)  # rounding may fall to either side there
    torch.testing.assert_close(filtered_logits(logits, sampling), expected)


def test_every_key_of_the_image_processor_reaches_the_model(loaded, rows):
    """An extra key is not swallowed on the way (here the model refuses it loudly)."""
    model, processing = loaded
    prompt, seed = rows[0]
    more = replace(prompt, model_inputs={**prompt.model_inputs, "image_sizes": torch.tensor([32, 32])})
    seen = {}
    original = model.forward
    model.forward = lambda **inputs: seen.update(inputs) or original(**{**inputs, "image_sizes": None})
    try:
        generate(model, processing, [(more, seed)], GREEDY.model_copy(update={"max_new_tokens": 1}))
    finally:
        del model.forward
    assert seen["image_sizes"].tolist() == [[32, 32]]
    assert seen["pixel_values"].shape == (1, 3, 32, 32)
