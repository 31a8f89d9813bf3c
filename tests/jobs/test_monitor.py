"""What is noticed of a job while it runs, with files as training writes them."""

import json
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from opadpo.jobs import monitor as module
from opadpo.jobs.monitor import Monitor, thin
from opadpo.jobs.record import Attempt, Job, JobRequest
from opadpo.recipe.jobs import AlarmsSection
from opadpo.training.checkpoints import mark_complete
from opadpo.training.reporting import cut_metrics


@pytest.fixture
def place(tmp_path):
    folder, runs = tmp_path / "jobs" / "j-1", tmp_path / "runs"
    folder.mkdir(parents=True)
    (runs / "opa").mkdir(parents=True)
    (runs / "opadpo").mkdir()
    return SimpleNamespace(folder=folder, runs=runs)


def watching(place, **alarms):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(
        job_id="j-1",
        step="pipeline",
        title="pipeline",
        commands=[],
        request=JobRequest(step="pipeline"),
        target="local",
        alarms=AlarmsSection(disk_free_gb=0, **alarms),
        runs=["opa", "opadpo"],
        workspace="/w",
        submitted_by="lea",
        submitted_at=at,
        state_at=at,
        attempts=[Attempt(number=1, queued_at=at, devices=["cpu"])],
    )
    return Monitor(place.folder, job, place.runs)


def trained(place, run, steps, **more):
    with (place.runs / run / "metrics.jsonl").open("a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "time": time.time(), "loss": 1.0, **more}) + "\n")


def mirrored(place):
    lines = (place.folder / "metrics.jsonl").read_text().splitlines()
    return [(found["run"], found["step"]) for found in map(json.loads, lines)]


def test_metrics_of_several_runs_with_a_cut_one(place):
    trained(place, "opa", [7, 8])  # another job's, which this one does not touch
    monitor = watching(place)
    monitor.tick(0.0, [])
    assert not (place.folder / "metrics.jsonl").exists()
    (place.runs / "opa" / "metrics.jsonl").unlink()
    trained(place, "opa", [1, 2])
    monitor.tick(1.0, [])
    trained(place, "opadpo", [1, 2, 3])
    with (place.runs / "opadpo" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    monitor.tick(2.0, [])
    whole = [("opa", 1), ("opa", 2), ("opadpo", 1), ("opadpo", 2), ("opadpo", 3)]
    assert mirrored(place) == whole
    # The next attempt goes on from the checkpoint of update 2, and forgets what came after it.
    again = watching(place)
    cut_metrics(place.runs / "opadpo" / "metrics.jsonl", 2)
    again.tick(3.0, [])
    assert mirrored(place) == whole[:-1]
    trained(place, "opadpo", [3, 4])
    again.tick(4.0, [])
    assert mirrored(place) == [*whole, ("opadpo", 4)]


def test_progress_with_the_newest_complete_checkpoint(place):
    monitor = watching(place)
    monitor.tick(0.0, [])
    assert not (place.folder / "progress.json").exists()
    step = {"task": "train opa", "done": 3, "total": 9, "rate": 1.5, "seconds_left": 4.0, "at": 1.0}
    (place.folder / "step_progress.json").write_text(json.dumps(step))
    monitor.tick(1.0, [])
    assert json.loads((place.folder / "progress.json").read_text()) == step | {"checkpoint": None}
    for run, number in (("opa", 9), ("opadpo", 2), ("opadpo", 4)):
        checkpoint = place.runs / run / f"checkpoint-{number}"
        checkpoint.mkdir()
        if number != 4:  # that one is being written
            mark_complete(checkpoint)
            os.utime(checkpoint / "complete.json", (100 - number, 100 - number))
    monitor.tick(7.0, [])
    told = json.loads((place.folder / "progress.json").read_text())
    assert told["checkpoint"] == {"run": "opadpo", "step": 2, "at": 98.0}
    # Another attempt, whose command has not counted anything yet.
    (place.folder / "step_progress.json").unlink()
    watching(place).tick(20.0, [])
    told = json.loads((place.folder / "progress.json").read_text())
    assert told == {"checkpoint": {"run": "opadpo", "step": 2, "at": 98.0}}


def test_usage_is_sampled_every_five_seconds(place):
    monitor = watching(place)
    for second in range(1000, 1011):
        monitor.tick(float(second), [1, 2, 3])
    samples = [json.loads(line) for line in (place.folder / "usage.jsonl").read_text().splitlines()]
    assert [sample["at"] for sample in samples] == [1000.0, 1005.0, 1010.0]
    assert samples[0]["gpus"] == []
    assert samples[0]["processes"] == 3
    assert 0 < samples[0]["memory_used"] < samples[0]["memory_total"]
    assert samples[0]["disk_free"] > 0


def test_the_older_half_of_much_usage_is_thinned_out(tmp_path):
    path = tmp_path / "usage.jsonl"
    path.write_text("".join(f"{number:03d}\n" for number in range(100)))
    thin(path, 1000)
    assert path.read_text().split() == [f"{n:03d}" for n in range(100)]
    thin(path, 300)
    assert path.read_text().split() == [f"{n:03d}" for n in [*range(0, 50, 2), *range(50, 100)]]


def test_alarms_are_written_told_in_the_log_and_stop_where_that_is_wanted(place):
    monitor = watching(place, stop_on=["not_finite"], no_progress_minutes=1)
    (place.runs / "opa" / "bad_batch.json").write_text(json.dumps({"step": 5, "what": "loss", "value": "nan"}))
    stopping = monitor.tick(0.0, [])
    assert stopping is not None
    assert stopping.kind == "not_finite"
    assert monitor.tick(1.0, []) is None
    assert monitor.tick(61.0, []) is None  # no progress, which does not stop it
    alarms = [json.loads(line) for line in (place.folder / "alarms.jsonl").read_text().splitlines()]
    assert [(alarm["id"], alarm["stopped"]) for alarm in alarms] == [("not_finite-1", True), ("no_progress-2", False)]
    assert "warning: The loss is not finite at update 5." in (place.folder / "log.txt").read_text()
    (place.folder / "step_progress.json").write_text('{"task": "a", "done": 1, "at": 2.0}')
    for second in range(62, 115):
        assert monitor.tick(float(second), []) is None
    assert len((place.folder / "alarms.jsonl").read_text().splitlines()) == 2
    # A later attempt counts on; the refused batch of the earlier one is no news.
    assert watching(place, stop_on=["not_finite"]).tick(200.0, []) is None


def test_a_folder_that_cannot_be_written_does_not_stop_the_job(place, monkeypatch):
    monitor = watching(place)
    trained(place, "opa", [1])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "replace", full)
        patched.setattr(type(place.folder), "open", full)
        assert monitor.tick(0.0, []) is None
    monitor.tick(1.0, [])
    assert mirrored(place) == [("opa", 1)]
