"""Steps from a notebook: in its kernel, or as a job that goes on without it."""

import getpass
import time
from collections.abc import Sequence
from typing import Any

from opadpo.display.progressing import Bar, NotebookProgress, notebook_progress, training_progress
from opadpo.errors import StepFailed, UserError
from opadpo.jobs.folder import ALARMS_FILE, PROGRESS_FILE, RESULT_FILE, read_json, read_lines
from opadpo.jobs.record import Job, JobRequest
from opadpo.jobs.service import Jobs
from opadpo.steps import catching_up
from opadpo.steps.result import StepResult
from opadpo.workspace import Workspace

EVERY = 0.5
"""Seconds between two looks at a job."""


def catch_up(workspace: Workspace, before: str) -> None:
    """Run the steps before one whose artefacts are not there, and say so; raises as `opadpo.steps.catching_up`."""
    catching_up.catch_up(workspace, before, progress=notebook_progress())


def run(
    workspace: Workspace, step: str, *, target: str | None = None, models: Sequence[str] = catching_up.MODELS
) -> StepResult:
    """Run a step of the method, with a bar, and the curves of a training run below it.

    Args:
        workspace: where.
        step: a name of `opadpo.steps.catching_up.STEPS`.
        target: None runs it in this process; a target of the recipe (`local` is always one) makes it a job, which the
            cell follows. A job that makes the same and has not ended is followed, not started again.
        models: which ones describe images and are scored; of no meaning to the other steps.

    Raises:
        UserError: if there is no such target, or the models are not a list of names.
        StepFailed: if the job did not succeed, or if the cell was interrupted: the job goes on then.
        OpadpoError: as the step.
    """
    names = catching_up.checked_models(models)
    progress = training_progress(workspace, step) if step in ("opa", "opadpo") else notebook_progress()
    nothing_to_score = step == "evaluate" and not workspace.recipe.evaluate.benchmarks
    if target is None or nothing_to_score:
        return catching_up.run_step(workspace, step, progress=progress, models=names)
    if not isinstance(target, str):
        raise UserError("The target is not a name", seen=repr(target), remedy='write "local", or None for this kernel')
    jobs = Jobs(workspace)
    jobs.target(target)
    request = JobRequest.model_validate({"step": step, "target": target, "overrides": workspace.overrides})
    if step == "evaluate":
        request = request.model_copy(update={"models": names})
    if step != "caption":
        return _as_job(jobs, request, progress)
    described = [
        request.model_copy(update={"models": names, "prompt_set": each})
        for each in catching_up.captioned_sets(workspace)
    ]
    return catching_up.together([_as_job(jobs, each, progress) for each in described])


def _as_job(jobs: Jobs, request: JobRequest, progress: NotebookProgress) -> StepResult:
    """Submit a job, or find the one that does this already, and follow it."""
    makes = set(jobs.preview(request).writes)
    running = next(
        (job for job in jobs.list() if not job.terminal and job.step == request.step and makes <= set(job.writes)), None
    )
    if running is None:
        running = jobs.submit(request, by=getpass.getuser(), progress=progress)
        progress.say(f"Job {running.job_id} on {running.target}: it goes on without this notebook.")
    else:
        progress.say(f"Job {running.job_id} does this already.")
    return follow(jobs, running.job_id, progress)


def follow(jobs: Jobs, job_id: str, progress: NotebookProgress) -> StepResult:
    """Show how far a job is until it ends; returns what its last command printed.

    Raises:
        StepFailed: if it did not succeed, or if this was interrupted.
    """
    folder = jobs.folder(job_id)
    bar: Bar | None = None
    told: set[str] = set()
    try:
        while True:
            job = jobs.refresh(job_id)
            bar = _advance(progress, bar, job, read_json(folder / PROGRESS_FILE))
            for alarm in read_lines(folder / ALARMS_FILE):
                if alarm["id"] not in told:
                    progress.warn(f"{alarm['what']}: {alarm['remedy']}")
                    told.add(alarm["id"])
            if job.terminal and jobs.is_settled(job):
                break
            time.sleep(EVERY)
    except KeyboardInterrupt as error:
        if bar is not None:
            bar.pace = "not followed any longer"
        progress.draw(force=True)
        raise StepFailed(
            "The cell follows the job no longer; the job goes on",
            seen=job_id,
            remedy="run the cell again to follow it; `opadpo jobs cancel WORKSPACE` and the job's id stop it",
        ) from error
    if job.state != "succeeded":
        raise StepFailed(
            f"The job {'was cancelled' if job.state == 'cancelled' else 'did not succeed'}",
            seen=f"{job_id}, {job.state}: {job.reason}",
            remedy="read its log with `opadpo jobs logs WORKSPACE` and the job's id; run the cell again to go on",
        )
    *_, last = read_lines(folder / RESULT_FILE)
    return StepResult.model_validate({name: last[name] for name in StepResult.model_fields if name in last})


def _advance(progress: NotebookProgress, bar: Bar | None, job: Job, seen: dict[str, Any]) -> Bar:
    """The bar as the job's progress file has it; a new one where the job is at another piece of work."""
    waiting = f"Job {job.job_id}"
    begun = bool(seen.get("task"))  # else it has not begun to count, or had nothing to do
    description = seen["task"] if begun else waiting
    if bar is None or bar.description != description:
        if bar is not None and bar.description == waiting:
            progress.entries.remove(bar)
        elif bar is not None:
            bar.finished = True
        bar = progress.add(description, seen.get("total"), done=seen.get("done", 0))
    if begun:
        bar.set(seen.get("done", 0))
    if job.terminal or not begun:
        bar.pace = f"{job.state}: {job.reason}" if job.reason else str(job.state)
        bar.finished = job.state == "succeeded"
        progress.draw(force=job.terminal, figure=job.terminal)
    return bar
