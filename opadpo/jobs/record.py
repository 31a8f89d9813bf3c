"""What a job is: what was asked for, what runs, what became of it. The folder of the job holds it as `job.json`."""

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from opadpo.jobs.identity import age, alive, hostname
from opadpo.recipe.jobs import AlarmsSection, TargetSection

SCHEMA_VERSION = 1

Step = Literal["prepare", "rollout", "revise", "build", "opa", "opadpo", "caption", "evaluate", "pipeline"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]

STEPS: tuple[Step, ...] = ("prepare", "rollout", "revise", "build", "opa", "opadpo", "caption", "evaluate")
"""The steps of a pipeline, in order."""

PEOPLE: frozenset[Step] = frozenset({"prepare", "revise", "build"})
"""Steps whose artefacts people work on: they are never made in a copy of the workspace on another machine."""

TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "lost"})
"""States in which nothing of a job runs any more."""

HEARTBEAT_SECONDS = 5.0
"""How often a runner touches `heartbeat`."""
DEAD_AFTER_SECONDS = 90.0
"""Age of the heartbeat of a runner on another machine, over a shared file system, after which it counts as dead."""
REFUSED = 3
"""Exit status of a runner that does not take the job, and tells why on its standard error."""
START_SECONDS = 60.0
"""How long a runner may take to say that it runs."""

TITLE_LENGTH = 120

PYTHON = "{python}"
WORKSPACE = "{workspace}"
JOB = "{job}"
SNAPSHOT = ("--recipe", f"{JOB}/recipe.yaml")
"""How a step is told to read the recipe as it was at submission."""
OPADPO = (PYTHON, "-m", "opadpo")
"""How a command of this package begins in a job."""
SEVERAL_NODES = (PYTHON, "-m", "opadpo.jobs.several_nodes")
"""The same, on every node of a cluster's allocation."""


def now() -> datetime:
    """The time of day, UTC."""
    return datetime.now(UTC)


def one_line(text: str) -> str:
    """Text without line breaks, control and escape characters, cut to the length of a title."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:TITLE_LENGTH].rstrip()


class JobRecord(BaseModel):
    """Base of what is stored about jobs: frozen; fields of a later version are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class JobRequest(JobRecord):
    """What somebody asks for; `Jobs.submit` checks it and makes a job of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: Step
    """The step, or `pipeline` for several one after another."""
    name: str | None = None
    """Name of the adapter that is trained; None: as the step names it."""
    start: str | None = None
    """Where training starts: `base` or an adapter."""
    models: list[str] = Field(default_factory=list)
    """Models that are captioned or evaluated; none: base, and the adapters that are there or will be."""
    prompt_set: str | None = None
    """Set of prompts that is captioned."""
    steps: list[Step] = Field(default_factory=list)
    """Steps of a pipeline; none: all of them, each does only what is missing."""
    target: str | None = None
    """Where it runs; None: the recipe's `jobs.target`."""
    preset: str | None = None
    """Name of a recipe whose differences to the workspace's become overrides; None: the workspace's as it is."""
    overrides: list[str] = Field(default_factory=list)
    """`section.key=value`, after those of the preset."""
    gpus: list[int] | int | None = None
    """Instead of the target's `gpus`."""
    nodes: int | None = Field(default=None, ge=1)
    """Instead of the target's `nodes`."""
    time: int | None = Field(default=None, ge=1)
    """Longest run in minutes, instead of the target's."""
    title: str | None = None
    """For people; None: the model's name or the step."""

    @field_validator("title")
    @classmethod
    def _title(cls, title: str | None) -> str | None:
        return None if title is None else one_line(title)


class Resources(JobRecord):
    """What a job gets of its machine."""

    gpus: list[int] | int | None = None
    """Indexes, or how many; 0: the CPU; None: all that the machine has, the CPU where it has none."""
    nodes: int = 1
    """Machines that work together."""
    processes: int = 1
    """Processes that train together, over all machines."""
    time: int | None = None
    """Longest run, minutes."""


class Attempt(JobRecord):
    """One try at running the job."""

    number: int
    """From 1."""
    state: State = "queued"
    """As the job's own while it is the last one."""
    reason: str | None = None
    """Why it is in that state, for people."""
    queued_at: datetime
    """When it was asked for."""
    started_at: datetime | None = None
    """When its first command started."""
    ended_at: datetime | None = None
    """When nothing of it ran any more."""
    exit_code: int | None = None
    """Of the command that ended it; negative: the signal that killed it."""
    host: str | None = None
    """Machine of the runner."""
    boot_id: str | None = None
    """Boot of that machine."""
    pid: int | None = None
    """Process of the runner."""
    pid_started: int | None = None
    """When that process started, in the machine's own unit: tells it from a later one of the same number."""
    devices: list[str] = Field(default_factory=list)
    """What it holds: `gpu-0`, `cpu`."""
    scheduler_id: str | None = None
    """Id that a scheduler gave it."""
    resumed_from: int | None = None
    """Update of the checkpoint that it continued from."""


class Job(JobRecord):
    """One job with everything that has become of it."""

    schema_version: int = SCHEMA_VERSION
    """Version of the fields."""
    job_id: str
    """Name of its folder."""
    step: Step
    """What it does."""
    title: str
    """For people: one line."""
    commands: list[list[str]]
    """Argument lists, one after another; `{python}`, `{workspace}` and `{job}` stand for what they are there."""
    request: JobRequest
    """What was asked for."""
    target: str
    """Name of the place where it runs."""
    target_settings: TargetSection = TargetSection()
    """Settings of that place at submission."""
    resources: Resources = Resources()
    """What it gets."""
    alarms: AlarmsSection = AlarmsSection()
    """When to raise an alarm."""
    webhook_env: str | None = None
    """Environment variable with the address to tell at the end."""
    recipe_name: str = ""
    """Name of the recipe."""
    overrides: list[str] = Field(default_factory=list)
    """What differs from the workspace's recipe."""
    runs: list[str] = Field(default_factory=list)
    """Runs whose metrics are mirrored, in order."""
    writes: list[str] = Field(default_factory=list)
    """Artefacts that it makes, relative to the workspace."""
    code_version: str = ""
    """Version of the package, with the commit where it runs from a checkout."""
    workspace: str
    """Path of the workspace at submission."""
    submitted_by: str
    """Who asked for it."""
    submitted_at: datetime
    """When."""
    cloned_from: str | None = None
    """The job whose request was taken over."""
    state: State = "queued"
    """What it is now."""
    reason: str | None = None
    """Why, and what to do about it."""
    state_at: datetime
    """Since when."""
    attempts: list[Attempt]
    """All tries, the newest last."""

    @field_validator("title")
    @classmethod
    def _title(cls, title: str) -> str:
        return one_line(title)

    @property
    def attempt(self) -> Attempt:
        """The newest try."""
        return self.attempts[-1]

    @property
    def terminal(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.state in TERMINAL

    @property
    def mirrored(self) -> bool:
        """Whether it runs in a folder of its own on another machine, of which the one here is a copy."""
        return self.target_settings.mirrored

    def changed(self, **attempt: Any) -> Self:
        """The job with other values in its newest attempt."""
        newest = self.attempt.model_copy(update=attempt)
        return self.model_copy(update={"attempts": [*self.attempts[:-1], newest]})

    def moved(self, state: State, reason: str | None = None, **attempt: Any) -> Self:
        """The job, and its newest attempt, in another state; other values of the attempt by name."""
        at = now()
        if state in TERMINAL:
            attempt = {"ended_at": at, **attempt}
        return self.changed(state=state, reason=reason, **attempt).model_copy(
            update={"state": state, "reason": reason, "state_at": at}
        )

    def argv(self, command: list[str], *, python: str, workspace: str, job: str) -> list[str]:
        """A command as it is run, with what stands for interpreter, workspace and job folder filled in."""
        words = {PYTHON: python, WORKSPACE: workspace, JOB: job}
        return [words.get(word) or word.replace(f"{JOB}/", f"{job}/") for word in command]

    def without_snapshot(self) -> Self:
        """The job with commands that read the workspace's own recipe: for people to run by hand, before it exists."""
        commands = []
        for command in self.commands:
            start = command.index(SNAPSHOT[0])
            commands.append(command[:start] + command[start + len(SNAPSHOT) :])
        return self.model_copy(update={"commands": commands})

    def command_lines(self, root: Path | str) -> list[str]:
        """The commands as a shell takes them, for the workspace at `root`."""
        folder = f"{root}/jobs/{self.job_id}"
        lines = []
        for command in self.commands:
            words = ["opadpo", *command[3:]] if tuple(command[:3]) == OPADPO else command
            lines.append(shlex.join(self.argv(words, python="python3", workspace=str(root), job=folder)))
        return lines

    def verb(self, number: int) -> str:
        """What a command does, without its arguments: the log is for everybody, the command for admins."""
        command = self.commands[number]
        if tuple(command[:3]) not in (OPADPO, SEVERAL_NODES):
            return Path(command[0]).name
        words = command[3:]
        return " ".join(["opadpo", *words[: words.index("{workspace}") if "{workspace}" in words else 1]])

    def command_text(self, root: Path | str) -> str:
        """The same, one command a line."""
        return "\n".join(self.command_lines(root))


def observe(job: Job, folder: Path) -> Job:
    """What a reader may say of a job: one whose runner has died without a word is `lost`.

    A job in a mirrored folder or in the hands of a scheduler is as its target last said: only that knows better.
    """
    if job.terminal or job.mirrored or job.target_settings.kind == "slurm":
        return job
    attempt = job.attempt
    if attempt.pid is None:
        if (now() - attempt.queued_at).total_seconds() < START_SECONDS:
            return job
        return lost(job, folder, "Its runner never started")
    if attempt.host == hostname():
        if alive(attempt.pid, attempt.pid_started, attempt.boot_id):
            return job
        return lost(job, folder, f"Its runner (process {attempt.pid}) was killed, or the machine restarted")
    silent = age(folder / "heartbeat")
    if silent is None or silent < DEAD_AFTER_SECONDS:
        return job
    return lost(job, folder, f"{attempt.host} has not been heard of for {silent / 60:.0f} minutes")


def lost(job: Job, folder: Path, why: str) -> Job:
    """The job as one of which nothing runs any more without a word, with what is left of it."""
    step = last_checkpoint(folder)
    kept = "It saved no checkpoint" if step is None else f"Its last checkpoint is that of update {step}"
    return job.moved("lost", f"{why}. {kept}; resume it, and it does what is missing.")


def last_checkpoint(folder: Path) -> int | None:
    """Update of the newest checkpoint that a job's progress tells of; None if it tells of none."""
    try:
        found = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        return int(found["checkpoint"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
