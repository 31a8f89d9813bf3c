"""What a place where jobs run has to do; docs/jobs.md and CONTRIBUTING.md show how to add one."""

from abc import ABC, abstractmethod
from pathlib import Path

from opadpo.checks import Check
from opadpo.jobs.record import Job, Resources
from opadpo.progress import Progress
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace


class Target(ABC):
    """Starts a job's runner somewhere, says what became of it, brings its files. It keeps nothing in memory.

    The runner (`opadpo.jobs.runner`) does the rest on that machine: it waits for devices, runs the commands, watches
    them, and writes into the job's folder there.
    """

    def __init__(self, name: str, settings: TargetSection, workspace: Workspace) -> None:
        """`settings` are those of the recipe for a new job, and the job's own for one that was submitted before."""
        self.name = name
        self.settings = settings
        self.workspace = workspace

    @abstractmethod
    def check(self, recipe: Path | None) -> list[Check]:
        """Whether the machine is fit for jobs: reachable, interpreter, package, GPUs, disk; with a recipe its needs.

        Raises:
            Unreachable: if it cannot be asked.
        """

    def problems(self, resources: Resources) -> list[str]:
        """Why a job cannot have these resources, as far as it is known without asking another machine."""
        return []

    @abstractmethod
    def submit(self, job: Job, folder: Path, progress: Progress) -> Job:
        """Bring what the job needs and start its runner; also for a new attempt of an old job.

        `folder` is the job's folder here, with its files written. Returns the job with what was learned: host and
        process of the runner, or the scheduler's id.

        Raises:
            Unreachable: if the machine cannot be reached; nothing has started then.
            UserError: if the machine cannot do it.
            StepFailed: if the runner did not start.
        """

    @abstractmethod
    def status(self, job: Job, folder: Path) -> Job:
        """Bring the record and the small files of a job up to date from its machine; again and again as one likes.

        It is not asked while somebody hands the job over, so one that its machine does not know is lost.

        Raises:
            Unreachable: if the machine cannot be reached; the state stays what it was.
        """

    @abstractmethod
    def logs(self, job: Job, folder: Path, offset: int) -> bytes:
        """What the job's log has after its first `offset` bytes; of a long one as much as fits into memory easily."""

    @abstractmethod
    def cancel(self, job: Job, folder: Path, by: str) -> None:
        """Ask the runner to stop the job; it is cancelled when its state says so.

        Raises:
            Unreachable: if the machine cannot be reached.
        """

    @abstractmethod
    def fetch(self, job: Job, folder: Path, progress: Progress) -> list[str]:
        """Bring what the job has made into this workspace; returns the artefacts that came, relative to it.

        Empty where the workspace is the same one.

        Raises:
            Unreachable: if the machine cannot be reached.
            Busy: if another process writes an artefact here.
        """
