"""A new workspace, empty or with what another one has made and the new recipe leaves valid."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from opadpo.errors import MissingArtefact, ModelError, StepFailed, UserError, disk_errors
from opadpo.files import folder_errors, fsync_tree
from opadpo.models.base import read_pin
from opadpo.progress import Progress
from opadpo.recipe import preset_text
from opadpo.review.exchange import transfer
from opadpo.review.opening import database_url
from opadpo.review.store import ReviewStore, has_store, reviews_head
from opadpo.steps.result import StepResult
from opadpo.steps.status import PIN, REVIEWS, artefacts, plan_for
from opadpo.workspace import RECIPE_FILE, Workspace, check_free

DATABASE_SUFFIXES = (".db", ".db-wal", ".db-shm")
"""A SQLite file and what it keeps beside itself while it is open."""

GROWING = "expert"
"""The artefact that is written in place: requests, and the log of a server."""


def init(
    root: Path,
    recipe: str | None,
    *,
    source: Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress,
) -> StepResult:
    """Make a workspace in a new or empty folder.

    `recipe` is a preset or a YAML file; `source` a workspace whose artefacts are taken over where they would come out
    the same under the new recipe (and whose recipe is used if `recipe` is None). The folder appears whole or not at
    all.

    Raises:
        UserError: if there is neither `recipe` nor `source`, or no such recipe.
        WorkspaceError: if the folder holds something, or `source` is not a workspace.
        RecipeError: if the recipe has mistakes.
    """
    started = time.monotonic()
    if recipe is None and source is None:
        raise UserError(
            "Which recipe?", remedy="add --recipe NAME (`opadpo recipe` lists them), or --from another workspace"
        )
    root = root.expanduser().absolute()
    old = Workspace.open(source) if source is not None else None
    text = preset_text(recipe) if recipe is not None else _recipe_text(old)
    if old is None:
        Workspace.create(root, text, list(overrides))
        taken: list[str] = []
    else:
        taken = _create_from(old, root, text, list(overrides), progress)
    return StepResult(step="init", status="done", outputs=taken, seconds=round(time.monotonic() - started, 2))


def _recipe_text(old: Workspace | None) -> str:
    assert old is not None
    return (old.root / RECIPE_FILE).read_text(encoding="utf-8")


def _create_from(old: Workspace, root: Path, text: str, overrides: list[str], progress: Progress) -> list[str]:
    """Make the workspace beside its place, then move it there; returns what was taken over."""
    check_free(root)
    with folder_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}.init-"))
    try:
        new = Workspace.create(beside / "workspace", text, overrides)
        with disk_errors(root):
            taken = [artefact for artefact in artefacts(old) if _take_over(old, new, artefact, progress)]
            fsync_tree(new.root)
            os.replace(new.root, root)
    finally:
        shutil.rmtree(beside)
    return taken


def _take_over(old: Workspace, new: Workspace, artefact: str, progress: Progress) -> bool:
    """Take one artefact over if it is finished and would come out the same under the new recipe."""
    if artefact == PIN:
        return _take_pin(old, new)
    if artefact == REVIEWS:
        return _take_reviews(old, new)
    manifest = old.manifest(artefact)
    if manifest is None:
        return False
    plan = plan_for(new, artefact, manifest, reviews_head=reviews_head(new))
    assert plan is not None
    if differences := plan.differences(manifest):
        progress.say(f"not taken over: {artefact} ({differences[0]})")
        return False
    path = old.root / artefact
    if path.is_dir():
        shutil.copytree(path, new.root / artefact, copy_function=_copy if artefact == GROWING else _link)
    else:
        for file in (path, old.manifest_path(artefact)):
            target = new.root / file.relative_to(old.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(str(file), str(target))
    if not manifest == new.manifest(artefact) == old.manifest(artefact):
        raise StepFailed(
            f"{artefact} changed while it was taken over",
            seen=old.root,
            remedy="wait for its step, then run init again",
        )
    if artefact.startswith("adapters/"):
        _copy_run(old, new, Path(artefact).name)
    return True


def _take_pin(old: Workspace, new: Workspace) -> bool:
    path = new.root / PIN
    try:
        shutil.copyfile(old.root / PIN, path)
        read_pin(new)
    except (FileNotFoundError, MissingArtefact, ModelError):
        path.unlink(missing_ok=True)
        return False
    return True


def _take_reviews(old: Workspace, new: Workspace) -> bool:
    """Revisions are valid where the rollouts are, and where no other expert is asked for."""
    asked_again = old.manifest("expert") is not None and new.manifest("expert") is None
    if not has_store(old) or new.manifest("rollouts") is None or asked_again:
        return False
    if database_url(old) is None and database_url(new) is None:
        _copy_database(old.reviews_db, new.reviews_db)
    elif database_url(old) != database_url(new):
        with ReviewStore.of(old) as source, ReviewStore.of(new) as target:
            transfer(source, target)
    return True


def _copy_run(old: Workspace, new: Workspace, name: str) -> None:
    """Metrics of a training run. They are copied, because a run appends to them; checkpoints stay behind."""
    for pattern in ("*.json", "*.jsonl"):
        for file in old.run(name).glob(pattern):
            new.run(name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, new.run(name) / file.name)


def _link(source: str, target: str) -> None:
    """A hard link, which is safe where an artefact is replaced whole and never changed in place."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)


def _copy(source: str, target: str) -> None:
    """A copy of a file that may grow in place, also while another process writes to it."""
    if source.endswith(DATABASE_SUFFIXES[0]):
        _copy_database(Path(source), Path(target))
    elif not source.endswith(DATABASE_SUFFIXES):
        shutil.copy2(source, target)


def _copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a SQLite file, also while another process writes to it."""
    with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)
