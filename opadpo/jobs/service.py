"""What the command line, the app and notebooks call: ask for jobs, look at them, stop them, go on with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from opadpo.errors import StepFailed
from opadpo.jobs.folder import JOB_FILE, checked_id, read_job
from opadpo.jobs.record import Job, JobRequest, observe
from opadpo.jobs.targets import Target, named_target
from opadpo.progress import Progress
from opadpo.recipe import Recipe
from opadpo.workspace import Workspace


@dataclass(frozen=True)
class Preview:
    """What a request would do."""

    commands_text: str
    """The commands as lines that a shell takes."""
    overrides: list[str]
    """What differs from the workspace's recipe, the preset's differences first."""
    recipe: Recipe
    """The resolved recipe; where that cannot be, the workspace's."""
    problems: list[str]
    """Why it cannot be submitted, every reason at once; empty if it can."""


class TargetInfo(NamedTuple):
    """A place where jobs run."""

    name: str
    """As the recipe calls it."""
    kind: str
    """`local`, `ssh` or `slurm`."""
    default: bool
    """Whether jobs run there that name no other place."""


class Jobs:
    """The jobs of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.root = workspace.jobs()

    def targets(self) -> list[TargetInfo]:
        """Places where jobs of this workspace may run."""
        jobs = self.workspace.recipe.jobs
        return [TargetInfo(name, section.kind, name == jobs.target) for name, section in jobs.named().items()]

    def target(self, name: str) -> Target:
        """A target of the recipe by its name.

        Raises:
            UserError: if there is none of that name.
        """
        return named_target(name, self.workspace)

    def folder(self, job_id: str) -> Path:
        """The folder of a job, whether it is there or not.

        Raises:
            NotFound: if it cannot be a job's id.
        """
        return self.root / checked_id(job_id)

    def get(self, job_id: str) -> Job:
        """A job as it is now; one whose runner died is `lost`.

        Raises:
            NotFound: if there is none.
        """
        folder = self.folder(job_id)
        return observe(read_job(folder), folder)

    def preview(self, request: JobRequest) -> Preview:
        """What a request would do, and why it cannot be submitted if it cannot; nothing is written."""
        raise StepFailed("Jobs cannot be submitted yet", seen=request.step)

    def submit(
        self, request: JobRequest, *, by: str, progress: Progress | None = None, cloned_from: str | None = None
    ) -> Job:
        """Make a job of a request and start its runner; returns as soon as that runs.

        Raises:
            UserError: if the request cannot work, every reason at once.
            Conflict: if a job that has not ended writes the same artefact; the message names it.
            Unreachable: if the target's machine cannot be reached.
        """
        raise StepFailed("Jobs cannot be submitted yet", seen=request.step)

    def refresh(self, job_id: str, progress: Progress | None = None) -> Job:
        """Bring a job that runs on another machine up to date, and fetch what it has made once it has ended.

        Raises:
            Unreachable: if the machine cannot be reached; the job stays what it was.
        """
        raise StepFailed("Jobs cannot be brought up to date yet", seen=job_id)

    def cancel(self, job_id: str, *, by: str) -> Job:
        """Ask a job to stop; it saves a checkpoint first. Nothing happens to one that has ended.

        Raises:
            Unreachable: if its machine cannot be reached.
        """
        raise StepFailed("Jobs cannot be cancelled yet", seen=job_id)

    def resume(self, job_id: str, *, by: str, progress: Progress | None = None) -> Job:
        """Run a job again that failed, was cancelled or lost: a new attempt, which does what is missing.

        Raises:
            Conflict: if it has not ended, or another job writes the same artefact.
        """
        raise StepFailed("Jobs cannot be resumed yet", seen=job_id)

    def clone_request(self, job_id: str) -> JobRequest:
        """What was asked for with a job, to be changed and submitted anew."""
        return self.get(job_id).request

    def fetch(self, job_id: str, progress: Progress | None = None) -> list[str]:
        """Bring what a job has made into this workspace; the artefacts that came.

        Raises:
            Unreachable: if its machine cannot be reached.
        """
        raise StepFailed("Results cannot be fetched yet", seen=job_id)

    def list(self) -> list[Job]:
        """All jobs, the newest first, each as it is now."""
        folders = sorted((path.parent for path in self.root.glob(f"*/{JOB_FILE}")), reverse=True)
        return [self.get(folder.name) for folder in folders]
