"""Blind votes in both kinds of store: the newest stands, one's own can be taken back, nothing is overwritten."""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from opadpo.errors import NotFound, OpadpoError
from opadpo.review.store import ReviewStore
from opadpo.review.votes import Contender, Vote, Votes

FIRST, SECOND = (
    Contender(model="opadpo", adapter_hash="a", text="1"),
    Contender(model="base", adapter_hash="", text="2"),
)


def vote(voter: str, outcome: str, prompt: str = "p1", **fields: object) -> Vote:
    known = {"prompt_set": "heldout", "first": FIRST, "second": SECOND, "left": "second", **fields}
    return Vote.create(voter=voter, outcome=outcome, prompt_id=prompt, **known)


def test_the_newest_vote_of_a_voter_stands_until_it_is_taken_back(opener: Callable[[], ReviewStore]) -> None:
    with opener() as store:
        votes = Votes(store.database)
        first = votes.cast(vote("ada", "first", note="names the dog\u202e \U0001f600"))
        other = votes.cast(vote("bob", "tie"))
        votes.cast(vote("ada", "both_bad", "p2"))
        votes.cast(vote("ada", "second", prompt_set="amber"))
        changed = votes.cast(vote("ada", "second"))
    with opener() as store:
        votes = Votes(store.database)
        standing = votes.standing("heldout", "opadpo", "base")
        assert {(one.voter, one.prompt_id): one.outcome for one in standing} == {
            ("bob", "p1"): "tie", ("ada", "p2"): "both_bad", ("ada", "p1"): "second",
        }  # fmt: skip
        assert standing[-1] == changed
        assert votes.standing("heldout", "base", "opadpo") == []
        with pytest.raises(NotFound, match="no such vote of yours"):
            votes.withdraw("ada", other.vote_id)
        assert votes.withdraw("ada", changed.vote_id) == changed
        with pytest.raises(NotFound):
            votes.withdraw("ada", changed.vote_id)
        assert first in votes.standing("heldout", "opadpo", "base")
        votes.withdraw("ada", first.vote_id)
        assert [one.voter for one in votes.standing("heldout", "opadpo", "base")] == ["bob", "ada"]


def test_the_same_vote_sent_twice_is_one(opener: Callable[[], ReviewStore]) -> None:
    with opener() as store:
        votes = Votes(store.database)
        first = votes.cast(vote("ada", "tie"))
        assert votes.cast(vote("ada", "tie")) == first
        assert votes.cast(vote("ada", "tie", note="after all")) != first
        assert len(votes.standing("heldout", "opadpo", "base")) == 1


def test_votes_cannot_be_changed(opener: Callable[[], ReviewStore]) -> None:
    with opener() as store:
        votes = Votes(store.database)
        votes.withdraw("ada", votes.cast(vote("ada", "first")).vote_id)
        for change in ("UPDATE votes SET outcome = 'tie'", "DELETE FROM votes", "DELETE FROM vote_withdrawals"):
            refused = pytest.raises((DBAPIError, OpadpoError), match="append-only")
            with refused, store.database.writing() as connection:
                connection.execute(text(change))
