"""What the review desk takes in and hands out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opadpo.records import Revision, SentenceReview
from opadpo.review.editing import MAX_SENTENCES, Note, SentenceEdit
from opadpo.review.filters import RecordState

Action = Literal["accept", "reject", "flag"]
Id = Annotated[str, Field(max_length=200)]


class Model(BaseModel):
    """Base of what the desk hands out and takes in."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DraftIn(Model):
    """What a reviewer has typed so far."""

    base_revision_id: Id | None = None
    """The revision that it starts from."""
    sentences: list[SentenceEdit] = Field(max_length=MAX_SENTENCES)
    """In reading order; may be half-finished."""
    note: Note = ""
    """The remark on the whole record."""
    seq: int = Field(ge=0, lt=2**53)
    """Number of the draft; a lower one than the newest is not kept."""


class CommitIn(Model):
    """What a reviewer sends about a record."""

    base_revision_id: Id | None = None
    """The revision that it starts from."""
    action: Action
    """accept, reject (exclude from training) or flag."""
    sentences: list[SentenceEdit] | None = Field(default=None, max_length=MAX_SENTENCES)
    """In reading order; None leaves them as they are."""
    note: Note = ""
    """Why; needed to reject or flag."""
    seq: int = Field(default=0, ge=0, lt=2**53)
    """Number of the last draft that was sent."""
    go_on: bool = True
    """Whether the next record is handed out, and so claimed."""


class Saved(Model):
    """What became of a draft."""

    saved: bool
    """False if a newer one is there."""
    saved_at: str
    """UTC."""
    seq: int
    """Number of the newest."""


class OwnDraft(Model):
    """A reviewer's draft as it was sent."""

    base_revision_id: str | None
    """The revision that it starts from."""
    sentences: list[SentenceEdit]
    """In reading order."""
    note: str
    """The remark on the whole record."""
    updated_at: str
    """UTC."""
    seq: int
    """Its number."""


class Step(Model):
    """A line of a record's history."""

    revision_id: str
    """Which revision."""
    parent_revision_id: str | None
    """What it was made from."""
    author: str
    """Who."""
    author_kind: str
    """expert, human or import."""
    created_at: datetime
    """UTC."""
    status: str
    """done, rejected or flagged."""
    note: str
    """Why."""
    changed: int
    """Sentences that differ from its parent's."""
    withdrawn: bool
    """Taken back."""


class Progress(Model):
    """How far the work is."""

    mine: int
    """Records whose decision in force is this reviewer's."""
    mine_total: int
    """The same and those that are still open."""
    team: int
    """Records that somebody has decided."""
    team_total: int
    """All."""


class Card(Model):
    """A record in a list."""

    rollout_id: str
    """Which."""
    prompt_id: str
    """Whose image it is about."""
    question: str
    """What the model was asked."""
    response: str
    """Its beginning."""
    scores: list[int | None]
    """Of the sentences; None for an added one; empty if it is not revised."""
    state: RecordState
    """Where its review stands."""
    author: str
    """Who decided; empty if nobody has."""
    tokens: int
    """Length of the response."""
    sentences: int
    """Number of sentences."""
    finish_reason: str
    """stop or length."""
    source: str
    """Where the prompt comes from."""
    degenerate: list[str]
    """Filters of degenerate text that the response meets."""


class Page(Model):
    """A stretch of the records that match, and counts over all of them."""

    total: int
    """Records that match."""
    all: int
    """Records there are."""
    offset: int
    """Where the stretch begins."""
    items: list[Card]
    """The stretch."""
    facets: dict[str, dict[str, int]]
    """Filter -> value -> number of records, under all other filters."""
    histograms: dict[str, list[dict[str, int]]]
    """tokens, sentences, score -> bins."""
    medians: dict[str, float]
    """tokens, sentences -> median over the records that match; empty where none does."""


class Disagreement(Model):
    """People decided differently about a record, each without the other's decision in front."""

    people: list[str]
    """Who."""
    settles: bool
    """Whether a decision of this reviewer settles it: not if the newest of those is their own."""


class DeskRecord(Model):
    """Everything that the desk shows of a record."""

    me: str
    """The reviewer."""
    rollout: dict[str, Any]
    """Fields of the rollout without token ids; `tokens` is their number."""
    prompt: dict[str, Any]
    """Fields of the prompt; `image` is the address of its image."""
    expert: Revision | None
    """The expert's (or imported) newest revision."""
    current: Revision | None
    """The revision in force."""
    base_revision_id: str | None
    """What an edit starts from: the revision in force."""
    sentences: list[SentenceReview]
    """The sentences that an edit starts from."""
    state: RecordState
    """Where its review stands."""
    in_review_by: list[str]
    """Others who have it open or have a draft."""
    disagree: Disagreement | None
    """Set where people decided differently and nobody has settled it: training leaves the record out."""
    draft: OwnDraft | None
    """The reviewer's own; stale if it starts from another revision than `base_revision_id`."""
    draft_seq: int
    """Number of the newest draft that the server has seen; count on from here."""
    history: list[Step]
    """Oldest first."""
    position: int
    """Place among the records that match, from 1."""
    total: int
    """Records that match."""
    previous: str | None
    """Rollout before it."""
    next: str | None
    """Rollout after it."""
    progress: Progress
    """How far the work is."""


class HandedOut(Model):
    """The record to work on now."""

    rollout_id: str | None
    """None if nothing is left."""
    record: DeskRecord | None
    """The same, whole."""


class Committed(Model):
    """What came of a commit."""

    revision_id: str
    """The revision in force now."""
    state: RecordState
    """Of the record that was committed."""
    next: str | None
    """The record to work on now; None if nothing is left."""
    record: DeskRecord | None
    """The same, whole."""
    upcoming: str | None
    """What will probably follow it."""
    progress: Progress
    """How far the work is."""


class TakenBack(Model):
    """What an undo did."""

    rollout_id: str
    """The record."""
    revision_id: str
    """The revision that was withdrawn."""
    state: RecordState
    """Where the record's review stands now."""
    record: DeskRecord
    """The record."""


class ClaimOut(Model):
    """Who has a record open."""

    mine: bool
    """True if it is this reviewer."""
    by: str
    """Who."""
    until: datetime
    """UTC; then it is free again."""
