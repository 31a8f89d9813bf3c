"""Blind votes on two captions of one image: append-only; what a vote says of its voter's mind is the newest one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, Select, select

from opadpo.errors import NotFound
from opadpo.hashing import content_id
from opadpo.review.opening import Database
from opadpo.review.schema import vote_withdrawals, votes

Outcome = Literal["first", "second", "tie", "both_bad"]
Side = Literal["first", "second"]


class Contender(BaseModel):
    """One of the two captions of a vote."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Name of the model in the workspace."""
    adapter_hash: str
    """SHA-256 of its adapter; empty for the base."""
    text: str
    """Digest of the caption: a vote is about this text, not about a later one of a model of the same name."""


class Vote(BaseModel):
    """What one person thinks of two captions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    vote_id: str = ""
    """Content hash."""
    voter: str
    """Who voted."""
    prompt_set: str
    """Set of prompts."""
    prompt_id: str
    """The question and image."""
    first: Contender
    """The one of the two models whose win is counted."""
    second: Contender
    """The one that it is compared with."""
    left: Side
    """Which was shown on the left, as A."""
    outcome: Outcome
    """Which is better."""
    note: str = ""
    """The voter's remark."""
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    """UTC."""

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make a vote with its content id."""
        draft = cls(**fields)
        return draft.model_copy(update={"vote_id": content_id("b", draft.model_dump(mode="json", exclude={"vote_id"}))})

    def says_the_same_as(self, other: "Vote") -> bool:
        """Whether both are the same act, sent twice."""
        return self.model_dump(exclude={"vote_id", "created_at"}) == other.model_dump(exclude={"vote_id", "created_at"})


class Votes:
    """The votes in a review store."""

    def __init__(self, database: Database) -> None:
        """`database` is that of a `ReviewStore`."""
        self.database = database

    def cast(self, vote: Vote) -> Vote:
        """Append a vote; the voter's earlier one on the same pair no longer counts.

        Returns the vote that stands: the one given, or, where the same was sent before, the one from then.
        """
        with self.database.writing() as connection:
            own = _standing(vote.prompt_set, vote.first.model, vote.second.model).where(
                votes.c.voter == vote.voter, votes.c.prompt_id == vote.prompt_id
            )
            before = next(iter(_newest(connection, own)), None)
            if before and before.says_the_same_as(vote):
                return before
            connection.execute(votes.insert().values(_row(vote)))
            return vote

    def withdraw(self, voter: str, vote_id: str) -> Vote:
        """Take a vote back; the voter's earlier one on the pair, if any, counts again.

        Raises:
            NotFound: if the voter has no such vote, or has taken it back before.
        """
        query = _query().where(votes.c.vote_id == vote_id, votes.c.voter == voter)
        with self.database.writing() as connection:
            row = connection.execute(query).first()
            if row is None:
                raise NotFound("There is no such vote of yours", seen=vote_id[:80], remedy="reload the page")
            moment = datetime.now(UTC).isoformat()
            connection.execute(vote_withdrawals.insert().values(vote_id=vote_id, created_at=moment))
            return _to_vote(row)

    def standing(self, prompt_set: str, first: str, second: str) -> list[Vote]:
        """The newest vote of every voter on every image, of those not taken back; oldest first.

        `first` and `second` are names of models, as the votes have them.
        """
        with self.database.reading() as connection:
            return _newest(connection, _standing(prompt_set, first, second))


def _query() -> Select[Any]:
    """Votes that were not taken back."""
    taken = vote_withdrawals.c.vote_id == votes.c.vote_id
    return select(votes).outerjoin(vote_withdrawals, taken).where(vote_withdrawals.c.vote_id.is_(None))


def _standing(prompt_set: str, first: str, second: str) -> Select[Any]:
    wanted = (votes.c.prompt_set == prompt_set, votes.c.first == first, votes.c.second == second)
    return _query().where(*wanted).order_by(votes.c.number)


def _newest(connection: Connection, query: Select[Any]) -> list[Vote]:
    rows: Sequence[Any] = connection.execute(query).all()
    newest = {(row.voter, row.prompt_id): row.number for row in rows}
    return [_to_vote(row) for row in rows if newest[row.voter, row.prompt_id] == row.number]


def _row(vote: Vote) -> dict[str, Any]:
    values = vote.model_dump(mode="json", exclude={"first", "second"})
    for name, one in (("first", vote.first), ("second", vote.second)):
        values |= {name: one.model, f"{name}_hash": one.adapter_hash, f"{name}_text": one.text}
    return values


def _to_vote(row: Any) -> Vote:
    values = {name: getattr(row, name) for name in Vote.model_fields if name not in ("first", "second")}
    for name in ("first", "second"):
        values[name] = Contender(
            model=getattr(row, name),
            adapter_hash=getattr(row, f"{name}_hash"),
            text=getattr(row, f"{name}_text"),
        )
    return Vote.model_validate(values)
