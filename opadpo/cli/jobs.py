"""Verbs for long work in the background."""

import getpass
import shlex
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from opadpo.cli import layout
from opadpo.cli.completion import complete_recipes
from opadpo.cli.options import RECIPE, Models, split_names
from opadpo.cli.running import Outcome, Run, verb
from opadpo.errors import UserError

if TYPE_CHECKING:
    from opadpo.jobs.record import Job, JobRequest
    from opadpo.jobs.service import Jobs

FOLLOW_SECONDS = 1.0
KEPT_OF_LOG = 200_000
"""Bytes of the log's end in the result for machines."""

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `list` shows it.", show_default=False)]
StepName = Annotated[
    Literal["prepare", "rollout", "revise", "build", "opa", "opadpo", "caption", "evaluate", "pipeline"],
    typer.Argument(metavar="STEP", help="A step of the method, or `pipeline`: one after another.", show_default=False),
]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the adapter [the stage].", show_default=False)]
Start = Annotated[
    str | None,
    typer.Option("--from", metavar="base|opa|NAME", help="Where training starts.", show_default=False),
]
SetName = Annotated[
    str | None, typer.Option("--set-name", metavar="NAME", help="Set of prompts to caption.", show_default=False)
]
Steps = Annotated[
    list[str] | None,
    typer.Option("--steps", metavar="STEP[,STEP]", help="Steps of a pipeline [all].", show_default=False),
]
TargetName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Where, by its name in jobs.targets.", show_default=False)
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Take the settings of this recipe, as overrides.",
        autocompletion=complete_recipes,
        show_default=False,
    ),
]
Gpus = Annotated[
    str | None,
    typer.Option(
        metavar="N|gpu-0,gpu-1", help="How many GPUs (0: the CPU), or which [those of the target].", show_default=False
    ),
]
Nodes = Annotated[int | None, typer.Option(metavar="N", min=1, help="Machines of a cluster.", show_default=False)]
Minutes = Annotated[int | None, typer.Option("--time", metavar="MINUTES", min=1, help="Longest run.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="For people [the model's name].", show_default=False)]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the log until the job has ended.")]


@verb(options=RECIPE)
def submit(
    run: Run,
    step: StepName,
    name: Name = None,
    start: Start = None,
    model: Models = None,
    set_name: SetName = None,
    steps: Steps = None,
    target: TargetName = None,
    preset: Preset = None,
    gpus: Gpus = None,
    nodes: Nodes = None,
    minutes: Minutes = None,
    title: Title = None,
    follow: Follow = False,
) -> Outcome:
    """Start work in the background: it goes on when this terminal, the app or the connection ends.

    It runs with the recipe as it is now, on this machine or wherever --target says. With --follow the log is shown;
    interrupting that leaves the job alone.
    """
    asked: dict[str, Any] = {"step": step, "name": name, "start": start, "models": split_names(model)}
    asked |= {"prompt_set": set_name, "steps": split_names(steps), "target": target, "preset": preset}
    asked |= {"overrides": run.overrides, "gpus": _gpus(gpus), "nodes": nodes, "time": minutes, "title": title}
    jobs = _jobs(run)
    job = jobs.submit(_request(asked), by=getpass.getuser(), progress=run.progress)
    return _followed(run, jobs, job) if follow else _outcome(run, job, f"{job.job_id} is {job.state}.")


@verb(options=RECIPE)
def clone(
    run: Run,
    job: JobId,
    name: Name = None,
    target: TargetName = None,
    title: Title = None,
    follow: Follow = False,
) -> Outcome:
    """Submit a new job like this one, with what is given here changed: settings by --set, its name, where it runs.

    It runs with the recipe as it is now.
    """
    jobs = _jobs(run)
    before = jobs.clone_request(job)
    changed = {_key(override) for override in run.overrides}
    kept = [override for override in before.overrides if _key(override) not in changed]
    given = {"name": name, "target": target, "title": title}
    asked = {**before.model_dump(), **{field: value for field, value in given.items() if value is not None}}
    request = _request({**asked, "overrides": [*kept, *run.overrides]})
    made = jobs.submit(request, by=getpass.getuser(), progress=run.progress, cloned_from=job)
    return _followed(run, jobs, made) if follow else _outcome(run, made, f"{made.job_id} is {made.state}.")


@verb()
def show_all(
    run: Run,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE[,STATE]", help="Only jobs in these states.", show_default=False),
    ] = None,
) -> Outcome:
    """List jobs, the newest first."""
    from opadpo.jobs.record import State

    wanted = split_names(state)
    if wrong := [name for name in wanted if name not in get_args(State)]:
        raise UserError("There is no such state", seen=", ".join(wrong), remedy=f"use {', '.join(get_args(State))}")
    found = [job for job in _jobs(run).list() if not wanted or job.state in wanted]
    rows = [(job.state, job.job_id, job.target, _ago(job), _about(job)) for job in found]
    text = layout.table(rows, header=("state", "job", "target", "since", "")) if rows else "There are no jobs."
    return Outcome({"jobs": [job.model_dump(mode="json") for job in found]}, text, always=True)


@verb()
def show(run: Run, job: JobId) -> Outcome:
    """Show a job: what runs, where, how far it is, what became of it."""
    found = _jobs(run).refresh(job, run.progress)
    rows = [("state", f"{found.state} since {found.state_at:%d %b %Y %H:%M} UTC")]
    rows += [("", found.reason)] if found.reason else []
    rows += [("title", found.title), ("target", found.target), ("recipe", found.recipe_name)]
    rows += [("setting", override) for override in found.overrides]
    rows += [("submitted", f"{found.submitted_at:%d %b %Y %H:%M} UTC by {found.submitted_by}")]
    rows += [("cloned from", found.cloned_from)] if found.cloned_from else []
    for attempt in found.attempts:
        place = " on ".join(filter(None, [", ".join(attempt.devices), attempt.host]))
        code = "" if attempt.exit_code is None else f", exit status {attempt.exit_code}"
        rows.append((f"attempt {attempt.number}", " ".join(filter(None, [attempt.state, place])) + code))
    rows += _how_far(run, found)
    rows += [("code", found.code_version), ("folder", f"{run.root}/jobs/{found.job_id}")]
    text = f"{found.job_id}\n{layout.table(rows)}\n{found.command_text(str(run.root))}"
    return Outcome(found.model_dump(mode="json"), text, always=True)


@verb()
def logs(run: Run, job: JobId, follow: Follow = False) -> Outcome:
    """Print a job's log; with --follow until it has ended."""
    jobs = _jobs(run)
    found = jobs.refresh(job, run.progress)
    if follow and not run.as_json:
        return _followed(run, jobs, found)
    text = b"".join(jobs.log(job))
    data = {"job_id": job, "state": found.state, "log": text[-KEPT_OF_LOG:].decode(errors="replace")}
    return Outcome(data, text.decode(errors="replace").rstrip("\n"), always=True)


@verb()
def cancel(run: Run, job: JobId) -> Outcome:
    """Stop a job: it saves a checkpoint first, and is killed when it takes too long."""
    found = _jobs(run).cancel(job, by=getpass.getuser())
    told = f"is {found.state}" if found.terminal else "was told to stop"
    return _outcome(run, found, f"{found.job_id} {told}.")


@verb()
def resume(run: Run, job: JobId, follow: Follow = False) -> Outcome:
    """Go on with a job that failed, was cancelled or lost, from its newest checkpoint."""
    jobs = _jobs(run)
    told = sum(map(len, jobs.log(job))) if follow else 0
    found = jobs.resume(job, by=getpass.getuser(), progress=run.progress)
    if follow:
        return _followed(run, jobs, found, told)
    return _outcome(run, found, f"{found.job_id} is {found.state} (attempt {found.attempt.number}).")


@verb()
def fetch(run: Run, job: JobId) -> Outcome:
    """Bring what a job has made on another machine into this workspace."""
    came = _jobs(run).fetch(job, run.progress)
    text = f"brought {', '.join(came)}" if came else "Everything is here."
    return Outcome({"job_id": job, "fetched": came}, text)


@verb()
def check(run: Run, target: TargetName = None) -> Outcome:
    """Check whether a target is fit for jobs: reachable, interpreter, package, GPUs, disk."""
    from opadpo.checks import as_dicts
    from opadpo.workspace import RECIPE_FILE

    workspace = run.workspace
    checks = _jobs(run).target(target or workspace.recipe.jobs.target).check(workspace.root / RECIPE_FILE)
    missing = [each for each in checks if each.required and each.state == "missing"]
    return Outcome({"checks": as_dicts(checks)}, layout.checks_table(checks), 1 if missing else 0, always=True)


def _request(asked: dict[str, Any]) -> "JobRequest":
    """What is asked for.

    Raises:
        UserError: if a value cannot be.
    """
    from pydantic import ValidationError

    from opadpo.jobs.record import JobRequest

    try:
        return JobRequest.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {first['msg']}", seen=first["input"], remedy="see --help") from error


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _how_far(run: Run, job: "Job") -> list[tuple[str, str]]:
    """Progress, newest checkpoint and alarms of a job, as rows."""
    from opadpo.jobs.folder import ALARMS_FILE, PROGRESS_FILE, read_json, read_lines

    folder = _jobs(run).folder(job.job_id)
    far = read_json(folder / PROGRESS_FILE)
    rows: list[tuple[str, str]] = []
    if far.get("task") and not job.terminal:
        total = f" of {far['total']:,}" if far.get("total") else ""
        left = far.get("seconds_left")
        until = f", {layout.duration(left)} left" if left is not None else ""
        rows.append(("progress", f"{far['task']}: {far['done']:,}{total}{until}"))
    if kept := far.get("checkpoint"):
        rows.append(("checkpoint", f"update {kept['step']} of {kept['run']}"))
    rows += [("alarm", f"{each['what']} {each['remedy']}") for each in read_lines(folder / ALARMS_FILE)]
    return rows


def _jobs(run: Run) -> "Jobs":
    from opadpo.jobs.service import Jobs
    from opadpo.workspace import Workspace

    assert run.root is not None
    # What was given with --set belongs to the job alone, which checks it together with the rest of its request.
    return Jobs(Workspace.open(run.root))


def _outcome(run: Run, job: "Job", text: str, exit_status: int = 0) -> Outcome:
    following = f"follow it with `opadpo jobs logs {shlex.quote(str(run.root))} {job.job_id} --follow`"
    lines = [text, *([job.reason] if job.reason else []), *([] if job.terminal else [following])]
    return Outcome(job.model_dump(mode="json"), "\n".join(lines), exit_status)


def _followed(run: Run, jobs: "Jobs", job: "Job", offset: int = 0) -> Outcome:
    """Print the log after its first `offset` bytes on standard error as it comes, until the job has ended."""
    reason = None
    while True:
        ended = job.terminal
        for piece in jobs.log(job.job_id, offset):
            sys.stderr.buffer.write(piece)
            offset += len(piece)
        sys.stderr.flush()
        if ended:
            break
        if job.state == "queued" and job.reason != reason:
            reason = job.reason
            run.progress.say(f"waiting: {reason}")
        time.sleep(FOLLOW_SECONDS)
        job = jobs.refresh(job.job_id, run.progress)
    return _outcome(run, job, f"{job.job_id} {job.state}.", 0 if job.state == "succeeded" else 1)


def _gpus(text: str | None) -> list[int] | int | None:
    """`2` is how many; `gpu-0` or `0,1` are which.

    Raises:
        UserError: if it is neither.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    numbers = [word.removeprefix("gpu-") for word in words]
    if not words or not all(number.isascii() and number.isdigit() for number in numbers):
        raise UserError("These are no GPUs", seen=text, remedy="give a number, or their names: gpu-0,gpu-1")
    return int(numbers[0]) if words == numbers and len(words) == 1 and "," not in text else list(map(int, numbers))


def _ago(job: "Job") -> str:
    return layout.duration((datetime.now(UTC) - job.state_at).total_seconds())


def _about(job: "Job") -> str:
    return f"{job.title}: {job.reason}" if job.reason else job.title


def register(cli: typer.Typer) -> None:
    """Add the verbs to the command line."""
    group = typer.Typer(name="jobs", help="Run long work in the background, here or elsewhere.", no_args_is_help=True)
    group.command("submit")(submit)
    group.command("clone")(clone)
    group.command("list")(show_all)
    group.command("show")(show)
    group.command("logs")(logs)
    group.command("cancel")(cancel)
    group.command("resume")(resume)
    group.command("fetch")(fetch)
    group.command("check")(check)
    cli.add_typer(group)
