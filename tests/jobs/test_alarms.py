"""Alarms: what must be told is told once, and ordinary training is quiet."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.jobs.alarms import Alarms
from opadpo.recipe.jobs import AlarmsSection

LOSS = {"anchor": "chosen_up", "anchor_coef": 1.0}


def told(lines, **changed):
    alarms = Alarms(AlarmsSection(**changed), LOSS)
    return [alarm for line in lines for alarm in alarms.metrics({"run": "opadpo", **line}, 1.0)]


def training(seed, *, updates=300, noise=0.05, chosen=0.001, rejected=-0.003):
    """A loss that falls to a third, and rewards with a slope per update."""
    numbers = random.Random(seed)
    return [
        {
            "step": step,
            "loss": 0.5 + math.exp(-step / 80) + numbers.gauss(0, noise),
            "rewards/chosen": chosen * step + numbers.gauss(0, noise),
            "rewards/rejected": rejected * step + numbers.gauss(0, noise),
        }
        for step in range(1, updates + 1)
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.001, 0.3), st.sampled_from([-0.0, 0.001, 0.02]))
def test_ordinary_training_is_quiet(seed, noise, chosen):
    assert told(training(seed, noise=noise, chosen=chosen)) == []


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(30, 200))
def test_rewards_that_fall_together_are_told_once_with_a_stronger_anchor(seed, turn):
    lines = training(seed, noise=0.02)
    for line in lines[turn:]:
        line["rewards/chosen"] = -0.05 * (line["step"] - turn)
        line["rewards/rejected"] -= 0.05 * (line["step"] - turn)
    (alarm,) = told(lines)
    assert alarm.kind == "rewards_falling"
    assert turn - 20 <= alarm.step <= turn + 25
    assert alarm.key == {"set": "train.opadpo.loss.anchor_coef=2"}
    assert told(lines, falling_steps=0) == []


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(20, 250))
def test_a_loss_that_explodes_is_told_and_a_spike_is_not(seed, turn):
    lines = training(seed)
    lines[turn]["loss"] = 1000.0
    assert told(lines) == []
    for line in lines[turn:]:
        line["loss"] = 50.0
    (alarm,) = told(lines, stop_on=["exploding"])
    assert (alarm.kind, alarm.stopped) == ("exploding", True)
    assert turn < alarm.step <= turn + 6


def test_numbers_that_are_not_finite():
    (alarm,) = told(
        [{"step": 1, "loss": 1.0}, {"step": 2, "not_finite": ["loss"]}, {"step": 3, "not_finite": ["loss"]}]
    )
    assert (alarm.kind, alarm.step, alarm.run) == ("not_finite", 2, "opadpo")
    skipped = {"loss": 1.0, "not_finite": ["grad_norm"]}  # float16 finds its scale
    assert told([{"step": 1, **skipped}, {"step": 2, **skipped}, {"step": 3, "loss": 1.0}]) == []
    assert [each.step for each in told([{"step": step, **skipped} for step in range(1, 9)])] == [3]
    refused = Alarms(AlarmsSection(), LOSS).refused({"step": 7, "what": "gradient"}, 1.0)
    assert [each.what for each in refused] == ["The gradient is not finite at update 7."]


def test_usage_alarms_come_once_per_episode():
    alarms = Alarms(AlarmsSection(idle_minutes=1, disk_free_gb=2), LOSS)

    def sample(at, busy, free):
        gpus = [{"index": 0, "utilization": busy}, {"index": 1, "utilization": 99.0}]
        return [each.kind for each in alarms.usage({"at": float(at), "gpus": gpus, "disk_free": free})]

    assert [sample(at, 0.0, 1e12) for at in range(0, 60, 5)] == [[]] * 12
    assert sample(60, 0.0, 1e12) == ["gpu_idle"]
    assert [sample(at, 0.0, 1e12) for at in range(65, 300, 5)] == [[]] * 47
    assert sample(300, 50.0, 1e12) == []
    again = [kind for at in range(305, 500, 5) for kind in sample(at, 0.0, 1e12)]
    assert again == ["gpu_idle"]
    assert [sample(500 + at, 50.0, free) for at, free in ((0, 1e9), (5, 2.1e9), (10, 1e9))] == [["disk_full"], [], []]
    assert sample(600, 50.0, 1e12) == []
    assert sample(605, 50.0, 1e9) == ["disk_full"]


def test_stillness():
    alarms = Alarms(AlarmsSection(no_progress_minutes=2), LOSS)
    assert [bool(alarms.stillness(0.0, at)) for at in (100.0, 121.0, 122.0)] == [False, True, False]


@pytest.mark.parametrize(("loss", "setting"), [({"anchor": None}, "anchor=chosen_up"), ({}, "anchor=chosen_up")])
def test_the_remedy_fits_the_runs_anchor(loss, setting):
    alarms = Alarms(AlarmsSection(), loss)
    lines = [{"step": s, "rewards/chosen": -s / 10, "rewards/rejected": -s / 5} for s in range(1, 40)]
    (alarm,) = [alarm for line in lines for alarm in alarms.metrics(line, 1.0)]
    assert alarm.key == {"set": f"train.opadpo.loss.{setting}"}
