"""Jobs on other machines are brought up to date while the app runs, slower where nobody answers."""

import logging
import threading
import time
from datetime import UTC, datetime
from typing import NamedTuple

from app.jobs.messages import Trouble
from app.jobs.telling import Telling
from opadpo.errors import OpadpoError, Unreachable
from opadpo.jobs.record import Job
from opadpo.jobs.service import Jobs

EVERY = 5.0
"""Seconds between two looks at a job."""
SLOWEST = 120.0
"""Seconds between two attempts at a machine that does not answer."""
AT_ONCE = 8
"""Jobs that are looked at together: one that brings many gigabytes, or waits for a dead machine, holds up no other."""


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
        self._looking: set[str] = set()
        self._comes: dict[str, Telling] = {}

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True, name="refresh-jobs").start()

    def close(self) -> None:
        """End after the look that is under way."""
        self._stop.set()

    def trouble(self, job_id: str) -> Trouble | None:
        """Why a job is not up to date; None if it is."""
        return self._troubles.get(job_id)

    def word(self, job_id: str) -> str | None:
        """What a job has made comes at this moment, and how far; None if nothing does."""
        telling = self._comes.get(job_id)
        return (telling.told or None) if telling else None

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                waiting = [job for job in self._jobs.list() if self._is_due(job)]
            except (OpadpoError, OSError) as error:
                logging.getLogger(__name__).warning("jobs cannot be listed: %s", error)
                continue
            for job in sorted(waiting, key=lambda job: job.terminal)[: AT_ONCE - len(self._looking)]:
                self._looking.add(job.job_id)
                # Of no pool: those are waited for at the end, and the app has to end at once.
                threading.Thread(target=self.look, args=(job,), daemon=True, name=f"look-{job.job_id}").start()

    def _is_due(self, job: Job) -> bool:
        if (
            job.target_settings.kind == "local"
            or job.job_id in self._looking
            or (job.job_id, job.attempt.number) in self._done
        ):
            return False
        wait = self._waits.get(job.job_id)
        return wait is None or time.monotonic() >= wait.until

    def look(self, job: Job) -> None:
        """Bring one job up to date, and remember if that failed."""
        comes = self._comes[job.job_id] = Telling()
        try:
            found = self._jobs.refresh(job.job_id, comes)
        except Exception as error:  # noqa: BLE001 - a job that cannot be read must not end the looks at all others
            self._failed(job, error)
            return
        finally:
            self._comes.pop(job.job_id, None)
            self._looking.discard(job.job_id)
        self._troubles.pop(job.job_id, None)
        self._waits.pop(job.job_id, None)
        if found.terminal:
            self._done.add((found.job_id, found.attempt.number))

    def _failed(self, job: Job, error: Exception) -> None:
        if isinstance(error, OpadpoError):
            what = ". ".join(str(part) for part in (error.what, error.remedy) if part)
        else:
            what = str(error) or type(error).__name__
            if not isinstance(error, OSError):
                logging.getLogger(__name__).error("%s cannot be brought up to date", job.job_id, exc_info=error)
        known = self._troubles.get(job.job_id)
        away = isinstance(error, Unreachable)
        self._troubles[job.job_id] = Trouble(since=known.since if known else datetime.now(UTC), what=what, away=away)
        pause = min(SLOWEST, 2 * self._waits.get(job.job_id, _Wait(EVERY, 0)).pause)
        self._waits[job.job_id] = _Wait(pause, time.monotonic() + pause)
