"""One folder per project: what is in it, what is done, missing or stale, and how it is written.

An artefact is a folder or file that a step makes. It is written into a staging folder and swapped in whole when it
is complete, together with a manifest that says what it was made from. A step that is killed finds its staging folder
again, as long as nothing that it depends on has changed.
"""

import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from opadpo.errors import Busy, MissingArtefact, WorkspaceError, disk_errors
from opadpo.files import atomic_write, folder_errors, fsync_tree, given_path
from opadpo.layout import MANIFEST_FILE, Layout
from opadpo.manifest import Begun, Manifest, Plan
from opadpo.recipe import Recipe, dump_recipe, load_recipe, parse_recipe

RECIPE_FILE = "recipe.yaml"
BEGUN_FILE = ".begun.json"
RESOLVED_RECIPE_FILE = "recipe.resolved.yaml"

State = Literal["missing", "partial", "done", "stale"]


class Workspace(Layout):
    """A project folder."""

    def __init__(self, root: Path, recipe: Recipe, overrides: list[str] | None = None) -> None:
        """Use `Workspace.open` or `Workspace.create`."""
        super().__init__(root)
        self.recipe = recipe
        self.overrides = overrides or []

    @classmethod
    def open(
        cls, root: Path | str, overrides: list[str] | None = None, *, recipe_file: Path | None = None
    ) -> "Workspace":
        """Open an existing workspace and read its recipe, or another one in its place.

        Raises:
            WorkspaceError: if the folder is not a workspace.
            UserError: if that is no path, or if there is no such `recipe_file`.
            RecipeError: if the recipe has mistakes.
        """
        path = given_path(root, "workspace")
        if not (path / RECIPE_FILE).is_file():
            free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
            raise WorkspaceError(
                "This is not a workspace: it has no recipe.yaml",
                seen=path,
                remedy=f"make one with `opadpo init {shlex.quote(str(path))} --recipe toy`"
                if free
                else "name the folder of a workspace; `opadpo init DIR --recipe toy` makes one in a new folder",
            )
        return cls(path.resolve(), load_recipe(recipe_file or path / RECIPE_FILE, overrides), overrides)

    @classmethod
    def create(cls, root: Path | str, recipe_text: str, overrides: list[str] | None = None) -> "Workspace":
        """Make a workspace with this recipe. Overrides are written into the recipe file.

        Raises:
            WorkspaceError: if there is a workspace already, or the folder holds other things.
            UserError: if that is no path.
            RecipeError: if the recipe has mistakes; nothing is made then.
        """
        path = given_path(root, "workspace")
        recipe = parse_recipe(recipe_text, overrides)
        check_free(path)
        there = path.exists()
        with folder_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with disk_errors(path):
            try:
                atomic_write(path / RECIPE_FILE, dump_recipe(recipe) if overrides else recipe_text)
            except OSError:
                if not there:
                    path.rmdir()
                raise
        return cls(path.resolve(), recipe)

    # -- state -------------------------------------------------------------------------------------------------

    def manifest(self, artefact: str) -> Manifest | None:
        """The manifest of an artefact, or None if it is not there or not complete."""
        path = self.manifest_path(artefact)
        if path.name != MANIFEST_FILE and not (self.root / artefact).exists():
            return None
        try:
            return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise WorkspaceError(
                "A manifest is damaged",
                seen=path,
                remedy="delete that file; the step makes its artefact again",
            ) from error

    def state(self, plan: Plan) -> State:
        """Whether the artefact of a plan is missing, partly written, done, or stale."""
        manifest = self.manifest(plan.artefact)
        if manifest is None:
            return "partial" if self._staging(plan).exists() else "missing"
        return "stale" if plan.differences(manifest) else "done"

    def fingerprint(self, artefact: str) -> str:
        """Fingerprint of a finished artefact, for the `inputs` of a plan; empty if it is not there."""
        manifest = self.manifest(artefact)
        return manifest.fingerprint if manifest else ""

    def require(self, artefact: str, remedy: str) -> Manifest:
        """The manifest of an artefact that a step needs.

        Raises:
            MissingArtefact: if it is not there; `remedy` says which command makes it.
        """
        manifest = self.manifest(artefact)
        if manifest is None:
            raise MissingArtefact(f"{artefact} is not there yet", seen=self.root / artefact, remedy=remedy)
        return manifest

    def unfinished(self, plan: Plan) -> Path | None:
        """The folder with what an unfinished run of a plan has written, or None."""
        staging = self._staging(plan)
        return staging if staging.is_dir() else None

    def begun(self, artefact: str) -> Begun | None:
        """What the unfinished run of an artefact makes it from, whatever the recipe says now; None if there is none."""
        found = [Begun.read(folder / BEGUN_FILE) for folder in self._stagings(artefact)]
        return max(filter(None, found), key=lambda begun: begun.started_at, default=None)

    def writer(self, artefact: str) -> dict[str, Any] | None:
        """Who is writing an artefact now: `pid`, `host`, `since`; None if nobody on this machine is.

        Only reads, so that asking never gets in a writer's way.
        """
        path = self.root / ".locks" / f"{_staging_name(artefact)}.owner.json"
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
            alive = owner["host"] != socket.gethostname() or psutil.pid_exists(owner["pid"])
        except (OSError, ValueError, KeyError):
            return None
        return owner if alive else None

    # -- writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, artefact: str) -> Iterator[None]:
        """Be the only writer of an artefact.

        Raises:
            Busy: if another process is; the message names it.
        """
        folder = self.root / ".locks"
        name = artefact.replace("/", "--")
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / f"{name}.lock")
            owner = folder / f"{name}.owner.json"
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise Busy(
                    f"Another process is writing {artefact}",
                    seen=_owner_text(owner),
                    remedy="wait until it has finished, or end it; then run the command again",
                ) from error
        try:
            atomic_write(
                owner,
                json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}),
            )
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def writing(self, plan: Plan) -> Iterator["Writer"]:
        """Write the artefact of a plan; call `Writer.finish` at the end to swap it in.

        If the block ends without `finish` (an error, a kill), the staging folder stays and the same plan finds it
        again; the artefact in place is untouched until then.

        Raises:
            Busy: if another process writes the same artefact.
            DiskFull: if there is no room.
        """
        with self.lock(plan.artefact), disk_errors(self.root / plan.artefact):
            staging = self._staging(plan)
            for other in self._stagings(plan.artefact):
                if other != staging:
                    shutil.rmtree(other)
            staging.mkdir(parents=True, exist_ok=True)
            before = Begun.read(staging / BEGUN_FILE)
            begun = Begun(
                **plan.model_dump(),
                overrides=self.overrides,
                started_at=before.started_at if before else datetime.now(UTC),
            )
            atomic_write(staging / BEGUN_FILE, begun.model_dump_json(indent=2))
            yield Writer(self, plan, staging, begun)

    def adopt(self, artefact: str, folder: Path) -> Manifest:
        """Swap in a finished artefact that was made elsewhere from the same inputs, as `folder` holds it.

        `folder` lies in `.staging`; of an artefact that is a single file it holds that file and its hidden manifest.

        Raises:
            WorkspaceError: if the folder does not hold that artefact, complete.
            Busy: if another process writes the same artefact.
            DiskFull: if there is no room.
        """
        path = folder / self.manifest_path(artefact).name
        try:
            manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkspaceError(
                f"What came is not a complete {artefact}", seen=path, remedy="bring it again"
            ) from error
        whole = not Path(artefact).suffix or (folder / Path(artefact).name).is_file()
        if manifest.artefact != artefact or not whole:
            raise WorkspaceError(
                f"What came is not a complete {artefact}",
                seen=f"{folder} holds {manifest.artefact}",
                remedy=f"remove {folder}, and bring it again",
            )
        with self.lock(artefact), disk_errors(self.root / artefact):
            self.swap_in(artefact, folder)
        return manifest

    def swap_in(self, artefact: str, folder: Path) -> None:
        """Put a finished folder, with its manifest inside, in the artefact's place. The caller holds its lock."""
        target = self.root / artefact
        target.parent.mkdir(parents=True, exist_ok=True)
        fsync_tree(folder)
        if target.suffix:
            # The old manifest goes first: a kill in between leaves "not done", never a manifest of another file.
            manifest_path = self.manifest_path(artefact)
            manifest_path.unlink(missing_ok=True)
            os.replace(folder / target.name, target)
            os.replace(folder / manifest_path.name, manifest_path)
            shutil.rmtree(folder)
        elif target.exists():
            replaced = target.with_name(f".{target.name}.replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            os.rename(target, replaced)
            os.rename(folder, target)
            shutil.rmtree(replaced)
        else:
            os.rename(folder, target)

    def mark_done(self, plan: Plan, counts: Mapping[str, int], *, started_at: datetime, content: str = "") -> Manifest:
        """Write the manifest of an artefact that grows in place (a database), when the step has finished.

        The caller holds the artefact's lock.
        """
        manifest = Manifest(
            artefact=plan.artefact,
            step=plan.step,
            settings=plan.settings,
            inputs=plan.inputs,
            counts=dict(counts),
            overrides=self.overrides,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            content=content,
        )
        with disk_errors(self.root / plan.artefact):
            atomic_write(self.root / plan.artefact / RESOLVED_RECIPE_FILE, dump_recipe(self.recipe))
            atomic_write(self.manifest_path(plan.artefact), manifest.model_dump_json(indent=2))
        return manifest

    def _staging(self, plan: Plan) -> Path:
        return self.root / ".staging" / f"{_staging_name(plan.artefact)}.{plan.key[:16]}"

    def _stagings(self, artefact: str) -> list[Path]:
        return list((self.root / ".staging").glob(f"{_staging_name(artefact)}.*"))


class Writer:
    """An artefact being written in its staging folder."""

    def __init__(self, workspace: Workspace, plan: Plan, folder: Path, begun: Begun) -> None:
        """Made by `Workspace.writing`."""
        self.begun = begun
        self.workspace = workspace
        self.plan = plan
        self.folder = folder

    def finish(self, counts: Mapping[str, int], *, content: str = "") -> Manifest:
        """Add manifest and resolved recipe and swap the staging folder into place.

        For an artefact that is a single file, the staging folder must hold a file of that name.
        """
        made = self.begun.model_dump()
        manifest = Manifest(**made, counts=dict(counts), finished_at=datetime.now(UTC), content=content)
        text = manifest.model_dump_json(indent=2)
        (self.folder / BEGUN_FILE).unlink()
        if Path(self.plan.artefact).suffix:
            hidden = self.workspace.manifest_path(self.plan.artefact).name
            atomic_write(self.folder / hidden, text)
        else:
            atomic_write(self.folder / RESOLVED_RECIPE_FILE, dump_recipe(self.workspace.recipe))
            atomic_write(self.folder / MANIFEST_FILE, text)
        self.workspace.swap_in(self.plan.artefact, self.folder)
        return manifest


def check_free(path: Path) -> None:
    """Check that a workspace can be made at `path`: nothing is there, or an empty folder.

    Raises:
        WorkspaceError: if something is.
    """
    if path.exists() and not path.is_dir():
        raise WorkspaceError("The workspace's path is a file", seen=path, remedy="choose another path")
    if path.is_dir() and any(path.iterdir()):
        kind = "is a workspace already" if (path / RECIPE_FILE).exists() else "holds other files"
        raise WorkspaceError(f"The folder {kind}", seen=path, remedy="choose a new or empty folder")


def _staging_name(artefact: str) -> str:
    return artefact.replace("/", "--")


def _owner_text(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since'][:19]} UTC"
    except (OSError, ValueError, KeyError):
        return "a process that has just started"
