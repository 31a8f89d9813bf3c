"""Verbs that show something, for people and for machines."""

from pathlib import Path

import made_workspace
import pytest
import yaml
from command import Run
from typer.main import get_command

from opadpo import __version__
from opadpo.cli.entry import app
from opadpo.recipe import Recipe, describe, parse_recipe, preset_text
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.steps.status import status
from opadpo.workspace import Workspace


@pytest.mark.slow
def test_status_is_a_table_with_reasons_and_the_next_command(run: Run, finished: Path) -> None:
    assert "Everything is there and up to date." in run("status", finished).out
    made_workspace.change(Workspace.open(finished), rollout__top_k=5)
    lines = run("status", finished, "--quiet").out.splitlines()
    row = next(number for number, line in enumerate(lines) if "  rollouts " in line)
    assert lines[row].split()[:2] == ["stale", "rollouts"]
    assert "500 rows" in lines[row]
    assert lines[row + 1].strip() == "- rollout.top_k was 30, is now 5"
    assert lines[-1] == f"next: opadpo rollout {finished}"


def test_status_as_json_is_the_typed_status(run: Run, finished: Path) -> None:
    expected = status(Workspace.open(finished)).model_dump(mode="json")
    assert run("status", finished, "--json").result == {**expected, "exit": 0}


def test_recipe_lists_every_setting_with_its_help(run: Run) -> None:
    text = " ".join(run("recipe").out.split())
    for info in describe():
        assert f"{info.key} ({info.type}) = {info.default}" in text
        assert " ".join(info.help.split()) in text
    listed = run("recipe", "--json").result["settings"]
    assert [setting["key"] for setting in listed] == [info.key for info in describe()]


def test_recipe_prints_a_preset_and_a_section(run: Run) -> None:
    assert run("recipe", "toy").out.rstrip() == preset_text("toy").rstrip()
    assert run("recipe", "toy", "--json").result["settings"] == Recipe.model_validate(
        yaml.safe_load(preset_text("toy"))
    ).model_dump(mode="json")
    listed = run("recipe", "--section", "train.opa.lora", "--json").result["settings"]
    assert {setting["key"].rpartition(".")[0] for setting in listed} == {"train.opa.lora"}
    part = yaml.safe_load(run("recipe", "toy", "--section", "train.opa.lora").out)
    assert part == {"train": {"opa": {"lora": parse_recipe(preset_text("toy")).train.opa.lora.model_dump(mode="json")}}}
    assert "use one of name, seed, model" in run("recipe", "--section", "nonsense").err
    assert "use one of name, seed, model" in run("recipe", "toy", "--section", "seed.nonsense").err


def test_version(run: Run) -> None:
    assert run("--version").out == f"opadpo {__version__}\n"


@pytest.mark.slow
def test_every_command_has_help(run: Run) -> None:
    names = list(getattr(get_command(app), "commands", {}))
    assert {"report", "status"} <= set(names)
    for name in names:
        assert "Usage: opadpo" in run(name, "--help").out, name
    assert "Settings of the recipe" not in run("report", "--help").out, "it reads none"


def test_help_of_a_step_lists_the_settings_that_it_reads(run: Run) -> None:
    text = " ".join(run("rollout", "--help").out.split())
    for info in describe():
        assert (f" {info.key} " in text) == (info.key.partition(".")[0] in ("model", "prompt", "image", "rollout"))
    assert "Sample among the k most probable tokens; 0 switches this off." in text


@pytest.mark.slow
def test_init_says_what_it_made_and_what_comes_next(run: Run, finished: Path, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "w", "--from", finished, "--set", "train.opadpo.loss.beta=0.3")
    assert ended.status == 0
    assert f"made {tmp_path / 'w'} with recipe.yaml, prompts, base.json, rollouts" in ended.out
    assert "not taken over: adapters/opadpo" in ended.err
    ended = run("init", tmp_path / "v", "--recipe", "toy", "--json", "--quiet")
    assert ended.result["step"] == "init"
    assert ended.result["exit"] == 0
    assert ended.err == ""


class _Recorder:
    """Stands in for a step: keeps what it was called with."""

    def __init__(self) -> None:
        self.overrides: list[str] = []
        self.arguments: tuple[object, ...] = ()
        self.options: dict[str, object] = {}

    def __call__(self, workspace: Workspace, *arguments: object, **options: object) -> StepResult:
        self.overrides, self.arguments, self.options = workspace.overrides, arguments, options
        options["progress"].warn("look here")  # pyright: ignore[reportAttributeAccessIssue]
        return StepResult(
            step="caption",
            status="done",
            outputs=["captions/opa/heldout.parquet"],
            counts={"rows": 12345},
            dropped={"too_long": 2},
            figures={"opa": {"toy": {"chair_s": 12.34567}}, "base": {"toy": {"chair_s": 50, "coverage": 1}}},
            warnings=["look here", "and there"],
            seconds=200,
        )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> _Recorder:
    recorder = _Recorder()
    monkeypatch.setattr("opadpo.steps.train.train", recorder)
    return recorder


@pytest.fixture
def caption(monkeypatch: pytest.MonkeyPatch) -> _Recorder:
    recorder = _Recorder()
    monkeypatch.setattr("opadpo.steps.caption.caption", recorder)
    return recorder


def test_set_of_caption_names_a_set_or_overrides_the_recipe(run: Run, finished: Path, caption: _Recorder) -> None:
    words = ("caption", finished, "--model", "base,opa", "--model", "opa,dpo")
    assert run(*words, "--set", "caption.top_p=0.5", "--set", "short", "--set", "seed=3").status == 0
    assert caption.overrides == ["caption.top_p=0.5", "seed=3"]
    assert caption.arguments == (["base", "opa", "dpo"],)
    assert caption.options["prompt_set"] == "short"
    assert run(*words).status == 0
    assert (caption.overrides, caption.options["prompt_set"]) == ([], "heldout")
    ended = run(*words, "--set", "short", "--set", "long")
    assert ended.status == 2
    assert "One set of prompts at a time\n  seen: short, long" in ended.err


def test_train_takes_a_stage_a_name_and_a_start(run: Run, finished: Path, train: _Recorder) -> None:
    assert run("train", "opadpo", finished, "--name", "mine", "--from", "base").status == 0
    assert train.arguments == ("opadpo",)
    assert (train.options["name"], train.options["start"]) == ("mine", "base")


def test_the_summary_of_a_step(run: Run, finished: Path, caption: _Recorder) -> None:
    ended = run("caption", finished, "--model", "opa")
    assert ended.out.splitlines()[0] == "caption: done in 3 min 20 s"
    for part in (
        "  rows  12,345\n",
        "left out:\n  too long  2\n",
        "             chair s  coverage\n  opa   toy  12.35\n  base  toy  50       1\n",
        "wrote captions/opa/heldout.parquet\n",
        f"next: opadpo evaluate {finished}\n",
    ):
        assert part in ended.out
    assert ended.err.count("look here") == ended.err.count("and there") == 1
    ended = run("caption", finished, "--model", "opa", "--quiet")
    assert ended.out == ""
    assert ended.err.count("look here") == ended.err.count("and there") == 1


def test_the_json_of_a_step_is_its_result_and_comes_last(run: Run, finished: Path, caption: _Recorder) -> None:
    result = run("caption", finished, "--model", "opa", "--json").result
    assert result.pop("exit") == 0
    assert StepResult.model_validate(result).counts == {"rows": 12345}


def test_offline_is_set_before_the_step_runs(
    run: Run, finished: Path, caption: _Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    assert run("caption", finished, "--model", "opa", "--offline").status == 0
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["HF_DATASETS_OFFLINE"] == "1"


def test_an_artefact_made_with_overrides_shows_them(run: Run, finished: Path) -> None:
    special = Workspace.open(finished, ["caption.top_p=0.5"])
    made_workspace.fill(special, plans.captions(special, "opa", "short"), {"rows": 1})
    assert "with --set caption.top_p=0.5" in run("status", finished).out
