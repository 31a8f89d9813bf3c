"""What travels between the Train page and the server."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.jobs.forms import Group

Name = Annotated[str, StringConstraints(max_length=200)]
Key = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=4000)]
MAX_PAGE = 2000


class Message(BaseModel):
    """Base: frozen, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Filters(Message):
    """Which jobs are asked for: OR within one filter, AND between them."""

    state: list[Name] = []
    """States."""
    step: list[Name] = []
    """Steps."""
    job: list[Name] = []
    """Ids."""
    text: Text = ""
    """In title, id, name of the adapter, target, recipe, or who submitted it."""
    offset: int = Field(default=0, ge=0, le=10_000_000)
    """Where the stretch begins."""
    limit: int = Field(default=100, ge=0, le=MAX_PAGE)
    """How long it is."""


class Progress(BaseModel):
    """How far a job is."""

    task: str = ""
    """What it does."""
    done: int = 0
    """Of it."""
    total: int | None = None
    """How much there is."""
    rate: float | None = None
    """A second."""
    seconds_left: float | None = None
    """At this rate."""
    checkpoint: dict[str, Any] | None = None
    """The newest: `run`, `step`, `at`."""


class Trouble(BaseModel):
    """Why a remote job cannot be brought up to date."""

    since: datetime
    """When it was last tried with success, or first without."""
    what: str
    """What is wrong."""
    away: bool
    """Whether its machine does not answer, or answers but something else is wrong."""


class Card(BaseModel):
    """A job in the list."""

    job_id: str
    """Its id."""
    title: str
    """For people."""
    step: str
    """What it does."""
    state: str
    """What it is now."""
    reason: str | None
    """Why."""
    target: str
    """Where it runs."""
    kind: str
    """`local`, `ssh`, `slurm`."""
    by: str
    """Who submitted it."""
    submitted_at: datetime
    """When."""
    started_at: datetime | None
    """When its newest attempt began to run."""
    ended_at: datetime | None
    """When it ended."""
    attempt: int
    """Number of the newest attempt."""
    progress: Progress | None
    """While it runs."""
    trained: bool
    """Whether it has curves to compare."""
    stopping: bool
    """Whether somebody has asked it to stop, and it has not yet."""
    comes: str | None
    """How far what it has made has come, while that is copied."""
    unreachable: Trouble | None
    """Its machine does not answer, or what it has made does not come."""


class Listing(BaseModel):
    """A stretch of the list."""

    items: list[Card]
    """Newest first."""
    total: int
    """How many match."""
    all: int
    """How many there are."""
    counts: dict[str, dict[str, int]]
    """`state` and `step` -> value -> how many match all other filters."""
    admin: bool
    """Whether the reader may start and stop jobs."""


class Try(BaseModel):
    """An attempt."""

    number: int
    """From 1."""
    state: str
    """What became of it."""
    reason: str | None
    """Why."""
    started_at: datetime | None
    """When it began to run."""
    ended_at: datetime | None
    """When nothing of it ran any more."""
    host: str | None
    """Where."""
    devices: list[str]
    """What it held."""
    scheduler_id: str | None
    """Of a scheduler."""
    exit_code: int | None
    """Of the command that ended it."""
    resumed_from: int | None
    """Update of the checkpoint."""


class Detail(Card):
    """A job's page."""

    attempts: list[Try]
    """Oldest first."""
    recipe: str
    """Name of the recipe."""
    changes: int
    """How many settings differ from the workspace's recipe."""
    overrides: list[str]
    """Which; admins only."""
    command: str
    """Lines for a shell; admins only."""
    code_version: str
    """Of the package."""
    start: str | None
    """Where training started."""
    runs: list[str]
    """Runs with curves."""
    cloned_from: str | None
    """The job whose request was taken over."""
    admin: bool
    """Whether the reader may act on it."""


class Alarm(BaseModel):
    """Something that may cost a night."""

    id: str
    """Its id within the job."""
    kind: str
    """Which."""
    step: int | None = None
    """At which update."""
    at: datetime | float | None = None
    """When."""
    what: str
    """For people."""
    remedy: str = ""
    """What to do."""
    set: str | None = None
    """A setting that helps, `key=value`; admins only."""
    stopped: bool = False
    """Whether it stopped the job."""
    muted: bool = False
    """Whether somebody has seen enough of it."""


class LogPiece(BaseModel):
    """New lines of a log."""

    text: str
    """Whole lines."""
    offset: int
    """Ask from here the next time."""
    size: int
    """Of the file."""
    skipped: int
    """Bytes that were passed over, as the reader was far behind."""


class LogLine(BaseModel):
    """A line that a search found."""

    number: int
    """From 1."""
    text: str
    """The line."""


Points = dict[str, list[list[float]]]
"""Metric -> [update, value]."""


class Live(BaseModel):
    """What is new on a job."""

    job: Detail
    """As it is now."""
    alarms: list[Alarm]
    """All of them, oldest first."""
    log: LogPiece | None
    """New lines."""
    usage: list[dict[str, Any]]
    """New samples of the machine."""
    curves: Points
    """New points."""


class Entered(Message):
    """A form as it is filled in."""

    step: Name
    """What to do."""
    preset: Name | None = None
    """Recipe that the form starts from; none: the workspace's."""
    target: Name | None = None
    """Where."""
    name: Name = ""
    """Of the adapter."""
    start: Name = ""
    """Where training starts."""
    models: Annotated[list[Name], Field(max_length=50)] = []
    """That are captioned or scored."""
    prompt_set: Name = ""
    """That is captioned."""
    steps: Annotated[list[Name], Field(max_length=20)] = []
    """Of a pipeline."""
    gpus: Name = ""
    """`2`: how many; `0, 1`: which; empty: as the target says."""
    title: Name = ""
    """For people."""
    values: Annotated[dict[Key, Text], Field(max_length=400)] = {}
    """Settings, as text."""
    cloned_from: Name | None = None
    """The job that it began with."""


class Problem(BaseModel):
    """Why a form cannot be submitted."""

    key: str | None
    """The field that it belongs to."""
    text: str
    """What is wrong, and what to do."""


class Previewed(BaseModel):
    """What a form would do."""

    command: str
    """Lines for a shell."""
    changes: list[str]
    """What differs from the workspace's recipe."""
    problems: list[Problem]
    """Why it cannot be submitted."""


class Choice(BaseModel):
    """Something to choose."""

    value: str
    """As it is sent."""
    label: str
    """As it is shown."""


class Form(BaseModel):
    """A form with what can be chosen in it."""

    entered: Entered
    """What it is filled in with."""
    steps: list[Choice]
    """All steps."""
    pipeline: list[Choice]
    """Steps of a pipeline."""
    presets: list[Choice]
    """Recipes to start from; the empty one is the workspace's."""
    targets: list[Choice]
    """Places."""
    models: list[str]
    """Models to start from, caption, score."""
    sets: list[str]
    """Sets of prompts."""
    groups: list[Group]
    """The recipe's fields."""


class Estimate(BaseModel):
    """Memory that a training needs."""

    state: str
    """`none`: no training; `estimating`; `done`; `failed`."""
    parts: dict[str, int] = {}
    """What for -> bytes."""
    total: int = 0
    """Their sum."""
    memory: int = 0
    """What there is on this machine, where the job runs here."""
    device: str = ""
    """Of what."""
    cards: str = ""
    """Largest micro-batches on usual GPUs."""
    advice: list[str] = []
    """What would make it fit."""
    what: str = ""
    """Why there is no estimate."""
    peak: int = 0
    """What was measured; 0: nothing was."""
    capacity: int = 0
    """Memory of the GPU on which it was measured."""
