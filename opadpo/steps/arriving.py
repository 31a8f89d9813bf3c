"""What a machine does with a job that arrives from another one: `python -m opadpo.steps.arriving`, called over ssh.

What was copied is swapped in under its locks, the base model is found and compared, the job's folder is written, and
its runner started. It reads one `Arrival` as JSON from standard input and prints one `Arrived`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from opadpo.errors import ModelError, OpadpoError, StepFailed
from opadpo.files import atomic_write
from opadpo.jobs.folder import HEARTBEAT_FILE, read_job, write_job
from opadpo.jobs.identity import of_this_process
from opadpo.layout import checked_name
from opadpo.models.base import PIN_FILE, BasePin, fetch_base, read_pin, write_pin
from opadpo.progress import LineProgress
from opadpo.workspace import RECIPE_FILE, Workspace


class Arrival(BaseModel):
    """What has come, and what is to be done with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: str
    """The workspace's folder here."""
    recipe: str
    """Text of its recipe."""
    pin: str | None
    """Text of `base.json` where the job comes from; None if there is none."""
    staged: dict[str, str]
    """Artefact -> the folder that holds what was copied, relative to the root."""
    job_id: str
    """The job."""
    files: dict[str, str]
    """Files of its folder."""
    stale: list[str]
    """Files of its folder that an earlier attempt has left."""
    start: bool
    """Whether to start its runner; else a scheduler does."""
    secrets: str | None = None
    """File with environment variables for the runner, which deletes it."""


class Arrived(BaseModel):
    """What came of it."""

    job: str
    """The job's record as its runner has written it."""


def arrive(arrival: Arrival) -> Arrived:
    """Take in a job.

    Raises:
        ModelError: if the base model is not here, or is another one.
        WorkspaceError: if what was copied is not complete.
        Busy: if a job here writes an artefact that has come.
        StepFailed: if the runner did not start.
    """
    root = Path(arrival.root)
    root.mkdir(parents=True, exist_ok=True)
    if not (root / RECIPE_FILE).exists() or (root / RECIPE_FILE).read_text(encoding="utf-8") != arrival.recipe:
        atomic_write(root / RECIPE_FILE, arrival.recipe)
    workspace = Workspace.open(root)
    folder = workspace.jobs() / checked_name(arrival.job_id)
    folder.mkdir(parents=True, exist_ok=True)
    for name in arrival.stale:
        (folder / name).unlink(missing_ok=True)
    for name, text in arrival.files.items():
        atomic_write(folder / Path(name).name, text)
    if arrival.start:
        # All that follows may outlast the connection: until the job has a runner, this process stands for it.
        (folder / HEARTBEAT_FILE).touch()
        write_job(folder, read_job(folder).changed(**of_this_process()))
    for artefact, staged in arrival.staged.items():
        workspace.adopt(artefact, root / staged)
    if arrival.pin is not None:
        _place_base(workspace, BasePin.model_validate_json(arrival.pin))
    if arrival.start:
        start_runner(folder, arrival.secrets)
    return Arrived(job=(folder / "job.json").read_text(encoding="utf-8"))


def start_runner(folder: Path, secrets: str | None) -> None:
    """Start the runner of a job's folder, detached from this process.

    Raises:
        StepFailed: if it did not start.
    """
    environment = {**os.environ, **({"OPADPO_SECRETS": secrets} if secrets else {})}
    command = [sys.executable, "-m", "opadpo.jobs.runner", str(folder)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    if ended.returncode != 0:
        raise StepFailed(
            "The job's runner did not start", seen=ended.stderr.strip()[-500:] or f"exit status {ended.returncode}"
        )


def _place_base(workspace: Workspace, wanted: BasePin) -> None:
    """Pin the base model that the job was prepared with, wherever it lies on this machine."""
    path = workspace.root / PIN_FILE
    try:
        if BasePin.model_validate_json(path.read_text(encoding="utf-8")).digest == wanted.digest:
            read_pin(workspace)
            return
    except (OSError, ValueError, OpadpoError):
        pass
    model = workspace.recipe.model
    try:
        found = fetch_base(model, LineProgress())
    except ModelError as error:
        raise ModelError(
            f"The base model is not on this machine: {error.what}",
            seen=error.seen,
            remedy=f"copy it there to the same path ({wanted.path}), or name a hub id in model.base",
        ) from error
    if found.digest != wanted.digest:
        raise ModelError(
            "The base model on this machine is another one than where the job comes from",
            seen=f"{found.path}: {found.revision}, not {wanted.revision}",
            remedy="copy the same files there, or set model.revision",
        )
    write_pin(workspace, found.model_copy(update={"requested_revision": wanted.requested_revision}))


def main() -> int:
    """Read an arrival, take it in, print what came of it."""
    try:
        arrived = arrive(Arrival.model_validate_json(sys.stdin.buffer.read()))
    except OpadpoError as error:
        seen = None if error.seen is None else str(error.seen)
        kind = type(error).__name__
        print(json.dumps({"error": {"kind": kind, "what": error.what, "seen": seen, "remedy": error.remedy}}))
        return error.exit_status
    print(arrived.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
