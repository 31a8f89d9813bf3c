"""The reference's log-probs, computed once: what training makes of them is what it makes of those of the step."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from opadpo.errors import DiskFull
from opadpo.progress import SilentProgress
from opadpo.steps.train import train
from opadpo.training.examples import Response, TrainingExample
from opadpo.training.reference import FINGERPRINT_FILE, data_digest

RELEASED = [f"train.opadpo.loss.{setting}" for setting in ("reduction=token", "anchor=released", "image_coef=0.2")]

DEADLY = Path(__file__).with_name("deadly.py")


def run(workspace, name, progress=None, **options):
    """Train from the beginning, with the reference's rows that are there: (computed, reused)."""
    shutil.rmtree(workspace.adapter(name), ignore_errors=True)
    for checkpoint in workspace.run(name).glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    counts = train(workspace, "opadpo", name=name, progress=progress or SilentProgress(), **options).counts
    return counts.get("reference_computed", 0), counts.get("reference_reused", 0)


def outcome(workspace, name):
    lines = [json.loads(line) for line in (workspace.run(name) / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in lines]
    return load_file(workspace.adapter(name) / "adapter_model.safetensors"), lines


def assert_the_same(one, other):
    """Not within a tolerance."""
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for key, value in one[0].items():
        assert torch.equal(value, other[0][key]), key


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "resample"), [("packed", "epoch"), ("plain", "epoch"), ("packed", "never")])
def test_stored_or_computed_in_the_step_training_is_the_same_to_the_last_bit(trainable, layout, resample):
    """Over several epochs, in whose batches an example meets others; with dropout, and held-out examples."""
    shared = [
        *RELEASED,
        f"train.opadpo.packing={str(layout == 'packed').lower()}",
        f"train.opadpo.masking.resample={resample}",
        "train.opadpo.eval_share=0.25",
        "train.opadpo.eval_steps=3",
        "train.opadpo.max_steps=6",
        "train.opadpo.epochs=3",
        "train.opadpo.micro_batch_size=2",
    ]
    made, ends = {}, {}
    for mode in ("cached", "on_the_fly"):
        name = f"{mode}-{layout}-{resample}"
        workspace = trainable.open(*shared, f"train.opadpo.reference={mode}")
        made[mode] = run(workspace, name)
        ends[mode] = outcome(workspace, name)
    assert_the_same(ends["cached"], ends["on_the_fly"])
    assert made["on_the_fly"] == (0, 0)
    masked = 24 if resample == "epoch" else 9
    assert made["cached"] == (9 + masked + 2 * 3, 0)  # 24 visits of 9 examples; 3 held out


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_log_ratio_is_zero_before_the_first_update(trainable, precision):
    workspace = trainable.open(
        f"train.opadpo.precision={precision}", "train.opadpo.micro_batch_size=2", "train.opadpo.max_steps=1"
    )
    name = f"zero-{precision}"
    assert run(workspace, name) == (8, 0)
    (first,) = outcome(workspace, name)[1]
    assert {first[key] for key in ("kl", "rewards/chosen", "rewards/rejected", "rewards/margins")} == {0.0}


def told(progress):
    """What was said of stored log-probs."""
    return [message for message in progress.messages if "reference" in message]


@pytest.mark.slow
def test_what_is_stored_is_used_again_unless_something_changed_that_it_depends_on(trainable):
    workspace = trainable.open("train.opadpo.max_steps=3")
    assert run(workspace, "again") == (24, 0)
    whole = outcome(workspace, "again")
    assert run(trainable.open("train.opadpo.max_steps=3", "train.opadpo.learning_rate=0.005"), "again") == (0, 24)
    assert run(workspace, "again") == (0, 24)
    assert_the_same(outcome(workspace, "again"), whole)
    assert run(trainable.open("train.opadpo.max_steps=4"), "again") == (4, 24)  # four visits of the next epoch
    changes = {
        "train.opadpo.masking.ratio=0.5": "masking.ratio was 0.3, is now 0.5",
        "train.opadpo.packing=false": "packing was true, is now false",
        "train.opadpo.precision=bfloat16": 'precision was "float32", is now "bfloat16"',
        "seed=7": "seed was 0, is now 7",
        "train.opadpo.loss.standard_pair_coef=0": None,
    }
    for change, why in changes.items():
        progress = SilentProgress()
        settings = ["train.opadpo.max_steps=1", *([] if why else ["train.opadpo.loss.anchor=null"])]
        assert run(trainable.open(*settings, change), "again", progress)[1] == 0, change
        (message,) = told(progress)
        assert "runs/again/reference are computed anew" in message
        assert (why or "responses was") in message
    progress = SilentProgress()
    run(trainable.open("train.opadpo.max_steps=1"), "again", progress, start="base")
    assert 'is now "base"' in told(progress)[0]


@pytest.mark.slow
def test_damage_is_computed_again(trainable):
    workspace = trainable.open("train.opadpo.max_steps=3")
    run(workspace, "damaged")
    whole = outcome(workspace, "damaged")
    folder = workspace.run("damaged") / "reference"
    (file,) = folder.glob("*.rows")
    file.write_bytes(file.read_bytes()[:-1])
    assert run(workspace, "damaged") == (1, 23)
    assert_the_same(outcome(workspace, "damaged"), whole)
    (folder / FINGERPRINT_FILE).write_text("{")
    progress = SilentProgress()
    assert run(workspace, "damaged", progress) == (24, 0)
    assert f"{FINGERPRINT_FILE} is not readable" in told(progress)[0]


class FullAfterOneBatch(SilentProgress):
    """The disk takes no more once the first rows are written."""

    @contextmanager
    def task(self, description, total, *, done=0):
        class Task:
            def advance(self, amount: int = 1) -> None:
                if description.startswith("reference"):
                    resource.setrlimit(resource.RLIMIT_FSIZE, (2_500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

            def note(self, text: str) -> None:
                del text

        yield Task()


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_written(trainable):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    workspace = trainable.open("train.opadpo.max_steps=3", "train.opadpo.micro_batch_size=2")
    try:
        with pytest.raises(DiskFull, match=r"full-reference/reference(.|\n)*free some space"):
            run(workspace, "full-reference", FullAfterOneBatch())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not workspace.adapter("full-reference").exists()
    computed, reused = run(workspace, "full-reference")
    assert reused >= 4
    assert computed + reused == 24


@pytest.mark.slow
def test_killed_again_and_again_it_goes_on_and_ends_the_same(trainable):
    shared = [*RELEASED, "train.opadpo.micro_batch_size=1", "train.opadpo.epochs=2", "train.opadpo.max_steps=6"]
    workspace = trainable.open(*shared)
    sizes = []
    rows = workspace.run("ref-killed") / "reference" / "process-00000.rows"
    for _ in range(2):
        command = [sys.executable, str(DEADLY), str(workspace.root), "ref-killed", "reference", "7"]
        died = subprocess.run([*command, *workspace.overrides], check=False)
        assert died.returncode == -signal.SIGKILL
        rows.write_bytes(rows.read_bytes()[:-3])  # as a power cut would
        sizes.append(rows.stat().st_size)
    computed, reused = run(workspace, "ref-killed")
    assert sizes[0] < sizes[1] < rows.stat().st_size
    assert 2 <= reused < computed + reused == 12 + 24
    assert run(workspace, "ref-whole") == (12 + 24, 0)
    assert_the_same(outcome(workspace, "ref-killed"), outcome(workspace, "ref-whole"))


def example(**changes):
    ids = np.arange(3, dtype=np.int32)
    ones = np.ones(3, dtype=np.float32)
    made = TrainingExample("e-1", "What?", Path("a.png"), 9, {"generated": Response(ids, ones, ones)})
    return dataclasses.replace(made, **changes)


def test_what_the_data_digest_depends_on():
    def digest(*examples):
        return data_digest(examples, ["generated"])

    other = example(example_id="e-2")
    assert digest(example(), other) == digest(other, example())
    assert digest(example()) == digest(example(image=Path("elsewhere/a.png")))
    response = example().responses["generated"]
    heavier = response._replace(score=response.score * 2)
    assert digest(example()) == digest(example(responses={"generated": heavier}))
    changed = response._replace(ids=response.ids + 1)
    different = [
        example(question="Who?"),
        example(image=Path("b.png")),
        example(prompt_length=10),
        example(responses={"generated": changed}),
        other,
    ]
    assert len({digest(one) for one in [example(), *different]}) == 6
