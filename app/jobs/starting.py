"""Jobs on their way to where they run: copying may take longer than anybody waits for an answer."""

import logging
import threading

from app.jobs.telling import Telling
from opadpo.errors import OpadpoError, StepFailed, UserError
from opadpo.jobs.record import Job, JobRequest
from opadpo.jobs.service import Jobs

SOON = 10.0
"""Seconds that an answer waits for a job to arrive: what fails at once is told to whoever asked, and leaves nothing."""


class _Stopped(UserError):
    """Somebody does not want the job any more."""


class _Way(Telling):
    """One job on its way; the progress of its copying, and where that is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.left = False
        """Whether nobody waits for the outcome any more."""
        self.stopped_by: str | None = None
        self.arrived: Job | None = None
        self.failed: OpadpoError | None = None

    def say(self, message: str) -> None:
        """As `Progress.say`; it goes no further once somebody has stopped it."""
        if self.stopped_by is not None:
            raise _Stopped(f"Cancelled by {self.stopped_by} before it had arrived")
        super().say(message)


class Starting:
    """Hands jobs over, each in a thread of its own. If the app ends meanwhile, the job is found lost, and resumed."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._ways: dict[str, _Way] = {}

    def submit(self, request: JobRequest, *, by: str, cloned_from: str | None) -> Job:
        """A new job, which has started or is on its way.

        Raises:
            OpadpoError: as `Jobs.submit`.
        """
        return self._send(self._jobs.enter(request, by=by, cloned_from=cloned_from))

    def resume(self, job_id: str) -> Job:
        """A new attempt, which has started or is on its way.

        Raises:
            OpadpoError: as `Jobs.resume`.
        """
        return self._send(self._jobs.enter_again(job_id))

    def word(self, job_id: str) -> str | None:
        """How far a job is on its way; None if it is not on any."""
        way = self._ways.get(job_id)
        return None if way is None else way.told or "It is being handed over"

    def stop(self, job_id: str, *, by: str) -> bool:
        """Stop a job on its way; False if it is on none."""
        way = self._ways.get(job_id)
        if way is None:
            return False
        way.stopped_by = by
        return True

    def _send(self, job: Job) -> Job:
        way = self._ways[job.job_id] = _Way()
        threading.Thread(target=self._carry, args=(job, way), daemon=True, name=f"hand-over-{job.job_id}").start()
        if not way.over.wait(SOON):
            with way.lock:
                way.left = way.arrived is None and way.failed is None
        if way.failed is not None:
            raise way.failed
        return way.arrived or job

    def _carry(self, job: Job, way: _Way) -> None:
        try:
            arrived, failed = self._jobs.hand_over(job, way), None
        except Exception as error:  # the job has to say whatever went wrong: nobody else may be there any more
            if not isinstance(error, OpadpoError):
                logging.getLogger(__name__).exception("%s could not be handed over", job.job_id)
                error = StepFailed("The job could not be handed over", seen=f"{type(error).__name__}: {error}")
            arrived, failed = None, error
        try:
            with way.lock:
                way.arrived, way.failed = arrived, failed
                if failed is not None:
                    state = "cancelled" if isinstance(failed, _Stopped) else "failed"
                    self._jobs.withdraw(job, failed, seen=state if way.left else None)
        finally:  # a full disk may keep it from being withdrawn, and it is on its way no longer
            if self._ways.get(job.job_id) is way:  # it may have been resumed the moment that its state was written
                del self._ways[job.job_id]
            way.over.set()
        if arrived is not None and way.stopped_by is not None:  # it arrived before the wish could be heard
            self._jobs.cancel(job.job_id, by=way.stopped_by)
