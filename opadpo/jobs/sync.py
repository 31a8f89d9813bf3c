"""What a job needs on another machine, and what it brings back.

A workspace there is a mirror of part of the one here: its folder has the same layout, and an artefact there has the
manifest that it has here. So a step that runs there finds what it would find here, and what it makes counts here.
An artefact is copied into a staging folder, only what differs, and swapped in whole when all of it is there.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from opadpo.errors import Conflict, OpadpoError, StepFailed, UserError, WorkspaceError, disk_errors
from opadpo.hashing import digest
from opadpo.jobs import identity
from opadpo.jobs.folder import FETCHED_FILE, JOB_FILE, read_job
from opadpo.jobs.machines import OverSsh, joined
from opadpo.jobs.record import OPADPO, Job
from opadpo.layout import checked_name
from opadpo.manifest import Manifest
from opadpo.progress import Progress
from opadpo.workspace import Workspace

PEOPLE = ("prepare", "revise", "build")
"""Steps that belong where people work: they read and write the reviews, which no copy of a file can merge."""
MARKER = "complete.json"
"""A checkpoint's last file."""
STAGING = ".staging"
SET_ASIDE = ".before"
"""Folder of a workspace for what another machine's has taken the place of: of each run and artefact the newest."""
RUN_PLAN_FILE = "plan.json"
"""Of a run's folder: what it was begun with."""
_EXCLUDED = ("--exclude=/reference/", "--exclude=/.*")
"""Of a run's folder: can be computed again, and is large."""
_ATTEMPTS = 3


class _Run(NamedTuple):
    """How far a run is."""

    plan: str
    """Key of its plan; empty if that cannot be read."""
    updates: int
    """Of its newest complete checkpoint; 0: it has none."""


def folder_name(workspace: Workspace) -> str:
    """Name of a workspace's mirror: readable, and another one for every machine and path."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", workspace.root.name).strip("-") or "workspace"
    return f"{readable}-{digest([identity.hostname(), str(workspace.root)])[:10]}"


def check_steps(job: Job, where: str) -> None:
    """Check that every command of a job may run in a mirror.

    Raises:
        UserError: if one of them works on the reviews.
    """
    wrong = sorted(verbs(job) & set(PEOPLE))
    if wrong:
        raise UserError(
            f"{' and '.join(wrong)} cannot run on {where}: reviews are kept where people work",
            seen=f"target {job.target} with a folder of its own",
            remedy="run it on the target `local`, or use a shared file system (`shared` of the target)",
        )


def needed(workspace: Workspace, job: Job) -> list[str]:
    """Artefacts that a job reads and that are here, in the order in which they are made.

    What one of its own commands makes first is not among them unless it is here already.
    """
    wanted: list[str] = []
    for verb, words in _verbs(job):
        wanted += _inputs(workspace, verb, words)
    wanted += job.writes
    return [artefact for artefact in dict.fromkeys(wanted) if workspace.manifest_path(artefact).is_file()]


def verbs(job: Job) -> set[str]:
    """What the commands of a job do."""
    return {verb for verb, _ in _verbs(job)}


def _verbs(job: Job) -> Iterator[tuple[str, list[str]]]:
    """(verb, its words) of every command that is one of this package."""
    for command in job.commands:
        if tuple(command[:2]) == OPADPO[:2] and len(command) > len(OPADPO):
            yield command[len(OPADPO)], command[len(OPADPO) + 1 :]


def _inputs(workspace: Workspace, verb: str, words: list[str]) -> list[str]:
    if verb == "train":
        stage, start = words[0], _option(words, "--from")
        rollouts = ["rollouts"] if stage == "opadpo" else []
        starts = (
            [f"adapters/{name}" for name in (start or ["opa"]) if name != "base"] if stage == "opadpo" or start else []
        )
        return ["prompts", *rollouts, f"datasets/{stage}", *starts]
    if verb == "rollout":
        return ["prompts", "rollouts"]
    if verb in ("caption", "evaluate"):
        models = [name for text in _option(words, "--model") for name in text.split(",")]
        sets = [f"benchmarks/{name}" for name in _option(words, "--set") if "=" not in name]
        if verb == "caption":
            return ["prompts", *sets, *(f"adapters/{name}" for name in models if name != "base")]
        every = "*" if not models else None
        return [
            "prompts",
            *_there(workspace, "benchmarks", "*"),
            *(
                file
                for name in ["base", *models]
                for file in _there(workspace, f"captions/{every or name}", "*.parquet")
            ),
            *_there(workspace, "evaluations", "*/*.json"),
        ]
    return []


def _option(words: list[str], name: str) -> list[str]:
    """Values of an option that may be given several times."""
    return [value for flag, value in pairwise(words) if flag == name]


def _there(workspace: Workspace, folder: str, pattern: str) -> list[str]:
    found = sorted(path for path in workspace.root.glob(f"{folder}/{pattern}") if not path.name.startswith("."))
    return [str(path.relative_to(workspace.root)) for path in found]


class Mirror:
    """A workspace and its mirror on another machine."""

    def __init__(self, workspace: Workspace, machine: OverSsh, root: str) -> None:
        """`root` is the mirror's folder there, absolute."""
        self.workspace, self.machine, self.root = workspace, machine, root

    def push(self, artefacts: Iterable[str], progress: Progress) -> dict[str, str]:
        """Copy artefacts that are not the same there into staging folders there: artefact -> its folder.

        Raises:
            Unreachable: if the machine cannot be reached.
            Conflict: if one of them would take the place of a result there that was never fetched.
            DiskFull: if there is no room there.
        """
        artefacts = list(artefacts)
        paths = {artefact: self._manifest_there(artefact) for artefact in artefacts}
        there = self.machine.pieces(dict.fromkeys(paths.values(), 0))
        staged = {}
        for artefact in artefacts:
            known = there.get(paths[artefact])
            if known is not None:
                if known.data == self.workspace.manifest_path(artefact).read_bytes():
                    continue
                self._refuse_to_replace(artefact)
            folder = joined(STAGING, f"arrive--{artefact.replace('/', '--')}")
            self.machine.done(["mkdir", "-p", "--", joined(self.root, folder)])
            options = ["--delete"]
            if known is not None:
                options.append(f"--link-dest={joined(self.root, artefact)}")
            source = self.workspace.root / artefact
            if Path(artefact).suffix:
                options = only(source.name, self.workspace.manifest_path(artefact).name)
                source = source.parent
            progress.say(f"{artefact} goes to {self.machine.name}")
            self.machine.put(source, joined(self.root, folder), progress, *options)
            staged[artefact] = folder
        return staged

    def _refuse_to_replace(self, artefact: str) -> None:
        """Check that what is there of an artefact has been here: a job's result is lost if nobody has fetched it."""
        for record in sorted(self.workspace.jobs().glob(f"*/{JOB_FILE}")):
            if (record.parent / FETCHED_FILE).exists():
                continue
            try:
                job = read_job(record.parent)
            except OpadpoError:
                continue
            started = any(attempt.started_at for attempt in job.attempts)
            if not started or not job.mirrored or job.target_settings.host != self.machine.name:
                continue
            if any(artefact == each or artefact.startswith(f"{each}/") for each in job.writes):
                raise Conflict(
                    f"{artefact} on {self.machine.name} is a result that was not fetched, and would be replaced",
                    seen=job.job_id,
                    remedy=f"`opadpo jobs fetch {self.workspace.root} {job.job_id}` brings it here",
                )

    def fetch(self, artefacts: Iterable[str], progress: Progress) -> list[str]:
        """Bring artefacts that are finished there and not the same here; returns those that came.

        Raises:
            Unreachable: if the machine cannot be reached; what came so far is not copied again.
            Busy: if another process writes one of them here.
            DiskFull: if there is no room here.
        """
        return [artefact for each in artefacts for artefact in self._inside(each) if self._fetch(artefact, progress)]

    def _inside(self, artefact: str) -> list[str]:
        """The artefact itself, or those that lie in a folder of this name there."""
        name = joined(self.root, artefact)
        found = self.machine.run(["find", name, "-name", ".*.manifest.json"]).out.decode().splitlines()
        inside = [path.replace("/.", "/").removesuffix(".manifest.json") for path in found]
        found = self.machine.run(["find", name, "-mindepth", "2", "-name", "manifest.json"]).out.decode().splitlines()
        inside += [str(Path(path).parent) for path in found]
        return [path.removeprefix(f"{self.root}/") for path in inside] or [artefact]

    def _fetch(self, artefact: str, progress: Progress) -> bool:
        path = self._manifest_there(artefact)
        here = self.workspace.manifest_path(artefact)
        folder = self.workspace.root / STAGING / f"fetch--{artefact.replace('/', '--')}"
        there = joined(self.root, artefact)
        for _ in range(_ATTEMPTS):
            wanted = self.machine.read(path)
            if wanted is None or (here.is_file() and here.read_bytes() == wanted):
                return False
            options = ["--delete"]
            if Path(artefact).suffix:
                options, there = only(Path(artefact).name, here.name), joined(self.root, str(Path(artefact).parent))
            elif here.is_file():
                options.append(f"--link-dest={self.workspace.root / artefact}")
            with disk_errors(folder):
                self.machine.get(there, folder, progress, *options)
            arrived = folder / here.name
            # A job there may have made it anew while it was copied.
            if arrived.is_file() and arrived.read_bytes() == wanted == self.machine.read(path):
                self._keep_newer(artefact, arrived, progress)
                self.workspace.adopt(artefact, folder)
                return True
        raise StepFailed(
            f"{artefact} keeps changing on {self.machine.name}", seen=there, remedy="fetch it when the job has ended"
        )

    def _keep_newer(self, artefact: str, arrived: Path, progress: Progress) -> None:
        """Set a folder here aside that was made after the one that has come."""
        ours, theirs = Manifest.read(self.workspace.manifest_path(artefact)), Manifest.read(arrived)
        if Path(artefact).suffix or ours is None or theirs is None or ours.finished_at <= theirs.finished_at:
            return
        with self.workspace.lock(artefact):
            aside = self._set_aside(self.workspace.root / artefact)
        progress.say(f"{artefact} that was here is newer than what came; it is kept as {aside}")

    def fetch_run(self, name: str, progress: Progress) -> bool:
        """Bring checkpoints and metrics of a run, also while it goes on; False if nothing came.

        A checkpoint counts when its marker is there, which comes after everything else. A run here that got as far
        stays; one of another plan is set aside.

        Raises:
            Busy: if a model of this name is being trained here.
        """
        there = joined(self.root, "runs", checked_name(name))
        theirs = self._run_there(name)
        if theirs is None:
            return False
        here = self.workspace.run(name)
        with self.workspace.lock(f"adapters/{name}"), disk_errors(here):
            ours = _run_here(here)
            if ours is not None and ours.updates > 0:
                if ours.plan != theirs.plan:
                    aside = self._set_aside(here)
                    progress.say(f"The run {name} that was here is of another plan; it is kept as {aside}")
                elif ours.updates > theirs.updates:
                    progress.say(f"The run {name} is further here ({ours.updates} updates) and stays")
                    return False
            self.machine.get(there, here, progress, *_EXCLUDED, f"--exclude={MARKER}")
            self.machine.get(there, here, progress, *_EXCLUDED, "--delete-after")
        return True

    def push_run(self, name: str, progress: Progress) -> bool:
        """Bring the newest checkpoint of a run that was begun here there, so that the same plan continues from it.

        A run there of another plan stays, and so does one that got as far: training there decides about it.

        Raises:
            Unreachable, DiskFull: as `push`.
        """
        here = self.workspace.run(checked_name(name))
        ours = _run_here(here)
        if ours is None or ours.updates <= 0 or self._finished(name, ours.plan):
            return False
        theirs = self._run_there(name)
        if theirs is not None and (theirs.plan != ours.plan or theirs.updates >= ours.updates):
            return False
        there = joined(self.root, "runs", name)
        self.machine.done(["mkdir", "-p", "--", there])
        progress.say(f"The run {name} goes to {self.machine.name}, to be continued after update {ours.updates}")
        wanted = [*_EXCLUDED, f"--include=/checkpoint-{ours.updates}/", "--exclude=/checkpoint-*"]
        self.machine.put(here, there, progress, *wanted, f"--exclude={MARKER}")
        self.machine.put(here, there, progress, *wanted)
        return True

    def _set_aside(self, path: Path) -> Path:
        """Move a folder of the workspace out of the way, in place of what was moved from there before; where it is."""
        aside = self.workspace.root / SET_ASIDE / path.relative_to(self.workspace.root)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if aside.exists():
            shutil.rmtree(aside)
        return path.rename(aside)

    def _finished(self, name: str, plan: str) -> bool:
        """Whether the run of this plan has made its adapter here."""
        done = Manifest.read(self.workspace.manifest_path(f"adapters/{name}"))
        return done is not None and digest([done.artefact, done.settings, done.inputs]) == plan

    def _run_there(self, name: str) -> "_Run | None":
        there = joined(self.root, "runs", name)
        plan = self.machine.read(joined(there, RUN_PLAN_FILE))
        if plan is None:
            return None
        found = self.machine.run(["find", there, "-mindepth", "2", "-maxdepth", "2", "-name", MARKER]).out.decode()
        return _Run(_key(plan), _newest(PurePosixPath(line).parent.name for line in found.splitlines()))

    def _manifest_there(self, artefact: str) -> str:
        here = self.workspace.manifest_path(artefact)
        return joined(self.root, str(here.relative_to(self.workspace.root)))

    def manifest_there(self, artefact: str) -> Manifest | None:
        """The manifest of an artefact there; None if it is not done there.

        Raises:
            WorkspaceError: if it is damaged.
        """
        text = self.machine.read(self._manifest_there(artefact))
        try:
            return None if text is None else Manifest.model_validate_json(text)
        except ValueError as error:
            raise WorkspaceError(f"The manifest of {artefact} on {self.machine.name} is damaged") from error


def _run_here(folder: Path) -> _Run | None:
    try:
        plan = _key((folder / RUN_PLAN_FILE).read_bytes())
    except OSError:
        plan = ""
    updates = _newest(path.parent.name for path in folder.glob(f"checkpoint-*/{MARKER}"))
    return _Run(plan, updates) if plan or updates else None


def _key(plan: bytes) -> str:
    try:
        return str(json.loads(plan)["key"])
    except (ValueError, KeyError, TypeError):
        return ""


def _newest(checkpoints: Iterable[str]) -> int:
    return max((int(name[11:]) for name in checkpoints if re.fullmatch(r"checkpoint-\d+", name)), default=0)


def only(*names: str) -> list[str]:
    """Options that copy these files of a folder, and nothing else."""
    return [*(f"--include=/{name}" for name in names), "--exclude=*"]
