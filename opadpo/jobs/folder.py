"""The folder of a job: its files, its id, and how its state is read and written."""

import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opadpo.errors import NotFound, UserError
from opadpo.files import atomic_write
from opadpo.jobs.record import Attempt, Job, JobRequest, now

JOB_FILE = "job.json"
RECIPE_FILE = "recipe.yaml"
RESOLVED_FILE = "recipe.resolved.yaml"
LOG_FILE = "log.txt"
RESULT_FILE = "result.jsonl"
METRICS_FILE = "metrics.jsonl"
PROGRESS_FILE = "progress.json"
STEP_PROGRESS_FILE = "step_progress.json"
USAGE_FILE = "usage.jsonl"
ALARMS_FILE = "alarms.jsonl"
MUTED_FILE = "muted.json"
CANCEL_FILE = "cancel.json"
FETCHED_FILE = "fetched"
HEARTBEAT_FILE = "heartbeat"
RUNNER_LOG_FILE = "runner.log"
RUNNER_LOCK_FILE = ".runner.lock"

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LETTERS = "abcdefghijkmnpqrstuvwxyz"


def new_id(step: str, at: datetime) -> str:
    """An id for a job submitted at `at`: sorts by time, and says what it does."""
    return f"{at:%Y%m%d-%H%M%S}-{step}-{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def checked_id(job_id: str) -> str:
    """`job_id`, if it can be the name of a job's folder.

    Raises:
        NotFound: if it has other characters than letters, digits, `-` and `_`.
    """
    if not _ID.fullmatch(job_id):
        raise NotFound("There is no such job", seen=repr(job_id), remedy="`opadpo jobs list WORKSPACE` lists them")
    return job_id


def read_job(folder: Path) -> Job:
    """The job of a folder, as it is written there.

    Raises:
        NotFound: if the folder holds no job.
        UserError: if its job.json is damaged.
    """
    path = folder / JOB_FILE
    try:
        return Job.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            "There is no such job", seen=folder.name, remedy="`opadpo jobs list WORKSPACE` lists them"
        ) from error
    except ValueError as error:
        raise UserError(
            "A job's record is damaged, or of a later version of this package",
            seen=f"{path}: {str(error).splitlines()[0]}",
            remedy="update the package, or move that folder away; what the job has made is not in it",
        ) from error


def write_job(folder: Path, job: Job) -> None:
    """Write a job's record, whole or not at all."""
    atomic_write(folder / JOB_FILE, job.model_dump_json(indent=2))


def wish_to_stop(by: str) -> str:
    """What `cancel.json` says."""
    return json.dumps({"by": by, "at": now().isoformat()})


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file that a runner replaces; empty if there is none yet."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of JSON in a file that a runner adds to; the last one may still be in writing."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def damaged_job(folder: Path, problem: str) -> Job:
    """What lists show in the place of a job whose record cannot be read."""
    at = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
    return Job(
        job_id=folder.name,
        step="pipeline",
        title="a job whose record cannot be read",
        commands=[],
        request=JobRequest(step="pipeline"),
        target="",
        workspace=str(folder.parent.parent),
        submitted_by="",
        submitted_at=at,
        state="lost",
        reason=problem,
        state_at=at,
        attempts=[Attempt(number=1, state="lost", queued_at=at)],
    )
