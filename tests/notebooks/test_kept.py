"""The notebooks as they are kept: run without errors, with their newest source, and free of this machine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from run_notebooks import read, source_digest

from opadpo import display
from opadpo.display.shipped import OWN_WORKSPACE, PARAMETERS, copy_into, shipped, with_parameters
from opadpo.errors import UserError, WorkspaceError
from opadpo.jobs.service import Jobs
from opadpo.steps import catching_up
from opadpo.steps.catching_up import open_or_make

NAMES = [path.name for path in shipped()]


def test_there_is_one_for_every_step_and_together_they_are_small() -> None:
    assert [name[:2] for name in NAMES] == [f"{number:02}" for number in range(8)]
    assert sum(path.stat().st_size for path in shipped()) < 1_500_000


@pytest.mark.parametrize("path", shipped(), ids=NAMES)
def test_outputs_are_of_this_source_without_errors_and_paths(path: Path) -> None:
    notebook = read(path)
    assert notebook["metadata"]["opadpo"]["source"] == source_digest(notebook), "run `make notebooks`"
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result"}
    assert not re.search(r"[\"' (]/(?:tmp|home|root|work|usr)/", json.dumps(outputs))


@pytest.mark.parametrize("path", shipped(), ids=NAMES)
def test_one_cell_has_the_parameters_and_nothing_else_names_the_toy_world(path: Path) -> None:
    cells = [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]
    tagged = [cell for cell in cells if PARAMETERS in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    others = "".join("".join(cell["source"]) for cell in cells if cell not in tagged)
    assert "toy" not in others.lower()


def test_copies_name_their_workspace_and_are_never_overwritten(tmp_path: Path) -> None:
    workspace = open_or_make(tmp_path / "ws", "toy")
    folder, made = copy_into(workspace.root)
    assert made == NAMES
    cell = next(c for c in read(folder / NAMES[1])["cells"] if PARAMETERS in c["metadata"].get("tags", []))
    assert "workspace = '..'" in "".join(cell["source"])
    assert "photographs-workspace" in (folder / OWN_WORKSPACE).read_text("utf-8")
    texts = [
        cell["source"] for name in NAMES for cell in read(folder / name)["cells"] if cell["cell_type"] == "markdown"
    ]
    linked = set(re.findall(r"\]\((?!https?:)([^)]+)\)", "".join(map("".join, texts))))
    assert linked <= set(NAMES), "nothing that a workspace does not have"
    (folder / NAMES[0]).write_text("mine", encoding="utf-8")
    assert copy_into(workspace.root)[1] == []
    assert (folder / NAMES[0]).read_text("utf-8") == "mine"


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError):
        with_parameters(read(shipped()[0]), {"nonsense": 1})


def test_a_workspace_of_another_recipe_or_size_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_or_make(tmp_path / "ws", "toy", ["prepare.subset_size=24"])
    assert open_or_make(tmp_path / "ws", "toy", ["prepare.subset_size=24"]).recipe.prepare.subset_size == 24
    assert open_or_make(tmp_path / "ws").recipe.name == "toy"
    with pytest.raises(WorkspaceError, match=r"another recipe[\s\S]*llava-1.5-7b"):
        open_or_make(tmp_path / "ws", "llava-1.5-7b")
    with pytest.raises(WorkspaceError, match=r"prepare.subset_size is 24, asked for 25"):
        open_or_make(tmp_path / "ws", "toy", ["prepare.subset_size=25"])
    with pytest.raises(UserError, match=r"list of texts[\s\S]*prepare.subset_size=24"):
        open_or_make(tmp_path / "ws", "toy", "prepare.subset_size=24")
    monkeypatch.chdir(copy_into(tmp_path / "ws")[0])
    with pytest.raises(WorkspaceError, match=r"seen: ws: recipe toy"):
        open_or_make("..", "llava-1.5-7b")
    with pytest.raises(WorkspaceError, match=r"seen: ws: prepare.subset_size"):
        open_or_make("..", "toy", ["prepare.subset_size=25"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"workspace": None}, r"workspace is not a path[\s\S]*None"),
        ({"workspace": 5}, r"workspace is not a path[\s\S]*5"),
        ({"workspace": ""}, r"workspace is not named"),
        ({"workspace": "a\0b"}, r"no path on this machine[\s\S]*null byte"),
        ({"workspace": "w" * 300}, r"no path on this machine[\s\S]*too long"),
        ({"workspace": "~nobody-of-that-name/w"}, r"no path on this machine"),
        ({"workspace": "w\ud800"}, r"no path on this machine"),
        ({"recipe": "toi"}, r"no such recipe[\s\S]*toi[\s\S]*llava-1.5-7b"),
        ({"recipe": 5}, r"recipe is not a name[\s\S]*5"),
        ({"recipe": ["toy"]}, r"recipe is not a name"),
        ({"settings": None}, r"list of texts[\s\S]*None"),
        ({"settings": 5}, r"list of texts"),
        ({"settings": {"prepare.subset_size": 3}}, r"list of texts"),
        ({"settings": ["prepare.subset_size"]}, r"section.key=value"),
    ],
    ids=str,
)
def test_a_parameter_that_is_no_such_thing_is_told(values: dict[str, Any], told: str, tmp_path: Path) -> None:
    given = {"root": tmp_path / "ws", "recipe": "toy", "settings": [], **values}
    given["root"] = given.pop("workspace", given["root"])
    with pytest.raises(UserError, match=told):
        open_or_make(**given)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("models", [None, 5, "base", [], [1]], ids=str)
def test_models_that_are_no_names_are_told(models: Any, tmp_path: Path) -> None:
    workspace = open_or_make(tmp_path / "ws", "toy")
    for look in (display.captions, display.scores, display.tradeoff):
        with pytest.raises(UserError, match=r"models are not a list of names|No model is named"):
            look(workspace, models)


@pytest.mark.parametrize("target", ["", "nowhere", 5, ["local"]], ids=str)
def test_a_target_that_the_recipe_lacks_is_told(target: Any, tmp_path: Path) -> None:
    workspace = open_or_make(tmp_path / "ws", "toy")
    with pytest.raises(UserError, match=r"no such target[\s\S]*local|target is not a name"):
        display.run(workspace, "prepare", target=target)
    assert not Jobs(workspace).list()


def test_without_a_benchmark_the_last_notebook_says_that_nothing_counts(tmp_path: Path) -> None:
    workspace = open_or_make(tmp_path / "ws", "llava-1.5-7b")
    result = display.run(workspace, "evaluate", target="local")
    assert "names no benchmark" in result.warnings[0]
    assert "names no benchmark" in display.scores(workspace, ["base"]).text
    assert catching_up.captioned_sets(workspace) == ["heldout"]
    workspace = open_or_make(tmp_path / "public", "llava-1.5-7b", ["evaluate.benchmarks=[amber, pope]"])
    assert catching_up.captioned_sets(workspace) == ["heldout", "amber", "pope"]
