"""Jobs over HTTP, all below `/api/jobs`: reading for everyone who is signed in, commands and changes for admins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from app.access.guard import Admin, owner, user_of
from app.jobs import views
from app.jobs.estimates import STAGES, Estimates
from app.jobs.messages import (
    Detail,
    Entered,
    Estimate,
    Filters,
    Form,
    Key,
    Listing,
    Live,
    LogLine,
    Message,
    Name,
    Points,
    Previewed,
    Text,
)
from app.jobs.refreshing import Refresher
from app.jobs.starting import Starting
from app.jobs.submitting import Submitting
from opadpo.accounts.people import User
from opadpo.errors import NotFound
from opadpo.jobs import curves, logs
from opadpo.jobs.folder import LOG_FILE, RESOLVED_FILE
from opadpo.jobs.service import Jobs
from opadpo.recipe import load_recipe

POINTS = 500
"""Points of a curve, at most twice as many: the lowest and the highest of each stretch."""
MAX_COMPARED = 8
FOUND_LINES = 500
CHUNK = 256 * 1024


def _reader(request: Request) -> User:
    return user_of(request) or owner()


Reader = Annotated[User, Depends(_reader)]


class Since(Message):
    """What the page has already."""

    log: int | None = None
    """Bytes of the log; none: only its end is wanted."""
    usage: float = 0
    """Time of the newest sample."""
    step: int | None = None
    """Update of the newest point; none: no curves are wanted."""
    run: Name | None = None
    """Which run's curves; none: the newest run's."""


class AlarmOf(Message):
    """An alarm of a job."""

    alarm: Name
    """Its id."""


def router(jobs: Jobs, refresher: Refresher) -> APIRouter:
    """The routes of a workspace's jobs."""
    api = APIRouter(prefix="/api/jobs")
    starting = Starting(jobs)
    shown = views.Views(jobs, refresher.trouble, starting.word, refresher.word)
    estimates = Estimates()
    _starting(api, jobs, estimates, starting)  # first: /form would be taken for a job's id
    _reading(api, jobs, shown, estimates)
    _logs(api, jobs)
    _changing(api, jobs, shown, starting)
    return api


def _starting(api: APIRouter, jobs: Jobs, estimates: Estimates, starting: Starting) -> None:
    """A new job: the form, what it means, and its start."""
    submitting = Submitting(jobs)

    @api.get("/form")
    def form(
        me: Admin, step: Name | None = None, preset: Name | None = None, clone: Name | None = None,
        change: Text | None = None,
    ) -> Form:  # fmt: skip
        return submitting.form(step, preset, clone, change)

    @api.post("/preview")
    def preview(body: Entered, me: Admin) -> Previewed:
        return submitting.preview(body)

    @api.post("/memory")
    def memory(body: Entered, me: Admin) -> Estimate:
        if body.step not in STAGES:
            return Estimate(state="none")
        recipe = submitting.recipe(body)
        if recipe is None:
            return Estimate(state="failed", what="There is no estimate until the form is right.")
        return _estimate(estimates.ask(recipe, body.step), here=_is_here(jobs, body.target))

    @api.post("")
    def submit(body: Entered, me: Admin) -> dict[str, str]:
        request = submitting.request(body)
        return {"job_id": starting.submit(request, by=me.name, cloned_from=body.cloned_from).job_id}


def _reading(api: APIRouter, jobs: Jobs, shown: views.Views, estimates: Estimates) -> None:
    """Jobs for everybody who is signed in."""

    @api.get("")
    def listing(filters: Annotated[Filters, Query()], me: Reader) -> Listing:
        return shown.listing(filters, admin=me.role == "admin")

    @api.get("/curves")
    def compared(
        job: Annotated[list[Name], Query(max_length=MAX_COMPARED)],
        key: Annotated[list[Key], Query(max_length=20)],
        points: Annotated[int, Query(ge=10, le=2000)] = POINTS,
    ) -> dict[str, Points]:
        return {one: _curves(jobs, one, key, None, points) for one in job}

    @api.get("/{job_id}")
    def job(job_id: Name, me: Reader) -> Detail:
        return shown.detail(jobs.get(job_id), admin=me.role == "admin")

    @api.get("/{job_id}/live")
    def live(job_id: Name, since: Annotated[Since, Query()], me: Reader) -> Live:
        return shown.live(job_id, admin=me.role == "admin", **since.model_dump())

    @api.get("/{job_id}/curves")
    def points(
        job_id: Name,
        run: Name | None = None,
        key: Annotated[list[Key], Query(max_length=100)] = [],  # noqa: B006 - the type that FastAPI needs
        points: Annotated[int, Query(ge=10, le=2000)] = POINTS,
    ) -> Points:
        return _curves(jobs, job_id, key or list(views.SHOWN_METRICS), run, points)

    @api.get("/{job_id}/memory")
    def needed(job_id: Name) -> Estimate:
        return _needed(jobs, estimates, job_id)


def _logs(api: APIRouter, jobs: Jobs) -> None:
    """A job's log, whole or searched."""

    @api.get("/{job_id}/log")
    def download(job_id: Name) -> StreamingResponse:
        found = jobs.get(job_id)
        path = jobs.folder(job_id) / LOG_FILE
        size = path.stat().st_size if path.exists() else 0
        headers = {
            "Content-Disposition": f'attachment; filename="{found.job_id}.log.txt"',
            "Content-Length": str(size),
            "Cache-Control": "no-store",
        }
        return StreamingResponse(_bytes(path, size), media_type="text/plain; charset=utf-8", headers=headers)

    @api.get("/{job_id}/log/search")
    def search(job_id: Name, text: Annotated[str, Query(min_length=1, max_length=200)]) -> dict[str, list[LogLine]]:
        jobs.get(job_id)
        path = jobs.folder(job_id) / LOG_FILE
        found = logs.search(path, text, FOUND_LINES) if path.exists() else []
        return {"lines": [LogLine(number=number, text=line) for number, line in found]}


def _changing(api: APIRouter, jobs: Jobs, shown: views.Views, starting: Starting) -> None:
    """What an admin does to a job."""

    @api.post("/{job_id}/cancel")
    def cancel(job_id: Name, me: Admin) -> Detail:
        if starting.stop(job_id, by=me.name):
            return shown.detail(jobs.get(job_id), admin=True)
        return shown.detail(jobs.cancel(job_id, by=me.name), admin=True)

    @api.post("/{job_id}/resume")
    def resume(job_id: Name, me: Admin) -> Detail:
        return shown.detail(starting.resume(job_id), admin=True)

    @api.post("/{job_id}/mute")
    def mute(job_id: Name, body: AlarmOf, me: Admin) -> dict:
        jobs.get(job_id)
        folder = jobs.folder(job_id)
        if body.alarm not in {alarm.id for alarm in views.alarms(folder, admin=True)}:
            raise NotFound("The job has no such alarm", seen=body.alarm)
        views.mute(folder, body.alarm)
        return {}


def _curves(jobs: Jobs, job_id: str, keys: list[str], run: str | None, points: int) -> Points:
    jobs.get(job_id)
    return curves.read(jobs.folder(job_id), keys, run=run, points=points)


def _is_here(jobs: Jobs, target: str | None) -> bool:
    """Whether a target is this machine."""
    return any(
        info.kind == "local" and (info.name == target or (info.default and not target)) for info in jobs.targets()
    )


def _needed(jobs: Jobs, estimates: Estimates, job_id: str) -> Estimate:
    """The estimate for a job's recipe beside what was measured while it ran."""
    job, folder = jobs.get(job_id), jobs.folder(job_id)
    peak, capacity = views.peak_of(folder)
    if job.step not in STAGES or not (folder / RESOLVED_FILE).exists():
        return Estimate(state="none", peak=peak, capacity=capacity)
    answer = estimates.ask(load_recipe(folder / RESOLVED_FILE), job.step)
    return _estimate({**answer, "peak": peak, "capacity": capacity}, here=job.target_settings.kind == "local")


def _estimate(answer: dict[str, Any], *, here: bool) -> Estimate:
    """What the page gets; what this machine has says nothing about another."""
    other = {} if here else {"memory": 0, "device": "", "advice": []}
    return Estimate.model_validate({**answer, **other})


def _bytes(path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file that may grow meanwhile."""
    if not size:
        return
    with path.open("rb") as stream:
        while size > 0 and (piece := stream.read(min(CHUNK, size))):
            size -= len(piece)
            yield piece
