"""What a job needs on another machine, and what it brings back.

A workspace there is a mirror of part of the one here: its folder has the same layout, and an artefact there has the
manifest that it has here. So a step that runs there finds what it would find here, and what it makes counts here.
An artefact is copied into a staging folder, only what differs, and swapped in whole when all of it is there.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from opadpo.errors import StepFailed, UserError, WorkspaceError, disk_errors
from opadpo.hashing import digest
from opadpo.jobs import identity
from opadpo.jobs.machines import OverSsh, joined
from opadpo.jobs.record import OPADPO, Job
from opadpo.manifest import Manifest
from opadpo.progress import Progress
from opadpo.workspace import Workspace, checked_name

PEOPLE = ("prepare", "revise", "build")
"""Steps that belong where people work: they read and write the reviews, which no copy of a file can merge."""
MARKER = "complete.json"
"""A checkpoint's last file."""
STAGING = ".staging"
_KEPT_THERE = ("/reference/", "/.*")
"""Of a run's folder: can be computed again, and is large."""
_ATTEMPTS = 3


def folder_name(workspace: Workspace) -> str:
    """Name of a workspace's mirror: readable, and another one for every machine and path."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", workspace.root.name).strip("-") or "workspace"
    return f"{readable}-{digest([identity.hostname(), str(workspace.root)])[:10]}"


def check_steps(job: Job, where: str) -> None:
    """Check that every command of a job may run in a mirror.

    Raises:
        UserError: if one of them works on the reviews.
    """
    wrong = sorted({verb for verb, _ in _verbs(job) if verb in PEOPLE})
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
            DiskFull: if there is no room there.
        """
        artefacts = list(artefacts)
        paths = {artefact: self._manifest_there(artefact) for artefact in artefacts}
        there = self.machine.pieces(dict.fromkeys(paths.values(), 0))
        staged = {}
        for artefact in artefacts:
            known = there.get(paths[artefact])
            if known is not None and known.data == self.workspace.manifest_path(artefact).read_bytes():
                continue
            folder = joined(STAGING, f"arrive--{artefact.replace('/', '--')}")
            self.machine.done(["mkdir", "-p", "--", joined(self.root, folder)])
            options = [] if Path(artefact).suffix else ["--delete", f"--link-dest={joined(self.root, artefact)}"]
            source = self.workspace.root / artefact
            if Path(artefact).suffix:
                options = _only(source.name, self.workspace.manifest_path(artefact).name)
                source = source.parent
            progress.say(f"{artefact} goes to {self.machine.name}")
            self.machine.put(source, joined(self.root, folder), progress, *options)
            staged[artefact] = folder
        return staged

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
                options, there = _only(Path(artefact).name, here.name), joined(self.root, str(Path(artefact).parent))
            elif here.is_file():
                options.append(f"--link-dest={self.workspace.root / artefact}")
            with disk_errors(folder):
                self.machine.get(there, folder, progress, *options)
            arrived = folder / here.name
            # A job there may have made it anew while it was copied.
            if arrived.is_file() and arrived.read_bytes() == wanted == self.machine.read(path):
                self.workspace.adopt(artefact, folder)
                return True
        raise StepFailed(
            f"{artefact} keeps changing on {self.machine.name}", seen=there, remedy="fetch it when the job has ended"
        )

    def fetch_run(self, name: str, progress: Progress) -> bool:
        """Bring checkpoints and metrics of a run, also while it goes on; False if there is no such run.

        A checkpoint counts when its marker is there, which comes after everything else.

        Raises:
            Busy: if a model of this name is being trained here.
        """
        there = joined(self.root, "runs", checked_name(name))
        if self.machine.run(["test", "-d", there]).code != 0:
            return False
        excluded = [f"--exclude={pattern}" for pattern in _KEPT_THERE]
        here = self.workspace.run(name)
        with self.workspace.lock(f"adapters/{name}"), disk_errors(here):
            self.machine.get(there, here, progress, *excluded, f"--exclude={MARKER}")
            self.machine.get(there, here, progress, *excluded, "--delete-after")
        return True

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


def _only(*names: str) -> list[str]:
    """Options that copy these files of a folder, and nothing else."""
    return [*(f"--include=/{name}" for name in names), "--exclude=*"]
