"""A run that is asked to stop finishes its update and writes a checkpoint; continued, it is the run left alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from opadpo.processes.signals import Stopped, heeding, pass_on
from opadpo.progress import SilentProgress
from opadpo.steps.train import train
from opadpo.training.checkpoints import newest_complete, step_of
from opadpo.training.reporting import Reporter

LONG = {"max_steps": 60, "epochs": 40, "save_steps": 1000, "logging_steps": 1}
WORKERS = """
import sys
from opadpo.cli.entry import main
from opadpo.training import run
made = run.training_arguments
def with_workers(*args, **kwargs):
    arguments = made(*args, **kwargs)
    arguments.dataloader_num_workers = 1
    return arguments
run.training_arguments = with_workers
sys.exit(main())
"""
"""The command line, with a process that decodes images beside it, as on a GPU."""


def settings(**more):
    return [f"train.opadpo.{key}={value}" for key, value in (LONG | more).items()]


def started(program, workspace, name, *options):
    """`opadpo train opadpo` in a process group of its own."""
    sets = [word for override in workspace.overrides for word in ("--set", override)]
    verb = ["train", "opadpo", str(workspace.root), "--name", name, *sets, *options]
    return subprocess.Popen(
        [sys.executable, *program, *verb], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def updates(workspace, name):
    path = workspace.run(name) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stopped(child, workspace, name, send, *, after=3):
    """(exit status, what it said) of a run that got a signal once it had made `after` updates."""
    while child.poll() is None and len(updates(workspace, name)) < after:
        time.sleep(0.01)
    assert child.poll() is None, child.stderr.read()
    send(child)
    _, said = child.communicate(timeout=240)
    return child.returncode, said


def check_stopped_at_its_last_update(workspace, name, of=LONG["max_steps"]):
    lines = updates(workspace, name)
    newest = newest_complete(workspace.run(name))
    assert newest is not None
    assert step_of(newest) == len(lines) == lines[-1]["step"] < of
    return len(lines)


def check_same(workspace, name, whole):
    first, second = (load_file(workspace.adapter(each) / "adapter_model.safetensors") for each in (name, whole))
    for key, value in second.items():
        torch.testing.assert_close(first[key], value, atol=2e-6, rtol=0)
    losses = [[line["loss"] for line in updates(workspace, each)] for each in (name, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_a_signal_to_the_group_ends_a_run_after_its_update(trainable):
    workspace = trainable.open(*settings())
    child = started(["-c", WORKERS], workspace, "stopped")
    status, said = stopped(child, workspace, "stopped", lambda c: os.killpg(c.pid, signal.SIGTERM))
    assert (status, "stopped; run the same command again to continue" in said) == (143, True), said
    done = check_stopped_at_its_last_update(workspace, "stopped")
    assert f"Training stopped after update {done}, with a checkpoint." in said
    assert "Traceback" not in said
    resumed = train(workspace, "opadpo", name="stopped", progress=SilentProgress())
    assert resumed.counts["resumed_from"] == done
    train(workspace, "opadpo", name="unstopped", progress=SilentProgress())
    check_same(workspace, "stopped", "unstopped")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_two_processes_stop_after_the_same_update(trainable, number, to_group):
    workspace = trainable.open(*settings(micro_batch_size=1, max_steps=400), "train.processes=2")
    name = f"two-{number.name.lower()}"
    child = started(["-m", "opadpo"], workspace, name)
    send = (lambda c: os.killpg(c.pid, number)) if to_group else (lambda c: c.send_signal(number))
    status, said = stopped(child, workspace, name, send, after=2)
    assert (status, "Traceback" in said) == (128 + number, False), said
    done = check_stopped_at_its_last_update(workspace, name, of=400)
    assert f"Training stopped after update {done}, with a checkpoint." in said


@pytest.mark.slow
def test_a_second_signal_ends_at_once(trainable):
    # Updates of many micro-batches, so that both signals come within one.
    workspace = trainable.open(*settings(batch_size=48, micro_batch_size=1, max_steps=2))
    child = started(["-m", "opadpo"], workspace, "twice")

    def send(process):
        process.send_signal(signal.SIGTERM)
        # Two signals that are delivered together are one.
        assert any("once more stops at once" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)

    status, said = stopped(child, workspace, "twice", send, after=1)
    assert (status, "Training stopped" in said) == (143, False), said
    assert newest_complete(workspace.run("twice")) is None


@pytest.mark.slow
def test_ctrl_c_in_a_notebook_leaves_a_checkpoint_and_a_message(trainable, monkeypatch):
    workspace = trainable.open(*settings())
    counted = Reporter.on_step_end

    def press(self, args, state, control, **more):
        counted(self, args, state, control, **more)
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Reporter, "on_step_end", press)
    progress = SilentProgress()
    with pytest.raises(KeyboardInterrupt, match=r"stopped after update \d+, with a checkpoint; run it again"):
        train(workspace, "opadpo", name="cell", progress=progress)
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert "SIGINT: training stops after this update, with a checkpoint; once more stops at once." in progress.messages
    done = check_stopped_at_its_last_update(workspace, "cell")
    assert train(workspace, "opadpo", name="cell", progress=progress).counts["resumed_from"] == done


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def work():
        with heeding():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


def test_what_is_ignored_stays_ignored_and_ones_own_handler_is_called_in_the_end():
    called = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        with heeding() as wish:
            signal.raise_signal(signal.SIGINT)
            assert wish.number == 0
            signal.raise_signal(signal.SIGTERM)
            assert (wish.number, called) == (signal.SIGTERM, [])
            signal.raise_signal(signal.SIGTERM)
            assert called == [signal.SIGTERM]
        with pytest.raises(Stopped, match="until then"):
            pass_on(signal.SIGTERM, "until then")
        assert called == [signal.SIGTERM] * 2
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
