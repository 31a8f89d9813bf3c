"""Metrics as curves: thinned out, read on, and read again when they were cut."""

import itertools
import json
import random

import pytest

from opadpo.jobs import curves


def write(folder, steps, run="opadpo", mode="a", **more):
    with (folder / "metrics.jsonl").open(mode) as file:
        for step in steps:
            file.write(json.dumps({"run": run, "step": step, "time": 1.0, "loss": step / 10, **more}) + "\n")


def test_curves_of_the_newest_run_and_of_one_by_name(tmp_path):
    assert curves.read(tmp_path, ["loss"]) == {}
    write(tmp_path, [1, 2], run="opa")
    write(tmp_path, [1], kl=0.5, not_finite=["grad_norm"])
    assert curves.runs(tmp_path) == ["opa", "opadpo"]
    assert curves.read(tmp_path, ["loss", "kl", "other", "step"]) == {"loss": [[1, 0.1]], "kl": [[1, 0.5]]}
    assert curves.read(tmp_path, ["loss", "kl"], run="opa") == {"loss": [[1, 0.1], [2, 0.2]]}
    assert (curves.keys(tmp_path), curves.keys(tmp_path, run="opa")) == (["kl", "loss"], ["loss"])
    write(tmp_path, [2, 3])
    assert curves.read(tmp_path, ["loss"], after=1) == {"loss": [[2, 0.2], [3, 0.3]]}


def test_spikes_stay_when_curves_are_thinned_out(tmp_path):
    numbers = random.Random(1)
    values = [numbers.random() for _ in range(5000)]
    values[1234], values[4321] = 50.0, -50.0
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps({"run": "a", "step": s, "loss": v}) + "\n" for s, v in enumerate(values))
    points = curves.read(tmp_path, ["loss"], points=100)["loss"]
    assert len(points) <= 102
    assert [1234, 50.0] in points
    assert [4321, -50.0] in points
    assert (points[0][0], points[-1][0]) == (0, 4999)
    assert points == sorted(points)


@pytest.mark.parametrize("saved", [False, True])
def test_a_cut_is_seen_and_a_torn_line_waits(tmp_path, monkeypatch, saved):
    monkeypatch.setattr(curves, "SAVE_BYTES", 1 if saved else 2**30)
    write(tmp_path, range(1, 100))
    assert curves.read(tmp_path, ["loss"])["loss"][-1] == [99, 9.9]
    assert (tmp_path / ".curves.arrow").exists() == saved
    curves._kept.clear()  # as in another process
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"run": "opadpo", "st')
    assert curves.read(tmp_path, ["loss"])["loss"][-1] == [99, 9.9]
    write(tmp_path, range(1, 50), mode="w")
    write(tmp_path, range(50, 60), loss2=1)
    assert len(curves.read(tmp_path, ["loss"])["loss"]) == 59
    assert len(curves.read(tmp_path, ["loss2"])["loss2"]) == 10


def test_damaged_lines_and_a_damaged_cache_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "SAVE_BYTES", 1)
    write(tmp_path, [1])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo{"step": 2}\n[]\n')
    write(tmp_path, [3])
    (tmp_path / ".curves.arrow").write_bytes(b"no columns")
    assert curves.read(tmp_path, ["loss"]) == {"loss": [[1, 0.1], [3, 0.3]]}


def test_whoever_writes_the_lines_has_the_columns_saved_whenever_they_have_grown_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "SAVE_BYTES", 2000)
    saved, size = tmp_path / ".curves.arrow", curves.refresh(tmp_path, 0)
    stamps = []
    for start in range(0, 400, 4):
        write(tmp_path, range(start, start + 4))
        size = curves.refresh(tmp_path, size)
        stamps.append(saved.stat().st_ino if saved.exists() else None)
    assert size == (tmp_path / "metrics.jsonl").stat().st_size
    changes = sum(one != other for one, other in itertools.pairwise(stamps))
    assert changes == size // 2000
    assert len(curves.read(tmp_path, ["loss"])["loss"]) == 400
