"""The demo: everything end to end, killed in the middle, continued, and refused where it does not fit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opadpo.errors import WorkspaceError
from opadpo.plots import FIGURES
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Revision, Rollout, assemble
from opadpo.review.store import ReviewStore
from opadpo.steps.demo import DEFAULT_SIZE, open_demo
from opadpo.tables import read_records
from opadpo.workspace import Workspace

SIZE = 24


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "opadpo", "demo", "--workspace", str(folder), *more]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_demo_is_continued_and_a_finished_one_does_nothing(tmp_path: Path):
    folder = tmp_path / "demo"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = command(folder, "--seed", "5", "--size", str(SIZE))
    with subprocess.Popen(first, stderr=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stderr is not None
        for line in killed.stderr:
            if line.startswith("revise  "):
                os.kill(killed.pid, signal.SIGKILL)
                break
        else:
            pytest.fail("the demo never came to the end of revise")
    rollouts = (folder / "rollouts" / "manifest.json").read_bytes()

    second = subprocess.run(command(folder, "--json"), capture_output=True, text=True, env=environment, check=False)
    assert second.returncode == 0, second.stderr
    result = json.loads(second.stdout.splitlines()[-1])
    assert result["exit"] == 0
    assert (folder / "rollouts" / "manifest.json").read_bytes() == rollouts
    assert f"opadpo app {folder}" in second.stderr
    for model in ("base", "opa", "opadpo", "dpo"):
        figures = json.loads((folder / "evaluations" / model / "toy.json").read_text())
        assert figures["benchmark"] == "toy"
        assert set(figures["metrics"]) == {"chair_i", "chair_s", "coverage"}
        assert result["figures"][model] == figures["metrics"]
        assert len(figures["items"]) == 50
    for name in FIGURES:
        assert (folder / "figures" / name).read_bytes().startswith(b"\x89PNG")
    check_records(Workspace.open(folder))

    adapter = (folder / "adapters" / "opadpo" / "adapter_model.safetensors").stat().st_mtime_ns
    third = subprocess.run(command(folder), capture_output=True, text=True, env=environment, check=False)
    assert third.returncode == 0, third.stderr
    assert third.stderr.count("up to date") == 9
    assert (folder / "adapters" / "opadpo" / "adapter_model.safetensors").stat().st_mtime_ns == adapter


def check_records(workspace: Workspace) -> None:
    """What the records promise each other."""
    prompts = read_records(workspace.prompts / "prompts.parquet", Prompt)
    train, heldout = ({p.image_id for p in prompts if p.split == split} for split in ("train", "heldout"))
    assert len(train) == SIZE
    assert not train & heldout
    responses = {r.rollout_id: r.response for r in read_records(workspace.rollouts, Rollout)}
    assert len(responses) == SIZE
    with ReviewStore.open(workspace.reviews_db) as store:
        revisions: list[Revision] = list(store.iter_current())
    assert {r.rollout_id for r in revisions} == set(responses)
    for revision in revisions:
        assert assemble(responses[revision.rollout_id], revision.sentences) == revision.text
    assert {s.kind for r in revisions for s in r.sentences} >= {"kept", "deleted"}


def test_the_workspace_of_other_arguments_is_refused(tmp_path: Path):
    workspace = open_demo(tmp_path / "demo", 7, 30)
    assert workspace.recipe.seed == 7
    assert workspace.recipe.prepare.subset_size == 30
    assert open_demo(tmp_path / "demo", None, None).recipe == workspace.recipe
    with pytest.raises(WorkspaceError, match="seed 7, size 30; asked for seed 8"):
        open_demo(tmp_path / "demo", 8, None)
    other = Workspace.create(tmp_path / "other", preset_text("llava-1.5-7b"))
    with pytest.raises(WorkspaceError, match="not of the toy world"):
        open_demo(other.root, None, None)
    assert open_demo(tmp_path / "default", None, None).recipe.prepare.subset_size == DEFAULT_SIZE
