"""Jobs on other machines are brought up to date while the app runs, one at a time, slower where nobody answers."""

import logging
import threading
import time
from datetime import UTC, datetime
from typing import NamedTuple

from app.jobs.messages import Trouble
from opadpo.errors import OpadpoError
from opadpo.jobs.record import Job
from opadpo.jobs.service import Jobs
from opadpo.progress import SilentProgress

EVERY = 5.0
"""Seconds between two looks at a job."""
SLOWEST = 120.0
"""Seconds between two attempts at a machine that does not answer."""


class _Wait(NamedTuple):
    pause: float
    """Seconds, doubled with every failure."""
    until: float
    """Monotonic time of the next attempt."""


class Refresher:
    """A thread of the app; what it learns stands in the jobs' folders."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._stop = threading.Event()
        self._troubles: dict[str, Trouble] = {}
        self._waits: dict[str, _Wait] = {}
        self._done: set[tuple[str, int]] = set()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True, name="refresh-jobs").start()

    def close(self) -> None:
        """End after the look that is under way."""
        self._stop.set()

    def trouble(self, job_id: str) -> Trouble | None:
        """Why a job is not up to date; None if it is."""
        return self._troubles.get(job_id)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                waiting = [job for job in self._jobs.list() if self._is_due(job)]
            except (OpadpoError, OSError) as error:
                logging.getLogger(__name__).warning("jobs cannot be listed: %s", error)
                continue
            for job in waiting:
                if self._stop.is_set():
                    return
                self.look(job)

    def _is_due(self, job: Job) -> bool:
        if job.target_settings.kind == "local" or (job.job_id, job.attempt.number) in self._done:
            return False
        wait = self._waits.get(job.job_id)
        return wait is None or time.monotonic() >= wait.until

    def look(self, job: Job) -> None:
        """Bring one job up to date, and remember if that failed."""
        try:
            found = self._jobs.refresh(job.job_id, SilentProgress())
        except (OpadpoError, OSError) as error:
            what = error.what if isinstance(error, OpadpoError) else str(error)
            known = self._troubles.get(job.job_id)
            self._troubles[job.job_id] = Trouble(since=known.since if known else datetime.now(UTC), what=what)
            pause = min(SLOWEST, 2 * self._waits.get(job.job_id, _Wait(EVERY, 0)).pause)
            self._waits[job.job_id] = _Wait(pause, time.monotonic() + pause)
            return
        self._troubles.pop(job.job_id, None)
        self._waits.pop(job.job_id, None)
        if found.terminal:
            self._done.add((found.job_id, found.attempt.number))
