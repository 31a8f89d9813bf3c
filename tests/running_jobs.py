"""Jobs whose commands are small programs, run by the real runner in processes of their own."""

import time
from pathlib import Path
from typing import Any

from opadpo.jobs.folder import JOB_FILE, new_id, read_job, write_job
from opadpo.jobs.record import PYTHON, TERMINAL, Attempt, Job, JobRequest, Resources, now, observe
from opadpo.jobs.targets.local import LocalTarget
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

SIZES = ["prepare.subset_size=12", "prepare.heldout_size=4"]


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


def until(folder: Path, *states: str, seconds: float = 30.0) -> Job:
    """The job once it is in one of these states (none named: once it has ended)."""
    deadline = time.monotonic() + seconds
    while (job := observe(read_job(folder), folder)).state not in (states or TERMINAL):
        assert time.monotonic() < deadline, (folder / JOB_FILE).read_text()
        time.sleep(0.1)
    return job


def until_file(path: Path, seconds: float = 20.0) -> str:
    """The content of a file once there is any."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} does not come")
