"""The workspace: creating, staging, swapping, staleness, locks, kills."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opadpo.errors import Busy, DiskFull, MissingArtefact, UserError, WorkspaceError
from opadpo.files import atomic_write
from opadpo.layout import checked_name
from opadpo.manifest import Plan
from opadpo.recipe import preset_text
from opadpo.steps import plans
from opadpo.workspace import Workspace

TOY = preset_text("toy")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws", TOY)


def plan(artefact: str = "things", **settings) -> Plan:
    return Plan(artefact=artefact, step="make", settings=settings, inputs={})


def make(workspace: Workspace, what: Plan, text: str = "x") -> None:
    with workspace.writing(what) as writer:
        name = Path(what.artefact).name if Path(what.artefact).suffix else "data.txt"
        (writer.folder / name).write_text(text)
        writer.finish({"rows": 1})


def test_without_room_for_the_recipe_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("opadpo.workspace.atomic_write", full)
    with pytest.raises(DiskFull):
        Workspace.create(tmp_path / "ws", TOY)
    assert not (tmp_path / "ws").exists()


def test_create_open_and_refusals(tmp_path: Path):
    with pytest.raises(WorkspaceError, match="opadpo init"):
        Workspace.open(tmp_path / "nothing")
    Workspace.create(tmp_path / "ws", TOY)
    assert (tmp_path / "ws" / "recipe.yaml").read_text() == TOY
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        Workspace.create(tmp_path / "ws", TOY)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkspaceError, match="holds other files"):
        Workspace.create(tmp_path / "other", TOY)
    with pytest.raises(UserError):
        Workspace.create(tmp_path / "bad", "nonsense: 1")
    assert not (tmp_path / "bad").exists()


def test_an_artefact_appears_whole_or_not_at_all(workspace: Workspace):
    what = plan(size=1)
    assert workspace.state(what) == "missing"
    with pytest.raises(KeyError), workspace.writing(what) as writer:
        (writer.folder / "data.txt").write_text("half")
        raise KeyError
    assert workspace.state(what) == "partial"
    assert not (workspace.root / "things").exists()
    with workspace.writing(what) as writer:
        assert (writer.folder / "data.txt").read_text() == "half"
        writer.finish({"rows": 3})
    assert workspace.state(what) == "done"
    assert workspace.require("things", "").counts == {"rows": 3}
    assert not list((workspace.root / ".staging").iterdir())
    resolved = (workspace.root / "things" / "recipe.resolved.yaml").read_text()
    assert "max_new_tokens" in resolved


def test_another_plan_never_resumes_the_staging_of_this_one(workspace: Workspace):
    with workspace.writing(plan(size=1)) as writer:
        (writer.folder / "data.txt").write_text("of plan 1")
    with workspace.writing(plan(size=2)) as writer:
        assert not (writer.folder / "data.txt").exists()
        writer.finish({})


def test_stale_names_what_changed_and_the_old_artefact_stays_until_the_new_is_complete(workspace: Workspace):
    make(workspace, plan(size=1, loss={"beta": 0.1}), "old")
    newer = plan(size=1, loss={"beta": 0.2})
    assert workspace.state(newer) == "stale"
    manifest = workspace.manifest("things")
    assert manifest is not None
    assert newer.differences(manifest) == ["loss.beta was 0.1, is now 0.2"]
    with workspace.writing(newer) as writer:
        assert (workspace.root / "things" / "data.txt").read_text() == "old"
        (writer.folder / "data.txt").write_text("new")
        writer.finish({})
    assert (workspace.root / "things" / "data.txt").read_text() == "new"
    assert sorted(p.name for p in workspace.root.iterdir() if "replaced" in p.name) == []


def test_single_files_have_their_manifest_beside_them(workspace: Workspace):
    what = plan("captions/base/heldout.parquet", a=1)
    make(workspace, what, "rows")
    assert workspace.state(what) == "done"
    assert (workspace.root / "captions/base/heldout.parquet").read_text() == "rows"
    assert workspace.state(plan("captions/base/heldout.parquet", a=2)) == "stale"


def test_a_changed_recipe_makes_later_steps_stale(workspace: Workspace):
    make(workspace, plans.prompts(workspace))
    make(workspace, plans.rollouts(workspace))
    colder = Workspace.open(workspace.root, ["rollout.temperature=0.5"])
    assert colder.state(plans.prompts(colder)) == "done"
    assert colder.state(plans.rollouts(colder)) == "stale"
    faster = Workspace.open(workspace.root, ["rollout.batch_size=1"])
    assert faster.state(plans.rollouts(faster)) == "done"
    make(colder, plans.prompts(Workspace.open(workspace.root, ["seed=5"])))
    remade = plans.rollouts(workspace)
    manifest = workspace.manifest("rollouts")
    assert manifest is not None
    assert remade.differences(manifest) == ["prompts has been made again since"]


def test_a_missing_earlier_step_is_named_with_its_command(workspace: Workspace):
    with pytest.raises(MissingArtefact, match="opadpo prepare"):
        workspace.require("prompts", "run `opadpo prepare`")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b", ".hidden", "ü"])
def test_names_that_could_leave_the_folder_are_refused(workspace: Workspace, name: str):
    with pytest.raises(UserError):
        checked_name(name)
    with pytest.raises(UserError):
        workspace.captions(name, "heldout")


def test_a_damaged_manifest_is_told(workspace: Workspace):
    make(workspace, plan(size=1))
    (workspace.root / "things" / "manifest.json").write_text("{")
    with pytest.raises(WorkspaceError, match="damaged"):
        workspace.state(plan(size=1))


def test_in_place_artefacts_are_marked_done_at_the_end(workspace: Workspace):
    what = plan("expert", model="m")
    with workspace.lock("expert"):
        workspace.mark_done(what, {"done": 2}, started_at=datetime.now(UTC))
    assert workspace.state(what) == "done"
    assert workspace.state(plan("expert", model="n")) == "stale"


HOLD = """
    import sys, time
    from opadpo.manifest import Plan
    from opadpo.workspace import Workspace
    workspace = Workspace.open(sys.argv[1])
    with workspace.writing(Plan(artefact="things", step="make", settings={"size": 1}, inputs={})) as writer:
        (writer.folder / "data.txt").write_text("by the other process")
        print("holding", flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_writer_is_refused_and_a_killed_one_leaves_nothing_locked(workspace: Workspace):
    code = textwrap.dedent(HOLD)
    child = subprocess.Popen([sys.executable, "-c", code, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "holding"
        with pytest.raises(Busy, match=f"process {child.pid}"), workspace.writing(plan(size=1)):
            pass
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    with workspace.writing(plan(size=1)) as writer:
        assert (writer.folder / "data.txt").read_text() == "by the other process"
        writer.finish({})
    assert workspace.state(plan(size=1)) == "done"


def test_a_full_disk_is_one_message_and_leaves_the_old_artefact(workspace: Workspace):
    make(workspace, plan(size=1), "old")
    with pytest.raises(DiskFull, match="No space left"), workspace.writing(plan(size=2)) as writer:
        (writer.folder / "data.txt").write_text("new")
        Path("/dev/full").write_text("x" * 100_000)
    assert (workspace.root / "things" / "data.txt").read_text() == "old"


def test_atomic_write_replaces_whole_files_and_leaves_no_temporary(tmp_path: Path):
    atomic_write(tmp_path / "a" / "x.json", "1")
    atomic_write(tmp_path / "a" / "x.json", b"2")
    assert (tmp_path / "a" / "x.json").read_bytes() == b"2"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.json"]
