"""Jobs whose commands are small programs, run by the real runner in processes of their own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from opadpo.jobs.folder import JOB_FILE, new_id, read_job, write_job
from opadpo.jobs.record import PYTHON, TERMINAL, Attempt, Job, JobRequest, Resources, now, observe
from opadpo.jobs.targets.local import LocalTarget
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

PATIENCE = 120.0
"""Seconds: only a job that hangs takes so long, on however slow a machine."""
SIZES = ["prepare.subset_size=12", "prepare.heldout_size=4"]

T = TypeVar("T")


def toy_workspace(root: Path, *more: str) -> Workspace:
    """A workspace of the toy world in which a step takes seconds."""
    return Workspace.create(root, preset_text("toy"), [*SIZES, *more])


def made_job(workspace: Workspace, *programs: str, grace: float = 1.0, **fields: Any) -> tuple[Job, Path]:
    """A job that runs these Python programs, written but not started; (the job, its folder)."""
    at = now()
    values: dict[str, Any] = {
        "job_id": new_id("build", at),
        "step": "build",
        "title": "a test",
        "commands": [[PYTHON, "-c", program] for program in programs],
        "request": JobRequest(step="build"),
        "target": "local",
        "target_settings": TargetSection(grace_seconds=grace),
        "resources": Resources(gpus=0),
        "workspace": str(workspace.root),
        "submitted_by": "tester",
        "submitted_at": at,
        "state_at": at,
        "attempts": [Attempt(number=1, queued_at=at)],
        **fields,
    }
    job = Job(**values)
    folder = workspace.jobs() / job.job_id
    folder.mkdir(parents=True)
    write_job(folder, job)
    return job, folder


def started(workspace: Workspace, job: Job, folder: Path) -> Job:
    """Start the job's runner on this machine."""
    return LocalTarget("local", job.target_settings, workspace).submit(job, folder, SilentProgress())


def ran(workspace: Workspace, *programs: str, **fields: Any) -> tuple[Job, Path]:
    """A job that has run these Python programs to its end; (the job, its folder)."""
    job, folder = made_job(workspace, *programs, **fields)
    started(workspace, job, folder)
    return until(folder), folder


def until(folder: Path, *states: str, seconds: float = PATIENCE) -> Job:
    """The job once it is in one of these states (none named: once it has ended)."""

    def there() -> Job | None:
        job = observe(read_job(folder), folder)
        return job if job.state in (states or TERMINAL) else None

    return until_so(there, lambda: (folder / JOB_FILE).read_text(), seconds=seconds)


def until_file(path: Path, seconds: float = PATIENCE) -> str:
    """The content of a file once there is any."""
    return until_so(lambda: path.read_text() if path.exists() else "", lambda: f"{path} does not come", seconds=seconds)


def until_so(
    what: Callable[[], T | None],
    told: Callable[[], object] = lambda: "",
    *,
    seconds: float = PATIENCE,
    every: float = 0.1,
) -> T:
    """What a look tells as soon as that is something; `told` says how it stands if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, told()
        time.sleep(every)
    return found
