"""Artefacts whose files were damaged or removed: one message, and its remedy leads out."""

from pathlib import Path

import pytest
from filled_workspace import fill

from opadpo.errors import ModelError, WorkspaceError
from opadpo.models.adapters import read_adapter_config
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Rollout
from opadpo.review.catalogue import Catalogue
from opadpo.steps import plans
from opadpo.steps.build import build
from opadpo.tables import iter_prompts, iter_rollouts, read_records, write_records
from opadpo.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "a b", preset_text("toy"))
    fill(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["garbage", "gone", "another table"])
def test_a_remedy_that_makes_the_artefact_again(workspace: Workspace, damage: str) -> None:
    file = workspace.prompts / "prompts.parquet"
    if damage == "garbage":
        file.write_bytes(b"garbage")
    elif damage == "gone":
        file.unlink()
    else:
        write_records(file, [], Rollout)
        rollouts = read_records(workspace.rollouts, Rollout)
        write_records(file, rollouts[:1], Rollout)
    with pytest.raises(WorkspaceError) as caught:
        read_records(file, Prompt)
    manifest = workspace.prompts / "manifest.json"
    assert str(file) in str(caught.value)
    assert f"delete {manifest}, then run `opadpo status '{workspace.root}'`" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
    plan = plans.prompts(workspace)
    assert workspace.manifest("prompts") is not None
    manifest.unlink()
    assert workspace.state(plan) == "missing"


@pytest.mark.slow
def test_a_shard_or_a_prompt_that_is_gone_is_noticed(workspace: Workspace) -> None:
    rollouts = read_records(workspace.rollouts, Rollout)
    with workspace.writing(plans.rollouts(workspace)) as writer:
        for number in range(2):
            write_records(writer.folder / f"part-0000{number}.parquet", rollouts[30 * number :][:30], Rollout)
        writer.finish({"rollouts": 60})
    assert len(list(iter_rollouts(workspace))) == 60
    (workspace.rollouts / "part-00001.parquet").unlink()
    with pytest.raises(WorkspaceError, match="30 records, its manifest says 60") as caught:
        build(workspace, progress=SilentProgress())
    assert f"delete {workspace.rollouts / 'manifest.json'}, then run `opadpo status" in str(caught.value)
    with pytest.raises(WorkspaceError, match="30 records"):
        Catalogue(workspace).columns()

    prompts = list(iter_prompts(workspace))
    with workspace.writing(plans.prompts(workspace)) as writer:
        write_records(writer.folder / "prompts.parquet", prompts[:-1], Prompt)
        writer.finish({"train": 50, "heldout": 10})
    with pytest.raises(WorkspaceError, match="59 records, its manifest says 60"):
        build(workspace, progress=SilentProgress())


def test_a_single_file_that_is_gone_is_missing(workspace: Workspace) -> None:
    plan = plans.captions(workspace, "base", "heldout")
    with workspace.writing(plan) as writer:
        (writer.folder / "heldout.parquet").write_bytes(b"x")
        writer.finish({"captions": 1})
    assert workspace.state(plan) == "done"
    workspace.captions("base", "heldout").unlink()
    assert workspace.state(plan) == "missing"


@pytest.mark.slow
def test_an_adapter_of_a_workspace_names_its_manifest(workspace: Workspace, tmp_path: Path) -> None:
    plan = plans.adapter(workspace, "opa", plans.VARIANTS["opa"])
    with workspace.writing(plan) as writer:
        (writer.folder / "adapter_config.json").write_text("{")
        writer.finish({})
    with pytest.raises(ModelError, match=r"manifest\.json, then run `opadpo status"):
        read_adapter_config(workspace.adapter("opa"))
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ModelError, match="train the adapter again"):
        read_adapter_config(tmp_path / "elsewhere")
