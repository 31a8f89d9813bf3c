"""What a training run is said to need, and what is done about it."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_llava
import tiny_models
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from opadpo.errors import ModelError, UserError
from opadpo.models.base import BasePin
from opadpo.models.families import family_for
from opadpo.models.published import PUBLISHED, planned_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe, preset_names, preset_text
from opadpo.recipe.training import LoraSection
from opadpo.steps.train import train
from opadpo.training import fitting
from opadpo.training.fitting import Memory, demand_planned, fit, largest_micro_batch
from opadpo.training.memory import GIB, Demand, Stage, batch_shape, estimate
from opadpo.training.policy import fresh_adapter

pytestmark = pytest.mark.slow

DEMAND = Demand(200, 150, 576, {"standard": 40, "revised": 50, "generated": 60})
LORA = "{rank: 8, alpha: 8, targets: all}"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    tiny_llava.save(folder / "llava")
    tiny_models.save("qwen2_5_vl", folder / "qwen2_5_vl")
    return {name: AutoConfig.from_pretrained(folder / name) for name in ("llava", "qwen2_5_vl")}


def stage(config, *, continued=True, overrides=()):
    recipe = parse_recipe(f"train: {{opa: {{lora: {LORA}}}, opadpo: {{lora: {LORA}}}}}", overrides=overrides)
    return Stage(recipe, recipe.train.opadpo, config, continued)


class Heard(SilentProgress):
    def __init__(self):
        super().__init__()
        self.said, self.warned = [], []

    def say(self, message):
        self.said.append(message)

    def warn(self, message):
        self.warned.append(message)


@pytest.mark.parametrize("base", PUBLISHED)
def test_published_sizes_add_up_to_the_published_number_of_parameters(base):
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(PUBLISHED[base].config())
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    assert count == pytest.approx(PUBLISHED[base].parameters, abs=0.005)


def test_every_recipe_of_the_package_can_be_planned_without_its_weights(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in preset_names():
        recipe = parse_recipe(preset_text(name))
        demand = demand_planned(recipe, planned_processing(recipe))
        assert demand.prompt > demand.image_tokens > 0
        assert demand.patches > 0
    with pytest.raises(ModelError, match="hf download nobody/nothing"):
        planned_processing(parse_recipe("model: {base: nobody/nothing}"))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_what_has_a_formula_is_counted_to_the_byte(configs, family):
    config = configs[family]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config).requires_grad_(False)
        weights = sum(parameter.nbytes for parameter in model.parameters())
        pin = BasePin(base="", revision="", path="", digest="", family=family)
        lora = LoraSection(rank=8, alpha=8, targets="all")
        adapted = fresh_adapter(model, pin, family_for(family), lora, 0)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    found = estimate(stage(config, continued=False), DEMAND, gpu=False)
    assert found.weights == weights
    assert (found.adapters, found.gradients, found.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    continued = estimate(stage(config), DEMAND, gpu=False)
    assert continued.adapters == 8 * trained  # the reference is a frozen copy
    assert continued.gradients < found.gradients  # the tower is frozen


def test_the_shape_of_a_batch(configs):
    made = stage(configs["llava"])
    assert batch_shape(made, DEMAND, 1).rows == ((200, (40, 50, 60)), (200, (40, 50)))
    plain = batch_shape(made.with_settings(packing=False), DEMAND, 2).rows
    assert plain == ((200, (40,)), (200, (50,)), (200, (60,)), (200, (40,)), (200, (50,))) * 2


def test_settings_that_save_memory_do(configs):
    made = stage(configs["llava"])

    def held(changed, micro=None):
        found = estimate(changed, DEMAND, gpu=True, micro_batch_size=micro)
        return found.activations

    assert held(made.with_settings(gradient_checkpointing=True)) < held(made) < held(made.with_settings(packing=False))
    assert held(made, 8) == pytest.approx(8 * held(made, 1), rel=0.05)
    assert held(made.with_settings(precision="bfloat16").with_model(dtype="bfloat16")) < held(made)
    quantized = estimate(made.with_model(quantization="4bit"), DEMAND, gpu=True)
    eight = estimate(made.with_settings(optimizer="adamw_8bit"), DEMAND, gpu=True)
    before = estimate(made, DEMAND, gpu=True)
    assert quantized.weights < before.weights
    assert eight.optimizer == pytest.approx(before.optimizer / 4, rel=0.02)


def test_sharding_divides_what_is_kept(configs):
    whole = estimate(stage(configs["llava"], overrides=["train.processes=4"]), DEMAND, gpu=True)
    sharded = stage(configs["llava"], overrides=["train.processes=4", "train.sharding=fsdp"])
    part = estimate(sharded, DEMAND, gpu=True)
    for name in ("weights", "adapters", "gradients", "optimizer"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name) / 4, abs=1)


def test_the_largest_micro_batch_divides_the_batch_and_fits(configs):
    made = stage(configs["llava"], overrides=["train.opadpo.batch_size=12", "train.opadpo.micro_batch_size=12"])
    needs = {size: estimate(made, DEMAND, gpu=True, micro_batch_size=size).total for size in (1, 2, 3, 4, 6, 12)}
    for size, total in needs.items():
        assert largest_micro_batch(made, DEMAND, Memory("test", round(total / fitting.CLOSE) + 1, gpu=True)) == size
    assert largest_micro_batch(made, DEMAND, Memory("test", needs[1] // 2, gpu=True)) == 0
    advice = fit(made, DEMAND, Memory("test", round(needs[4] / fitting.CLOSE) + 1, gpu=True)).advice()
    assert advice[0].startswith("set train.opadpo.micro_batch_size to 4 (")
    assert any("gradient_checkpointing to true" in line for line in advice)


def test_with_a_budget_of_tokens_the_advice_is_a_smaller_budget(configs):
    sizes = {"batch_size": 12, "micro_batch_size": 12, "micro_batch_tokens": 8000}
    settings = [f"train.opadpo.{name}={value}" for name, value in sizes.items()]
    made = stage(configs["llava"], overrides=settings)
    four = estimate(made, DEMAND, gpu=True, micro_batch_size=4).total
    found = fit(made, DEMAND, Memory("test", round(four / fitting.CLOSE) + 1, gpu=True))
    assert found.examples == 12  # 640 tokens each
    assert str(found).endswith("with micro_batch_tokens 8000")
    assert found.advice()[0].startswith("set train.opadpo.micro_batch_tokens to 2560 (")
    assert not any("micro_batch_size" in line for line in found.advice())


def test_a_training_that_cannot_fit_is_refused_before_weights_are_loaded(trainable, monkeypatch):
    monkeypatch.setattr(fitting, "memory_at_hand", lambda device, processes: Memory("RAM", GIB // 100, gpu=False))
    monkeypatch.setattr("opadpo.training.run.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match="does not fit into memory") as caught:
        train(trainable.open(), "opadpo", name="too-large", progress=SilentProgress())
    assert "GiB" in str(caught.value.seen)
    assert "train.ignore_memory_estimate" in str(caught.value.remedy)


def test_what_is_needed_is_said_and_a_refusal_can_be_overridden(trainable, monkeypatch):
    heard = Heard()
    workspace = trainable.open("train.opadpo.max_steps=1", "train.ignore_memory_estimate=true")
    train(workspace, "opadpo", name="said", progress=heard)
    assert [line for line in heard.said if line.startswith("Memory: train.opadpo needs about")]
    monkeypatch.setattr(fitting, "memory_at_hand", lambda device, processes: Memory("RAM", GIB // 100, gpu=False))
    train(workspace, "opadpo", name="overridden", progress=heard)
    assert [line for line in heard.warned if line.startswith("Memory is short")]


@pytest.mark.timeout(900)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak():
    names = ["opadpo", "opa, tower trained, checkpointing, batch 4"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "memory_estimate.py"), *names], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n| op") == 2
