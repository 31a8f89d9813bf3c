"""What a log and a file say of work that goes on."""

import json
import re

from opadpo import progress as module
from opadpo.cli.reporting import CommandProgress
from opadpo.progress import FileProgress, LineProgress, SilentProgress


def test_a_file_tells_how_far_the_newest_task_is(tmp_path, monkeypatch):
    path = tmp_path / "step_progress.json"
    inner = SilentProgress()
    progress = FileProgress(inner, path)
    monkeypatch.setattr(module, "FILE_SECONDS", 1e9)
    with progress.task("train opa", 10, done=4) as task:
        first = json.loads(path.read_text())
        assert (first["task"], first["done"], first["total"], first["seconds_left"]) == ("train opa", 4, 10, None)
        task.advance()
        assert json.loads(path.read_text())["done"] == 4  # so soon it is not written again
        monkeypatch.setattr(module, "FILE_SECONDS", 0.0)
        task.advance(2)
        later = json.loads(path.read_text())
        assert (later["done"], later["rate"] > 0) == (7, True)
        assert later["seconds_left"] is not None
        task.advance(3)
    assert json.loads(path.read_text())["seconds_left"] == 0
    progress.say("a")
    progress.warn("b")
    assert (inner.messages, inner.warnings) == (["a"], ["b"])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_work_goes_on_where_the_file_cannot_be_written(tmp_path):
    with FileProgress(SilentProgress(), tmp_path / "gone" / "p.json").task("work", None) as task:
        task.advance()


def test_the_command_line_writes_it_where_it_is_asked_to(tmp_path, monkeypatch):
    monkeypatch.setenv("OPADPO_PROGRESS", str(tmp_path / "p.json"))
    with CommandProgress(quiet=True).task("work", 2):
        pass
    assert json.loads((tmp_path / "p.json").read_text())["total"] == 2


def test_notes_stand_in_a_log_with_the_time_and_not_faster_than_one_reads(capsys, monkeypatch):
    with LineProgress(interval=1e9).task("train opa", 3) as task:
        for number in range(3):
            task.advance()
            task.note(f"step {number + 1}/3  loss 0.5")
    first, last, total = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  step 1/3  loss 0\.5", first)
    assert last.endswith("step 3/3  loss 0.5")
    assert total.startswith("train opa: 3/3")
