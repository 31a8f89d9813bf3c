"""What the comparing page asks for and gets."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from opadpo.evaluation.benchmark import Direction
from opadpo.evaluation.statistics import Difference, Interval

Name = Annotated[str, StringConstraints(max_length=200)]
Sort = Literal["improved", "worse", "changed", "prompted"]
Change = Literal["changed", "improved", "worse"]
Role = Literal["hallucination", "coverage", "other"]
Verdict = Literal["left", "right", "tie", "both_bad"]

MAX_MODELS = 8
"""Models side by side."""
MAX_PAGE = 200
"""Records of a list at once."""


class Message(BaseModel):
    """Base of all of them: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# -- asked ---------------------------------------------------------------------------------------------------------


class Asked(Message):
    """Which captions."""

    set: Name
    """Set of prompts."""
    model: list[Name] = Field(min_length=1, max_length=MAX_MODELS)
    """Models, from left to right. The last is compared with `base`, or with the first where that is not among them."""


class Filters(Asked):
    """Which records of them, and in which order."""

    text: Annotated[str, StringConstraints(max_length=1000)] = ""
    """Part of the question, a caption or the prompt's id, whatever its case."""
    only: Change | None = None
    """Only those whose text differs, or with fewer, or more, things wrong than in the reference."""
    sort: Sort = "improved"
    """improved, worse: by how many things fewer, or more, are wrong; changed: by words; prompted: as in the set."""


class PairAsked(Message):
    """Two models, in any order, whose captions are voted on."""

    set: Name
    """Set of prompts."""
    first: Name
    """One."""
    second: Name
    """The other."""


class VoteIn(PairAsked):
    """A vote."""

    prompt_id: Name
    """On which captions."""
    outcome: Verdict
    """As they were shown."""
    note: Annotated[str, StringConstraints(max_length=4000)] = ""
    """A remark."""


# -- given ---------------------------------------------------------------------------------------------------------


class ModelOut(Message):
    """A model that has captions of a set."""

    name: str
    """In the workspace."""
    captions: int
    """How many."""
    scored: bool
    """Whether they were scored as they are now."""
    stale: bool
    """Whether the recipe or the adapter has changed since they were made."""


class SetOut(Message):
    """A set of prompts that some model has captions of."""

    name: str
    """In the workspace."""
    benchmark: str | None
    """Title of what scores it."""
    models: list[ModelOut]
    """The base first."""


class Overview(Message):
    """What can be compared."""

    me: str
    """Who asks."""
    sets: list[SetOut]
    """`heldout` first."""
    command: str
    """What to run next."""


class Row(Message):
    """A record in the list."""

    prompt_id: str
    """Its id."""
    question: str
    """The question's beginning."""
    excerpt: str
    """The beginning of the caption that is compared with the reference."""
    words: int | None
    """Words inserted, deleted or replaced against the reference; None where there is nothing to compare."""
    delta: float | None
    """Things wrong more (or, below 0, fewer) than in the reference, or points of a judge less; None where one of them
    was not scored."""


class List(Message):
    """A stretch of the records that match."""

    total: int
    """How many match."""
    all: int
    """How many there are."""
    offset: int
    """Where the stretch begins."""
    target: str
    """Which model is compared ..."""
    reference: str | None
    """... with which; None if only one is chosen."""
    counts: dict[Change, int]
    """How many of those with the text asked for changed, improved and got worse."""
    unscored: list[str]
    """Chosen models whose captions were not scored as they are now."""
    command: str
    """What scores them; empty if nothing is left to score."""
    items: list[Row]
    """The stretch."""


class PieceOut(Message):
    """A stretch of a caption."""

    text: str
    """Its characters."""
    mark: Literal["hallucinated", "grounded"] | None
    """What is known of the object that it names."""


class AnswerOut(Message):
    """An answer to a yes-no question."""

    label: str
    """What is true."""
    predicted: str | None
    """What was said."""


class ColumnOut(Message):
    """One model's caption."""

    model: str
    """Its name."""
    pieces: list[PieceOut] | None
    """The caption; None if there is none."""
    tokens: int
    """Number of generated tokens."""
    cut: bool
    """Whether it was cut at the limit."""
    scored: bool
    """Whether a benchmark has looked at it."""
    hallucinated: list[str]
    """Objects that it names and the image does not hold."""
    covered: list[str]
    """Objects of the image that it names."""
    missed: list[str]
    """Objects of the image that it does not name."""
    answers: list[AnswerOut]
    """Of yes-no questions."""
    words: int | None
    """Words changed against the reference."""
    rating: float | None
    """A judge's; higher is better."""
    reason: str
    """The judge's words."""
    delta: float | None
    """As in `Row`."""


class Record(Message):
    """A prompt and its captions side by side."""

    prompt_id: str
    """Its id."""
    question: str
    """What is asked."""
    image: str
    """Address of the image."""
    columns: list[ColumnOut]
    """In the order asked for."""
    reference: str | None
    """Which model the others are compared with."""
    position: int | None
    """Among those that match, from 1; None if it does not match."""
    total: int
    """How many match."""
    previous: str | None
    """The one before."""
    next: str | None
    """The one after."""


class MetricOut(Message):
    """A metric, and every model's figure."""

    name: str
    """As in the evaluation."""
    direction: Direction
    """Which way is better."""
    unit: str
    """What it is counted in."""
    role: Role
    """What it says."""
    values: dict[str, Interval]
    """Model -> figure; without those that were not scored."""


class Metrics(Message):
    """Figures of the chosen models on the benchmark of a set."""

    benchmark: str | None
    """Its title; None if nothing scores the set."""
    metrics: list[MetricOut]
    """Hallucination and coverage first."""
    scored: dict[str, int]
    """Model -> items that were scored."""
    failed: dict[str, int]
    """Model -> items that could not be judged; they are in no figure."""
    confidence: float
    """Of the intervals."""


class Differences(Message):
    """Every metric of the chosen models less that of the reference."""

    reference: str | None
    """With which model they are compared."""
    differences: dict[str, dict[str, Difference]]
    """Model -> metric -> difference."""


class VoteOut(Message):
    """The reader's own vote, and what was hidden before it."""

    vote_id: str
    """Its id."""
    outcome: Verdict
    """As it was shown."""
    note: str
    """The remark."""
    left: str
    """The model whose caption stands on the left."""
    right: str
    """The other."""
    created_at: datetime
    """UTC."""


class Ballot(Message):
    """Two captions without names."""

    prompt_id: str
    """Its id."""
    question: str
    """What is asked."""
    image: str
    """Address of the image."""
    left: str
    """Caption A."""
    right: str
    """Caption B."""
    vote: VoteOut | None
    """The reader's own, once there is one."""
    position: int
    """In the reader's own order, from 1."""
    total: int
    """How many can be voted on."""
    voted: int
    """On how many the reader has."""
    same: int
    """How many are left out since both models say the same."""
    previous: str | None
    """The one before."""
    next: str | None
    """The one after."""
    upcoming: str | None
    """The next one without a vote of the reader; None if there is none."""


class VoterOut(Message):
    """One person's votes."""

    voter: str
    """Name."""
    first: int
    """For the first model."""
    second: int
    """For the second."""
    tie: int
    """Equally good."""
    both_bad: int
    """Neither is good."""


class Results(Message):
    """What people prefer."""

    first: str
    """The model whose wins are counted."""
    second: str
    """The one that it is compared with."""
    total: VoterOut
    """All votes together."""
    voters: list[VoterOut]
    """By number of votes."""
    images: int
    """Prompts with at least one vote."""
    rate: Interval | None
    """Share of votes that the first model won, a tie as half, with Wilson's interval; without those that found both
    bad; None if there are none."""
    confidence: float
    """Of its interval."""
    outdated: int
    """Votes on captions that have been made anew since; they are not counted."""


# -- asked now -----------------------------------------------------------------------------------------------------


class LiveAnswer(Message):
    """What a model says to a question that was asked now."""

    model: str
    """Who."""
    text: str
    """What."""
    tokens: int
    """Its length, end included."""
    finish_reason: str
    """stop, or length."""
    seconds: float
    """Time that it took."""


class LiveProblem(Message):
    """Why a model does not answer."""

    model: str | None
    """Who; None: nobody does."""
    what: str
    """What is wrong."""
    seen: str | None
    """The value that is."""
    remedy: str | None
    """What helps."""


class LiveQuestion(Message):
    """A question that was asked now, and how far its answers are."""

    id: str
    """Known to who asked only."""
    asked_by: str
    """Their name."""
    question: str
    """What is asked about the image."""
    models: list[str]
    """Who is to answer, in this order."""
    state: Literal["waiting", "answering", "done", "failed"]
    """`done`: at least one has answered."""
    before: int = 0
    """Questions that come first."""
    doing: str | None = None
    """`loading`, or the model that answers now."""
    answers: list[LiveAnswer] = []
    """So far."""
    problems: list[LiveProblem] = []
    """Of those who do not answer."""
