"""Recipes that ship with the package load, prompt and train a model of their architecture (a tiny random one)."""

from pathlib import Path
from typing import Any

import pytest
import tiny_llava
import tiny_models
import torch
from PIL import Image

from opadpo.models.base import fetch_base
from opadpo.models.loading import load_model, load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe, preset_names, preset_text
from opadpo.training.logps import pad_sequences, response_logps
from opadpo.training.opadpo import image_mask
from opadpo.training.policy import fresh_adapter

ARCHITECTURES = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "llava-hf/llava-1.5-13b-hf": "llava",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava_onevision",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
}
"""Base model on the hub -> the `model_type` of its config."""
PRESETS = [name for name in preset_names() if name != "toy"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("presets")
    made = {"llava": tiny_llava.save(root / "llava")}
    return made | {name: tiny_models.save(name, root / name) for name in set(ARCHITECTURES.values()) - {"llava"}}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_its_architecture(name: str, folders: dict[str, Path]):
    own = parse_recipe(preset_text(name))
    folder = folders[ARCHITECTURES[own.model.base]]
    small = [f"model.base={folder}", "model.dtype=float32", "model.device=cpu", "train.opa.lora.rank=4"]
    small.append("train.opadpo.lora.rank=4")
    recipe = parse_recipe(preset_text(name), small)
    pin = fetch_base(recipe.model, SilentProgress())
    processing = load_processing(pin, recipe)
    assert processing.template == recipe.prompt.template
    assert processing.aspect == recipe.image.aspect
    assert own.train.opadpo.lora == own.train.opa.lora  # else OPA-DPO could not continue the OPA adapter
    family = processing.family
    base: Any = load_model(pin, recipe, training=True)
    model = fresh_adapter(base, pin, family, recipe.train.opa.lora, recipe.seed)
    sizes = [(48, 40), (36, 60)]
    stage = recipe.train.opa.image_aspect
    prompts = [processing.encode("What is in it?", Image.new("RGB", size, "teal"), stage) for size in sizes]
    mask = image_mask(recipe.train.opadpo, processing)
    inputs = [prompts[0].model_inputs, mask(prompts[1].model_inputs, 3)]
    images = family.collate_model_inputs(inputs)
    responses = [[90, 80, 70], [60, 50]]
    batch = pad_sequences([prompt.input_ids for prompt in prompts], responses, images, pad_token_id=0)
    batch.model_inputs.update(family.sequence_inputs(processing, batch.input_ids))
    model.train()
    logps = response_logps(model, batch)
    logps.sum().backward()
    gradients = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert gradients
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None) > 0
