"""What the command line, the app and notebooks call: ask for jobs, look at them, stop them, go on with them."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

import opadpo
from opadpo.errors import Conflict, NotFound, OpadpoError, UserError, disk_errors
from opadpo.files import atomic_write, make_folder
from opadpo.jobs.folder import (
    CANCEL_FILE,
    FETCHED_FILE,
    JOB_FILE,
    RECIPE_FILE,
    RESOLVED_FILE,
    checked_id,
    damaged_job,
    new_id,
    read_job,
    wish_to_stop,
    write_job,
)
from opadpo.jobs.on_the_way import LOCK_SECONDS, REFRESH_LOCK, Ways, alone, is_on_its_way
from opadpo.jobs.record import Attempt, Job, JobRequest, State, last_checkpoint, now, observe, one_line
from opadpo.jobs.requests import Planned, overlap, plan
from opadpo.jobs.targets import Target, make_target, named_target
from opadpo.progress import Progress, SilentProgress
from opadpo.recipe import Recipe, dump_recipe
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
    """Why it cannot be submitted, every reason at once, each beginning with its field; empty if it can."""
    writes: list[str]
    """Artefacts that it would make."""


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
        self.root = workspace.jobs()
        self._workspace = workspace.root
        self._read: dict[str, tuple[tuple[int, int], Job]] = {}
        self._ways = Ways()

    @property
    def workspace(self) -> Workspace:
        """The workspace with its recipe as it is now."""
        return Workspace.open(self._workspace)

    # -- looking -------------------------------------------------------------------------------------------------

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

    def log(self, job_id: str, offset: int = 0) -> Iterator[bytes]:
        """What a job's log has now after its first `offset` bytes, in pieces.

        Raises:
            Unreachable: if it is on another machine that cannot be reached.
        """
        job, folder = self.get(job_id), self.folder(job_id)
        target = self._target_of(job)
        while piece := target.logs(job, folder, offset):
            yield piece
            offset += len(piece)

    def preview(self, request: JobRequest) -> Preview:
        """What a request would do, and why it cannot be submitted if it cannot; nothing is written."""
        planned = plan(request, self.workspace, self._coming())
        text = self._job(request, planned, by="", cloned_from=None).without_snapshot().command_text(self._workspace)
        return Preview(text, planned.overrides, planned.recipe, planned.problems, planned.writes)

    def clone_request(self, job_id: str) -> JobRequest:
        """What was asked for with a job, to be changed and submitted anew."""
        return self.get(job_id).request

    # -- doing ---------------------------------------------------------------------------------------------------

    def submit(
        self, request: JobRequest, *, by: str, progress: Progress | None = None, cloned_from: str | None = None
    ) -> Job:
        """Make a job of a request and start its runner; returns as soon as that runs.

        Raises:
            UserError: if the request cannot work, every reason at once.
            Conflict: if a job that has not ended writes the same artefact; the message names it.
            Unreachable: if the target's machine cannot be reached.
        """
        job = self.enter(request, by=by, cloned_from=cloned_from)
        try:
            return self.hand_over(job, progress)
        except OpadpoError as error:
            self.withdraw(job, error)
            raise

    def enter(self, request: JobRequest, *, by: str, cloned_from: str | None = None) -> Job:
        """Make a job of a request and write it down; this process then has to `hand_over` it, or to `withdraw` it.

        Raises:
            UserError, Conflict: as `submit`.
        """
        workspace = self.workspace
        planned = plan(request, workspace, self._coming())
        if planned.problems:
            raise UserError(
                "\n".join(["The job cannot be submitted:", *(f"  - {each}" for each in planned.problems)]),
                remedy="correct what is named",
            )
        job = self._job(request, planned, by=by, cloned_from=cloned_from)
        folder = self.folder(job.job_id)
        with self._submitting():
            self._refuse_second_writer(job)
            with disk_errors(folder):
                folder.mkdir()
                with self._ways.beginning(folder):
                    shutil.copyfile(workspace.root / RECIPE_FILE, folder / RECIPE_FILE)
                    atomic_write(folder / RESOLVED_FILE, dump_recipe(planned.recipe))
                    write_job(folder, job)
        return job

    def hand_over(self, job: Job, progress: Progress | None = None) -> Job:
        """Bring a job that was entered to its machine and start its runner there; whoever calls sees to `withdraw`.

        Raises:
            UserError, Unreachable: if it cannot run there; nothing has started.
            OpadpoError: if its runner did not start.
        """
        folder, progress = self.folder(job.job_id), progress or SilentProgress()
        with alone(folder, progress):
            arrived = self._target_of(job).submit(job, folder, progress)
        self._ways.end(folder)
        return arrived

    def withdraw(self, job: Job, error: OpadpoError, *, seen: State | None = None) -> None:
        """What becomes of a job that could not be handed over: as if it had never been asked for.

        Where somebody has `seen` it waiting, or its runner did not start, that attempt stays, in this state.
        """
        folder = self.folder(job.job_id)
        try:
            self._unwrite(job, folder, error, seen)
        finally:
            self._ways.end(folder)

    def _unwrite(self, job: Job, folder: Path, error: OpadpoError, seen: State | None) -> None:
        first = len(job.attempts) == 1
        if seen or (first and not isinstance(error, UserError)):
            write_job(folder, job.moved(seen or "failed", one_line(str(error))))
        elif first:
            shutil.rmtree(folder)
        else:
            last = job.attempts[-2]
            before = {"attempts": job.attempts[:-1], "state": last.state, "reason": last.reason}
            write_job(folder, job.model_copy(update={**before, "state_at": last.ended_at or job.state_at}))

    def cancel(self, job_id: str, *, by: str) -> Job:
        """Ask a job to stop; it saves a checkpoint first. Nothing happens to one that has ended.

        Raises:
            Unreachable: if its machine cannot be reached.
            Conflict: if another process is bringing it there.
        """
        job = self.get(job_id)
        if job.mirrored and is_on_its_way(self.folder(job_id)):
            raise Conflict(
                "The job is being copied to its machine by another process",
                seen=job_id,
                remedy="end that process (Ctrl+C where it was submitted), or cancel the job once it has arrived",
            )
        if not job.terminal:
            self._target_of(job).cancel(job, self.folder(job_id), one_line(by))
            if job.mirrored:  # for whoever looks at it here, until it has stopped there
                atomic_write(self.folder(job_id) / CANCEL_FILE, wish_to_stop(one_line(by)))
        return self.get(job_id)

    def resume(self, job_id: str, *, by: str, progress: Progress | None = None) -> Job:
        """Run a job again that failed, was cancelled or lost: a new attempt, which does what is missing.

        Raises:
            Conflict: if it has not ended, or has succeeded, or another job writes the same artefact.
            Unreachable: if its machine cannot be reached; it stays what it was.
        """
        job = self.enter_again(job_id)
        try:
            return self.hand_over(job, progress)
        except OpadpoError as error:
            self.withdraw(job, error)
            raise

    def enter_again(self, job_id: str) -> Job:
        """Write a new attempt of a job down; this process then has to `hand_over` it, or to `withdraw` it.

        Raises:
            Conflict: as `resume`.
        """
        folder = self.folder(job_id)
        with self._submitting():
            before = self.get(job_id)
            if not before.terminal or before.state == "succeeded":
                raise Conflict(
                    "Only a job that ended before its time can be resumed",
                    seen=f"{job_id} is {before.state}",
                    remedy="clone it to run it once more" if before.terminal else "cancel it first",
                )
            self._refuse_second_writer(before)
            attempt = Attempt(number=before.attempt.number + 1, queued_at=now(), resumed_from=last_checkpoint(folder))
            # The end of an attempt that was found lost is written down before the next one begins.
            job = before.model_copy(update={"attempts": [*before.attempts, attempt]}).moved("queued")
            with disk_errors(folder), self._ways.beginning(folder):
                (folder / CANCEL_FILE).unlink(missing_ok=True)
                (folder / FETCHED_FILE).unlink(missing_ok=True)
                write_job(folder, job)
        return job

    def refresh(self, job_id: str, progress: Progress | None = None) -> Job:
        """Bring a job that runs elsewhere up to date, and fetch what it has made once it has ended.

        Somebody else who does the same at this moment does it for us.

        Raises:
            Unreachable: if the machine cannot be reached; the job stays what it was.
        """
        job, folder = self.get(job_id), self.folder(job_id)
        if self.is_settled(job):
            return job
        try:
            with FileLock(folder / REFRESH_LOCK, timeout=0):
                job = self.get(job_id)  # as whoever had the lock before has left it
                if self.is_settled(job) or is_on_its_way(folder):
                    return job
                target = self._target_of(job)
                if not job.terminal:
                    job = target.status(job, folder)
                if job.terminal and job.mirrored:
                    self._fetch(target, job, folder, progress)
        except Timeout:
            return self.get(job_id)
        return job

    def is_settled(self, job: Job) -> bool:
        """Whether no look at its machine could tell more about a job."""
        fetched = not job.mirrored or (self.folder(job.job_id) / FETCHED_FILE).exists()
        return job.target_settings.kind == "local" or (job.terminal and fetched)

    def fetch(self, job_id: str, progress: Progress | None = None) -> list[str]:
        """Bring what a job has made into this workspace; the artefacts that came.

        Raises:
            Unreachable: if its machine cannot be reached.
        """
        self.get(job_id)
        with alone(folder := self.folder(job_id), progress or SilentProgress()):
            job = self.get(job_id)
            return self._fetch(self._target_of(job), job, folder, progress)

    def _fetch(self, target: Target, job: Job, folder: Path, progress: Progress | None) -> "list[str]":
        came = target.fetch(job, folder, progress or SilentProgress())
        if job.terminal:
            atomic_write(folder / FETCHED_FILE, "\n".join(came))
        return came

    def _job(self, request: JobRequest, planned: Planned, *, by: str, cloned_from: str | None) -> Job:
        at = now()
        return Job(
            job_id=new_id(request.step, at),
            step=request.step,
            title=planned.title,
            commands=planned.commands,
            request=request,
            target=planned.target,
            target_settings=planned.target_settings,
            resources=planned.resources,
            alarms=planned.recipe.jobs.alarms,
            webhook_env=planned.recipe.jobs.webhook_env,
            recipe_name=planned.recipe.name,
            overrides=planned.overrides,
            runs=planned.runs,
            writes=planned.writes,
            code_version=code_version(),
            workspace=str(self._workspace),
            submitted_by=one_line(by),
            submitted_at=at,
            cloned_from=cloned_from,
            state_at=at,
            attempts=[Attempt(number=1, queued_at=at)],
        )

    def _target_of(self, job: Job) -> Target:
        """The target as it was when the job was submitted: that is where it runs, whatever the recipe says now."""
        return make_target(job.target, job.target_settings, self.workspace)

    def _refuse_second_writer(self, job: Job) -> None:
        for other in self.list():
            if other.terminal or other.job_id == job.job_id:
                continue
            if (artefact := overlap(job.writes, other.writes)) is not None:
                raise Conflict(
                    f"Another job writes {artefact}",
                    seen=f"{other.job_id} ({other.title}), {other.state}",
                    remedy="wait until it has ended, cancel it, or give the new one another name",
                )

    def _coming(self) -> "list[str]":
        """Artefacts that are made by jobs which have not ended."""
        return [artefact for job in self.list() if not job.terminal for artefact in job.writes]

    @contextmanager
    def _submitting(self) -> Iterator[None]:
        """One at a time, so that two jobs that write the same artefact see each other."""
        with disk_errors(self.root):
            make_folder(self.root)
            lock = FileLock(self.root / ".submit.lock", timeout=LOCK_SECONDS)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def list(self) -> list[Job]:
        """All jobs, the newest first, each as it is now; only records that have changed are read again."""
        found: dict[str, tuple[tuple[int, int], Job]] = {}
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            try:
                state = (folder / JOB_FILE).stat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            stamp = (state.st_mtime_ns, state.st_size)
            known = self._read.get(folder.name)
            try:
                found[folder.name] = known if known and known[0] == stamp else (stamp, read_job(folder))
            except NotFound:
                continue
            except UserError as error:
                found[folder.name] = (stamp, damaged_job(folder, str(error.seen)))
        self._read = found
        jobs = [observe(job, self.root / name) for name, (_, job) in found.items()]
        return sorted(jobs, key=lambda job: (job.submitted_at, job.job_id), reverse=True)


@cache
def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout; `+` marks changes that are in none."""
    root = Path(opadpo.__file__).parents[1]
    if not (root / ".git").exists():
        return opadpo.__version__
    question = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        told = subprocess.run(question, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return opadpo.__version__
    return f"{opadpo.__version__} ({told})"
