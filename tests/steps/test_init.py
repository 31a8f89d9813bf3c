"""A new workspace, and what it takes over from another one."""

import shutil
from pathlib import Path

import made_workspace
import pytest

from opadpo.errors import RecipeError, UserError, WorkspaceError
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.review.store import ReviewStore
from opadpo.steps.init import init
from opadpo.steps.status import status
from opadpo.workspace import Workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_workspace.make(tmp_path_factory.mktemp("finished") / "w").root


@pytest.fixture
def old(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "old")


def test_a_preset_keeps_its_comments_and_overrides_are_written_out(tmp_path: Path) -> None:
    init(tmp_path / "plain", "toy", progress=SilentProgress())
    assert (tmp_path / "plain" / "recipe.yaml").read_text() == preset_text("toy")
    init(tmp_path / "deep" / "set", "toy", overrides=["seed=5"], progress=SilentProgress())
    assert Workspace.open(tmp_path / "deep" / "set").recipe.seed == 5


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/y"])
def test_a_path_that_cannot_be_made_is_one_message(old: Path, path: str) -> None:
    for source in (None, old):
        with pytest.raises(WorkspaceError, match=r"(?s)(cannot be made|Cannot write).*choose a") as caught:
            init(Path(path), "toy", source=source, progress=SilentProgress())
        assert caught.value.exit_status == 2


def test_a_path_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="cannot be made"):
        init(tmp_path / "file" / "w", "toy", progress=SilentProgress())


def test_init_is_advised_only_where_it_would_work(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="make one with `opadpo init"):
        Workspace.open(tmp_path / "new")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="in a new folder"):
        Workspace.open(tmp_path)


def test_the_same_recipe_takes_everything_over(old: Path, tmp_path: Path) -> None:
    result = init(tmp_path / "new", None, source=old, progress=SilentProgress())
    found = status(Workspace.open(tmp_path / "new"))
    assert {artefact.state for artefact in found.artefacts} == {"done"}
    assert set(result.outputs) == {artefact.artefact for artefact in found.artefacts}
    prompts = Path("prompts", "contents.txt")
    assert (tmp_path / "new" / prompts).stat().st_ino == (old / prompts).stat().st_ino
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_only_what_the_new_recipe_leaves_valid_is_taken(old: Path, tmp_path: Path) -> None:
    (old / "runs" / "opa" / "checkpoint-8").mkdir(parents=True)
    (old / "runs" / "opa" / "metrics.jsonl").write_text("{}\n")
    progress = SilentProgress()
    result = init(tmp_path / "new", None, source=old, overrides=["train.opadpo.loss.beta=0.3"], progress=progress)
    assert "adapters/opa" in result.outputs
    assert "reviews.db" in result.outputs
    left = {"adapters/opadpo", "captions/dpo/heldout.parquet", "evaluations/opadpo/toy.json"}
    assert left & set(result.outputs) == set()
    assert "not taken over: adapters/opadpo (train.opadpo.loss.beta was 0.1, is now 0.3)" in progress.messages
    assert status(Workspace.open(tmp_path / "new")).next == f"opadpo train opadpo {tmp_path / 'new'}"
    assert [path.name for path in (tmp_path / "new" / "runs" / "opa").iterdir()] == ["metrics.jsonl"]


def test_another_expert_takes_no_revisions(old: Path, tmp_path: Path) -> None:
    result = init(tmp_path / "new", None, source=old, overrides=["revise.temperature=0.5"], progress=SilentProgress())
    expected = {"prompts", "base.json", "rollouts", "captions/base/heldout.parquet", "evaluations/base/toy.json"}
    assert set(result.outputs) == expected
    assert not (tmp_path / "new" / "reviews.db").exists()


@pytest.mark.slow
def test_reviews_are_copied_so_that_the_two_go_their_own_ways(old: Path, tmp_path: Path) -> None:
    init(tmp_path / "new", None, source=old, progress=SilentProgress())
    made_workspace.review(Workspace.open(tmp_path / "new"), "r-9", "human")
    with ReviewStore.open(old / "reviews.db") as store:
        assert store.counts()["revisions"] == 1


def test_overrides_of_the_old_workspace_do_not_leak(old: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(old, ["rollout.top_k=5"])
    from opadpo.steps import plans

    made_workspace.fill(workspace, plans.rollouts(workspace), {"rows": 500})
    result = init(tmp_path / "new", None, source=old, progress=SilentProgress())
    assert "prompts" in result.outputs
    assert "rollouts" not in result.outputs


@pytest.mark.parametrize(
    ("recipe", "source", "overrides", "error"),
    [
        (None, None, [], UserError),
        ("nothing", None, [], UserError),
        ("toy", "no-such-workspace", [], WorkspaceError),
        (None, "old", ["seed=-1"], RecipeError),
    ],
)
def test_a_mistake_makes_nothing(
    old: Path, tmp_path: Path, recipe: str | None, source: str | None, overrides: list[str], error: type[UserError]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        init(
            tmp_path / "new",
            recipe,
            source=tmp_path / source if source else None,
            overrides=overrides,
            progress=SilentProgress(),
        )
    assert sorted(tmp_path.rglob("*")) == before
    assert old.is_dir()


def test_an_empty_folder_may_be_there(old: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    init(tmp_path / "new", None, source=old, progress=SilentProgress())
    assert (tmp_path / "new" / "prompts" / "manifest.json").is_file()
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        init(tmp_path / "new", None, source=old, progress=SilentProgress())
