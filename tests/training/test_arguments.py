"""The recipe's settings as transformers.Trainer gets them, and what is refused before anything starts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from opadpo.errors import DependencyMissing, UserError
from opadpo.recipe.training import TrainerSection
from opadpo.training.arguments import check_trainer, endless_warmup, number_of_updates, training_arguments

CPU = torch.device("cpu")


@given(
    examples=st.integers(1, 500),
    batch=st.integers(1, 64),
    epochs=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    limit=st.none() | st.integers(1, 20),
)
def test_updates_cover_the_epochs(examples, batch, epochs, limit):
    section = TrainerSection(batch_size=batch, epochs=epochs, max_steps=limit)
    updates = number_of_updates(section, examples)
    if limit is not None:
        assert updates <= limit
    else:
        assert updates * batch >= examples * epochs > (updates - 1) * batch


def arguments(tmp_path, section, *, processes=1, updates=100):
    return training_arguments(
        section, tmp_path, updates=updates, accumulation=4, processes=processes, device=CPU, seed=3, evaluate=False,
        unused_parameters=False,
    )  # fmt: skip


def test_accumulation_makes_the_batch(tmp_path):
    made = arguments(tmp_path, TrainerSection(batch_size=32, micro_batch_size=8))
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (1, 4)  # items are micro-batches
    assert made.per_device_eval_batch_size == 8
    small = arguments(tmp_path, TrainerSection(batch_size=4, micro_batch_size=8))
    assert small.per_device_eval_batch_size == 4
    assert small.report_to == []
    assert not small.logging_nan_inf_filter


@pytest.mark.parametrize(
    ("settings", "kind", "steps"),
    [
        ({"schedule": "cosine", "warmup_ratio": 0.03}, "cosine", 3),
        ({"schedule": "linear", "warmup_steps": 5}, "linear", 5),
        ({"schedule": "constant"}, "constant", 0),
        ({"schedule": "constant", "warmup_steps": 2}, "constant_with_warmup", 2),
    ],
)
def test_schedules(tmp_path, settings, kind, steps):
    made = arguments(tmp_path, TrainerSection(**settings))
    assert made.lr_scheduler_type == kind
    assert made.get_warmup_steps(100) == math.ceil(steps)


def test_a_warm_up_that_never_ends_is_told(tmp_path):
    section = TrainerSection(learning_rate=1e-3, warmup_steps=4)
    told = endless_warmup("opa", section, 4)
    assert told is not None
    assert told.startswith("train.opa: 4 warm-up updates of 4 updates")
    for updates, reached in ((4, False), (5, True)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        schedule = get_scheduler("linear", optimizer, int(arguments(tmp_path, section).warmup_steps), updates)
        rates = []
        for _ in range(updates):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert (max(rates) == 1e-3) == reached
        assert (endless_warmup("opa", section, updates) is None) == reached


def test_what_is_missing_is_named():
    with pytest.raises(DependencyMissing, match="adamw_8bit needs a CUDA GPU"):
        check_trainer(TrainerSection(optimizer="adamw_8bit"), CPU)
    with pytest.raises(DependencyMissing, match="float16 needs a CUDA GPU"):
        check_trainer(TrainerSection(precision="float16"), CPU)
    with pytest.raises(DependencyMissing, match="pip install comet_ml"):
        check_trainer(TrainerSection(report_to=["comet_ml"]), CPU)
    with pytest.raises(UserError, match="does not know"):
        check_trainer(TrainerSection(report_to=["paper"]), CPU)
    check_trainer(TrainerSection(), CPU)


def test_deepspeed_may_not_take_the_adapter_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    check_trainer(TrainerSection(), CPU)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(UserError, match=r"(?s)ZeRO stage 3 is not supported.*zero_stage to 2"):
        check_trainer(TrainerSection(), CPU)
    config = tmp_path / "ds.json"
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(config))
    config.write_text('{"zero_optimization": {"stage": 2}}')
    check_trainer(TrainerSection(), CPU)
    config.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(UserError, match="ZeRO stage 3"):
        check_trainer(TrainerSection(), CPU)
    config.write_text("zero: 3")
    with pytest.raises(UserError, match="DeepSpeed's configuration cannot be read"):
        check_trainer(TrainerSection(), CPU)
