"""Scores as people read them, and captions handed on to other programs."""

from pathlib import Path

import pytest
import small_benchmarks
import tiny_workspace
from command import Run
from given_captions import give_captions

from opadpo.progress import SilentProgress
from opadpo.steps.sets import make_set
from opadpo.workspace import Workspace


@pytest.fixture
def workspace(tiny_llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    files = small_benchmarks.make(tmp_path / "published", monkeypatch)
    settings = {"benchmarks": ["pope"], "resamples": 200, "files": files}
    made = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=1, heldout=1, evaluate=settings)
    make_set(made, "pope", progress=SilentProgress())
    give_captions(made, "base", lambda prompt: "Yes.", prompt_set="pope")
    give_captions(made, "opa", lambda prompt: "Yes" if "dog" in prompt.question else "no", prompt_set="pope")
    return made


def test_every_figure_has_its_interval_and_its_difference_to_the_base(run: Run, workspace: Workspace) -> None:
    lines = run("evaluate", workspace.root).out.splitlines()
    assert "POPE; N: base 6, opa 6" in lines
    head = next(number for number, line in enumerate(lines) if "less base" in line)
    assert lines[head].split() == ["value", "interval", "less", "base", "interval", "p"]
    rows = [line.split() for line in lines[head + 1 :]]
    assert rows[0][:5] == ["↓", "false", "yes", "base", "100.0"]
    assert rows[1][:2] == ["opa", "0.0"]
    assert rows[2][:3] == ["↑", "recall", "base"]
    accuracy = next(number for number, row in enumerate(rows) if row[1:2] == ["accuracy"])
    assert rows[accuracy][:4] == ["↑", "accuracy", "base", "50.0"]
    assert (rows[accuracy + 1][0], rows[accuracy + 1][5], rows[accuracy + 1][-1]) == ("opa", "+50.0", "0.2500")
    assert not any("random" in line for line in lines)
    assert "  ↓ lower is better, ↑ higher is better" in lines


def test_machines_get_every_part(run: Run, workspace: Workspace) -> None:
    result = run("evaluate", workspace.root, "--json", "--quiet").result
    assert result["figures"]["opa"]["pope"]["random/accuracy"] == 100.0
    score = next(s for s in result["scores"] if (s["model"], s["metric"]) == ("opa", "random/accuracy"))
    assert (score["n"], score["failed"], score["direction"]) == (6, 0, "higher")
    assert score["difference"]["value"] == 50.0
    assert run("evaluate", workspace.root, "--json", "--quiet").result["status"] == "up_to_date"


@pytest.mark.parametrize("form", ["lmms-eval", "vlmevalkit"])
def test_predictions_of_other_programs(run: Run, workspace: Workspace, tmp_path: Path, form: str) -> None:
    target = tmp_path / "predictions"
    ended = run(
        "export", workspace.root, "--format", form, "--model", "opa", "--set", "pope", "--output", target, "--json"
    )
    assert ended.result["counts"] == {"predictions": 6}
    assert target.is_file()


def test_whose_captions_must_be_said(run: Run, workspace: Workspace) -> None:
    ended = run("export", workspace.root, "--format", "lmms-eval", "--set", "pope")
    assert ended.status == 2
    assert "--model base" in ended.err
    assert "--model base --set amber" in run("evaluate", workspace.root, "--benchmark", "amber").err
