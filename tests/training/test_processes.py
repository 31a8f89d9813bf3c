"""Killed runs, and several processes: the result is that of one process left alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opadpo.errors import StepFailed
from opadpo.progress import SilentProgress
from opadpo.steps.train import train

DEADLY = Path(__file__).with_name("deadly.py")


def result(workspace, name):
    lines = (workspace.run(name) / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return load_file(workspace.adapter(name) / "adapter_model.safetensors"), losses


@pytest.mark.slow
def test_a_run_killed_with_sigkill_is_continued(trainable):
    settings = {"max_steps": 30, "epochs": 40, "save_steps": 5, "micro_batch_tokens": 450}
    workspace = trainable.open(*[f"train.opadpo.{key}={value}" for key, value in settings.items()])
    command = [sys.executable, str(DEADLY), str(workspace.root), "killed", "train", "13", *workspace.overrides]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not workspace.adapter("killed").exists()
    resumed = train(workspace, "opadpo", name="killed", progress=SilentProgress())
    assert resumed.counts["resumed_from"] == 10
    train(workspace, "opadpo", name="unkilled", progress=SilentProgress())
    killed, whole = result(workspace, "killed"), result(workspace, "unkilled")
    assert killed[1] == pytest.approx(whole[1], abs=1e-6)
    for key, value in whole[0].items():
        torch.testing.assert_close(killed[0][key], value, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(trainable):
    settings = {"max_steps": 2, "micro_batch_size": 1, "eval_share": 0.2, "eval_steps": 2}
    shared = [f"train.opadpo.{key}={value}" for key, value in settings.items()]
    one, two = (
        trainable.open(*shared),
        trainable.open(*shared, "train.processes=2", "train.opadpo.micro_batch_tokens=300"),
    )
    counts = {}
    for name, workspace in (("one", one), ("two", two)):
        counts[name] = train(workspace, "opadpo", name=name, progress=SilentProgress()).counts
    assert counts["one"] == counts["two"]
    assert counts["two"]["reference_computed"] == 2 * (8 + 2)  # visits, and held-out examples
    shards = sorted((two.run("two") / "reference").glob("*.rows"))
    assert [path.name for path in shards] == ["process-00000.rows", "process-00001.rows"]
    assert all(path.stat().st_size > 1000 for path in shards)
    launched = launch(one, "train", "opadpo", "--name", "launched")
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("done in") == 1
    for name in ("two", "launched"):
        same_lines(one, "one", name)
        single, double = (load_file(one.adapter(n) / "adapter_model.safetensors") for n in ("one", name))
        for key, value in single.items():
            torch.testing.assert_close(double[key], value, atol=2e-4, rtol=0)


def same_lines(workspace, *names):
    texts = [(workspace.run(name) / "metrics.jsonl").read_text() for name in names]
    lines = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert len(lines[0]) == len(lines[1]) == 3
    for first, second in zip(*lines, strict=True):
        assert first.keys() == second.keys()
        for key in first.keys() - {"time", "tokens_per_second"}:
            assert first[key] == pytest.approx(second[key], abs=1e-3, rel=1e-3), key


def launch(workspace, *arguments):
    """A command of opadpo in two processes, by accelerate's launcher."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port=0"]
    options = ["--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    sets = [word for override in workspace.overrides for word in ("--set", override)]
    verb, *rest = arguments
    return subprocess.run(
        [*launcher, *options, "-m", "opadpo", verb, *rest, str(workspace.root), *sets],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_failure_of_a_process_is_told_as_it_was(trainable):
    workspace = trainable.open("train.opadpo.learning_rate=1e30", "train.processes=2")
    with pytest.raises(StepFailed, match="not finite at update 2"):
        train(workspace, "opadpo", name="nan-two", progress=SilentProgress())
    left = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert str(workspace.run("nan-two")) not in left
