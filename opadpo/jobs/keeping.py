"""Writing a job's record from its runner: a full disk delays that, and never ends the job."""

import contextlib
import os
import sys
import time
from pathlib import Path

from opadpo.errors import OpadpoError
from opadpo.jobs.folder import HEARTBEAT_FILE, LOG_FILE, write_job
from opadpo.jobs.record import HEARTBEAT_SECONDS, Job, now

RETRY_SECONDS = 2.0


class Keeper:
    """The newest record of a job, in memory and, as soon as there is room, on disk."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder, self.job = folder, job
        self.unwritten_since: float | None = None
        """When writing first failed (monotonic); None if everything is on disk."""
        self._told: str | None = None
        self._tried = 0.0
        self._touched = 0.0

    @property
    def gone(self) -> bool:
        """Whether the job's folder was deleted or moved away: nothing is written then, as that would make it anew."""
        return not self.folder.is_dir()

    def set(self, job: Job) -> None:
        """Take over a record and write it."""
        self.job = job
        self._write()

    def tick(self) -> None:
        """Touch the heartbeat, and try again what could not be written."""
        at = time.monotonic()
        if at - self._touched >= HEARTBEAT_SECONDS:
            self._touched = at
            self._touch()
        if self.unwritten_since is not None and at - self._tried >= RETRY_SECONDS:
            self._write()

    def log(self, text: str) -> None:
        """Add a line of the runner's own to the job's log."""
        try:
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as stream:
                stream.write(f"== {now():%Y-%m-%d %H:%M:%S} {' '.join(text.splitlines())}\n")
        except OSError as error:
            self._note(error)

    def _write(self) -> None:
        if self.gone:
            return
        self._tried = time.monotonic()
        job = self.job
        if self._told is not None:
            late = f"writing failed for a while ({self._told}), so log and figures may have gaps"
            job = job.model_copy(update={"reason": f"{job.reason}; {late}" if job.reason else late})
        try:
            write_job(self.folder, job)
        except (OSError, OpadpoError) as error:
            self._note(error)
            if self.unwritten_since is None:
                self.unwritten_since = self._tried
        else:
            self.unwritten_since = None

    def _note(self, error: Exception) -> None:
        self._told = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        with contextlib.suppress(OSError):
            print(f"{now():%Y-%m-%d %H:%M:%S} {self._told}", file=sys.stderr, flush=True)

    def _touch(self) -> None:
        path = self.folder / HEARTBEAT_FILE
        try:
            path.touch()
        except OSError as error:
            self._note(error)
