"""Adapters: hashed, checked against base and recipe, put on and taken off."""

import json
import shutil

import pytest
import torch

from opadpo.errors import ModelError
from opadpo.models.adapters import adapter_digest, attach, check_fits, detach, lora_config
from opadpo.models.base import fetch_base
from opadpo.models.families import family_for
from opadpo.models.loading import load_model
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.recipe.training import LoraSection

LORA = LoraSection(rank=4, alpha=8)
LLAVA = family_for("llava")
IDS = torch.tensor([[1, 5, 9, 20]])


@pytest.fixture(scope="module")
def recipe(tiny_llava_folder):
    return parse_recipe(f"model: {{base: {tiny_llava_folder}, device: cpu}}")


@pytest.fixture(scope="module")
def pin(recipe):
    return fetch_base(recipe.model, SilentProgress())


@pytest.fixture
def model(pin, recipe):
    return load_model(pin, recipe)


def save_adapter(folder, pin, recipe, seed=0):
    """An adapter with random weights."""
    from peft import get_peft_model

    adapted = get_peft_model(load_model(pin, recipe), lora_config(pin, LLAVA, LORA))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(pin, recipe, tmp_path_factory):
    return save_adapter(tmp_path_factory.mktemp("adapters") / "a", pin, recipe)


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "a")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_attach_and_detach(model, saved, pin, recipe, tmp_path):
    other = save_adapter(tmp_path / "b", pin, recipe, seed=1)
    before = model(IDS).logits
    first = attach(model, saved, "a")(IDS).logits
    assert not torch.allclose(first, before)
    adapted = attach(load_model(pin, recipe), saved, "a")
    assert torch.equal(adapted(IDS).logits, first)
    second = attach(adapted, other, "b")(IDS).logits
    assert not torch.allclose(second, first)
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
    assert torch.equal(detach(adapted)(IDS).logits, before)


def test_trainable_adapter_of_a_bfloat16_base(pin, recipe, saved):
    half = recipe.model_copy(update={"model": recipe.model.model_copy(update={"dtype": "bfloat16"})})
    adapted = attach(load_model(pin, half), saved, "a", trainable=True)
    trainable = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trainable.items())
    frozen = attach(load_model(pin, half), saved, "a")
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in frozen.parameters())


def test_digest_follows_weights_and_config(saved, folder):
    assert adapter_digest(folder) == adapter_digest(saved)
    edit(folder / "adapter_config.json", lora_alpha=9)
    assert adapter_digest(folder) != adapter_digest(saved)


def test_fits(saved, pin, model):
    check_fits(saved, pin, family=LLAVA, lora=LORA, model=model)


def test_adapter_of_another_base_is_refused(folder, pin):
    edit(folder / "adapter_config.json", revision="0123456789ab")
    with pytest.raises(ModelError, match=r"another base model(.|\n)*0123456789ab"):
        check_fits(folder, pin)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rank": 8}, "r is not"), ({"alpha": 4.0}, "lora_alpha is not"), ({"targets": "all"}, "target_modules is not")],
)
def test_changed_lora_settings_are_refused(saved, pin, change, message):
    with pytest.raises(ModelError, match=message):
        check_fits(saved, pin, family=LLAVA, lora=LORA.model_copy(update=change))


def test_weights_of_another_rank_or_model_are_refused(folder, pin, model):
    edit(folder / "adapter_config.json", r=8)
    with pytest.raises(ModelError, match="another shape"):
        attach(model, folder, "a")
    edit(folder / "adapter_config.json", r=4)
    model.model.language_model.layers = model.model.language_model.layers[:1]
    with pytest.raises(ModelError, match=r"layer that the base model lacks(.|\n)*layers.1"):
        check_fits(folder, pin, model=model)


def test_pickled_damaged_and_foreign_adapters_are_refused(folder):
    weights = folder / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickle"):
        adapter_digest(folder)
    weights.write_bytes(data[:50])
    with pytest.raises(ModelError, match="damaged"):
        check_fits(folder, _pin_of(folder))
    edit(folder / "adapter_config.json", peft_type="IA3")
    with pytest.raises(ModelError, match="not a LoRA adapter"):
        adapter_digest(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        adapter_digest(folder)


def _pin_of(folder):
    """A pin that the adapter names."""
    from opadpo.models.base import BasePin

    config = json.loads((folder / "adapter_config.json").read_text())
    base, revision = config["base_model_name_or_path"], config["revision"]
    return BasePin(base=base, revision=revision, path=base, digest="", family="llava")
