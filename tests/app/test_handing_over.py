"""Jobs on their way to another machine: nobody waits for the copying, nobody calls them lost, nothing goes unsaid."""

import fcntl
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from running_jobs import PATIENCE, toy_workspace, until_so

from app.jobs import starting
from app.jobs.refreshing import Refresher
from app.jobs.starting import Starting
from app.jobs.views import Views
from opadpo.errors import Conflict, OpadpoError, StepFailed, UserError
from opadpo.jobs import on_the_way
from opadpo.jobs.folder import read_job, write_job
from opadpo.jobs.record import Job, JobRequest, now
from opadpo.jobs.service import Jobs
from opadpo.jobs.targets.base import Target
from opadpo.progress import Progress
from opadpo.recipe.jobs import TargetSection


class FarAway(Target):
    """A machine to which it is a long way; it says nothing of a job that has not arrived."""

    arrive = threading.Event()
    error: OpadpoError | None = None

    def check(self, recipe):
        return []

    def submit(self, job: Job, folder: Path, progress: Progress) -> Job:
        with progress.task("Sending to far (bytes)", 200) as task:
            task.advance(50)
            while not self.arrive.wait(0.02):
                task.advance(0)
        if self.error is not None:
            raise self.error
        told = job.moved("running")
        write_job(folder, told)
        return told

    def status(self, job: Job, folder: Path) -> Job:
        told = job.moved("lost", "It never arrived")
        write_job(folder, told)
        return told

    def logs(self, job, folder, offset):
        return b""

    def cancel(self, job, folder, by):
        raise AssertionError("it is not there yet")

    def fetch(self, job, folder, progress):
        return []


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    FarAway.arrive, FarAway.error = threading.Event(), None
    found = Jobs(toy_workspace(tmp_path / "toy"))
    monkeypatch.setattr(
        found, "_target_of", lambda job: FarAway("far", TargetSection(kind="ssh", host="h"), found.workspace)
    )
    made = found._job
    far = {"target": "far", "target_settings": TargetSection(kind="ssh", host="h")}
    monkeypatch.setattr(found, "_job", lambda *a, **k: made(*a, **k).model_copy(update=far))
    return found


REQUEST = JobRequest(step="prepare")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a job to arrive."""
    monkeypatch.setattr(starting, "SOON", 0.05)


def until(jobs: Jobs, job_id: str, state: str) -> Job:
    return until_so(lambda: found if (found := jobs.get(job_id)).state == state else None, lambda: jobs.get(job_id))


def until_told(begin: Starting, job_id: str, word: str | None) -> None:
    until_so(lambda: begin.word(job_id) == word, lambda: begin.word(job_id))


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_long_way_is_told_and_nobody_calls_the_job_lost(jobs: Jobs):
    begin = Starting(jobs)
    job = begin.submit(REQUEST, by="lea", cloned_from=None)
    assert job.state == "queued"
    until_told(begin, job.job_id, "Sending to far, 25 %")
    folder = jobs.folder(job.job_id)
    write_job(folder, job.changed(queued_at=now() - timedelta(hours=1)))
    Refresher(jobs).look(job)
    assert read_job(folder).state == "queued"
    FarAway.arrive.set()
    assert until(jobs, job.job_id, "running")
    until_told(begin, job.job_id, None)


def test_nobody_looks_at_a_job_before_it_is_handed_over(jobs: Jobs):
    job = jobs.enter(REQUEST, by="lea")
    Refresher(jobs).look(job)
    assert read_job(jobs.folder(job.job_id)).state == "queued"
    with pytest.raises(Conflict, match="another process"):
        jobs.cancel(job.job_id, by="jonas")
    jobs.withdraw(job, UserError("no room"), seen="failed")
    FarAway.arrive.set()
    assert jobs.resume(job.job_id, by="lea").state == "running"
    Refresher(jobs).look(job)
    assert read_job(jobs.folder(job.job_id)).state == "lost"


@pytest.mark.slow
def test_who_waits_for_another_copy_says_so_and_can_be_stopped(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(on_the_way, "POLL_SECONDS", 0.02)
    FarAway.arrive.set()
    begin = Starting(jobs)
    job = begin.submit(REQUEST, by="lea", cloned_from=None)
    Refresher(jobs).look(job)
    told: list[str] = []
    with FileLock(jobs.folder(job.job_id) / on_the_way.REFRESH_LOCK):
        monkeypatch.setattr(starting, "SOON", 0.05)
        begin.resume(job.job_id)
        until_so(lambda: (begin.word(job.job_id) or "").startswith("Waiting until what is being copied"))
        assert begin.stop(job.job_id, by="jonas")
        assert until(jobs, job.job_id, "cancelled").attempt.number == 2
        fetched = threading.Thread(target=lambda: told.extend(["came", *jobs.fetch(job.job_id)]), daemon=True)
        fetched.start()
        fetched.join(0.2)
        assert told == []
    fetched.join(PATIENCE)
    assert told == ["came"]


@pytest.mark.slow
def test_a_wish_to_stop_is_seen_here_until_it_is_heard_there(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    FarAway.arrive.set()
    job = Starting(jobs).submit(REQUEST, by="lea", cloned_from=None)
    monkeypatch.setattr(FarAway, "cancel", lambda *_: None)
    shown = Views(jobs, lambda _: None, lambda _: None, lambda _: None)
    assert not shown.detail(jobs.get(job.job_id), admin=True).stopping
    jobs.cancel(job.job_id, by="jonas")
    assert shown.detail(jobs.get(job.job_id), admin=True).stopping
    Refresher(jobs).look(job)
    assert not shown.detail(jobs.get(job.job_id), admin=True).stopping
    jobs.resume(job.job_id, by="lea")
    assert not shown.detail(jobs.get(job.job_id), admin=True).stopping


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
@pytest.mark.parametrize("error", [UserError("no room"), StepFailed("no runner")])
def test_what_fails_late_stands_on_the_job(jobs: Jobs, error: OpadpoError):
    job = Starting(jobs).submit(REQUEST, by="lea", cloned_from=None)
    FarAway.error = error
    FarAway.arrive.set()
    assert until(jobs, job.job_id, "failed").reason == error.what


def test_what_fails_at_once_is_told_and_leaves_nothing(jobs: Jobs):
    FarAway.error = UserError("it has another version")
    FarAway.arrive.set()
    with pytest.raises(UserError, match="another version"):
        Starting(jobs).submit(REQUEST, by="lea", cloned_from=None)
    assert jobs.list() == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_cannot_be_withdrawn_is_on_its_way_no_longer(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    def withdraw(*_: object, **more: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(jobs, "withdraw", withdraw)
    begin = Starting(jobs)
    job = begin.submit(REQUEST, by="lea", cloned_from=None)
    FarAway.error = UserError("no room")
    FarAway.arrive.set()
    until_told(begin, job.job_id, None)


@pytest.mark.usefixtures("impatient")
def test_a_job_is_stopped_on_its_way_and_tried_again(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    begin = Starting(jobs)
    job = begin.submit(REQUEST, by="lea", cloned_from=None)
    assert begin.stop(job.job_id, by="jonas")
    stopped = until(jobs, job.job_id, "cancelled")
    assert stopped.reason == "Cancelled by jonas before it had arrived"
    until_told(begin, job.job_id, None)
    assert not begin.stop(job.job_id, by="jonas")
    FarAway.error = UserError("it does not answer")
    FarAway.arrive.set()
    monkeypatch.setattr(starting, "SOON", 60)
    with pytest.raises(UserError):
        begin.resume(job.job_id)
    again = jobs.get(job.job_id)
    assert (again.state, again.reason, len(again.attempts)) == ("cancelled", stopped.reason, 1)
    FarAway.error = None
    assert begin.resume(job.job_id).attempt.number == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
def test_a_job_resumed_the_moment_it_was_withdrawn_is_on_its_way(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    begin, withdraw, carried = Starting(jobs), jobs.withdraw, []

    def withdraw_and_resume(job: Job, *rest, **more) -> None:
        withdraw(job, *rest, **more)
        begin.resume(job.job_id)
        carried.append(threading.current_thread())

    monkeypatch.setattr(jobs, "withdraw", withdraw_and_resume)
    job = begin.submit(REQUEST, by="lea", cloned_from=None)
    assert begin.stop(job.job_id, by="jonas")
    until_so(lambda: carried)
    carried[0].join(PATIENCE)
    until_told(begin, job.job_id, "Sending to far, 25 %")


def test_a_glance_at_a_job_does_not_pass_for_somebody_who_brings_it(tmp_path: Path):
    ways = on_the_way.Ways()
    assert not on_the_way.is_on_its_way(tmp_path)
    with ways.beginning(tmp_path):
        assert on_the_way.is_on_its_way(tmp_path)
    ways.end(tmp_path)
    with (tmp_path / on_the_way.WAY_LOCK).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # another glance, which takes its time
        assert not on_the_way.is_on_its_way(tmp_path)


def test_one_job_that_cannot_be_read_does_not_end_the_looks_at_others(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    FarAway.arrive.set()
    job = Starting(jobs).submit(REQUEST, by="lea", cloned_from=None)
    monkeypatch.setattr(FarAway, "status", lambda *_: {}["what"])
    refresher = Refresher(jobs)
    refresher.look(job)
    trouble = refresher.trouble(job.job_id)
    assert trouble is not None
    assert (trouble.away, trouble.what) == (False, "'what'")
    monkeypatch.undo()
