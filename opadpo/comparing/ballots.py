"""Blind votes: which captions, in which order, on which side, and what the votes add up to.

Every voter gets the captions in an order of their own and every pair with sides drawn by voter and prompt: nothing
tells which model is which, a reload changes nothing, and the votes of many who stop early are spread over the set.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opadpo.comparing.catalogue import Catalogue
from opadpo.comparing.columns import Caption, Column, Questions, image_address
from opadpo.comparing.messages import Ballot, PairAsked, Results, Verdict, VoteIn, VoteOut, VoterOut
from opadpo.errors import NotFound, UserError
from opadpo.evaluation.statistics import win_rate
from opadpo.hashing import bytes_digest
from opadpo.review.votes import Contender, Outcome, Side, Vote
from opadpo.steps import plans


@dataclass(frozen=True)
class Box:
    """What can be voted on."""

    set: str
    """Name of the set."""
    questions: Questions
    """Its prompts."""
    first: Column
    """The model whose wins are counted."""
    second: Column
    """The one that it is compared with: the base, if it takes part."""
    places: list[int]
    """Prompts that both have answered in different words."""
    same: int
    """Prompts that both have answered in the same words."""

    def captions(self, prompt_id: str) -> tuple[Caption, Caption]:
        """What the first and the second said."""
        return self.first.captions[prompt_id], self.second.captions[prompt_id]

    def order(self, voter: str) -> list[str]:
        """Prompt ids in a voter's own order."""
        names = [self.questions.rows[place].prompt_id for place in self.places]
        return sorted(names, key=lambda name: self._drawn("order", voter, name))

    def left(self, voter: str, prompt_id: str) -> Side:
        """Which is shown on the left."""
        return "first" if self._drawn("side", voter, prompt_id) % 2 else "second"

    def _drawn(self, *what: str) -> int:
        """A number that depends on the set, the pair and `what`, and on nothing else."""
        parts = (self.set, self.first.model, self.second.model, *what)
        return int(bytes_digest("\0".join(parts).encode("utf-8", "surrogatepass"))[:16], 16)


def open_box(catalogue: Catalogue, asked: PairAsked) -> Box:
    """The captions of two models that can be voted on.

    Raises:
        UserError: if both are one, or as `Catalogue.view`.
    """
    if asked.first == asked.second:
        raise UserError("A vote needs two models", seen=f"{asked.first} twice", remedy="choose two")
    second, first = sorted((asked.first, asked.second), key=lambda name: (name != plans.BASE, name))
    questions = catalogue.questions(asked.set)
    one, two = catalogue.column(first, asked.set), catalogue.column(second, asked.set)
    both = [
        place
        for place, row in enumerate(questions.rows)
        if row.prompt_id in one.captions and row.prompt_id in two.captions
    ]
    pair = catalogue.pair(questions, one, two)
    places = [place for place in both if not pair.same[place]]
    return Box(asked.set, questions, one, two, places, len(both) - len(places))


def ballot(box: Box, voter: str, prompt_id: str | None, standing: Sequence[Vote]) -> Ballot | None:
    """One pair as its voter sees it; None if no prompt is named and none is left.

    Raises:
        NotFound: if the prompt cannot be voted on.
    """
    own = {vote.prompt_id: vote for vote in standing if vote.voter == voter and _is_about(vote, box)}
    order = box.order(voter)
    unvoted = [name for name in order if name not in own]
    if prompt_id is None:
        if not unvoted:
            return None
        prompt_id = unvoted[0]
    if prompt_id not in set(order):
        raise NotFound("There is nothing to vote on here", seen=prompt_id[:80], remedy="go on to the next")
    at = order.index(prompt_id)
    row = box.questions.rows[box.questions.place[prompt_id]]
    first, second = box.captions(prompt_id)
    left, right = (first, second) if box.left(voter, prompt_id) == "first" else (second, first)
    rest = [*order[at + 1 :], *order[:at]]
    return Ballot(
        prompt_id=prompt_id,
        question=row.question,
        image=image_address(box.set, prompt_id),
        left=left.text,
        right=right.text,
        vote=_shown(own[prompt_id], box) if prompt_id in own else None,
        position=at + 1,
        total=len(order),
        voted=len(own),
        same=box.same,
        previous=order[at - 1] if at else None,
        next=order[at + 1] if at + 1 < len(order) else None,
        upcoming=next((name for name in rest if name not in own), None),
    )


def to_vote(box: Box, voter: str, body: VoteIn) -> Vote:
    """A vote as it is stored.

    Raises:
        NotFound: if the prompt cannot be voted on.
    """
    place = box.questions.place.get(body.prompt_id)
    if place not in box.places:
        raise NotFound("There is nothing to vote on here", seen=body.prompt_id[:80], remedy="go on to the next")
    left = box.left(voter, body.prompt_id)
    first, second = box.captions(body.prompt_id)
    return Vote.create(
        voter=voter,
        prompt_set=box.set,
        prompt_id=body.prompt_id,
        first=_contender(box.first, first),
        second=_contender(box.second, second),
        left=left,
        outcome=_stored(body.outcome, left),
        note=body.note,
    )


def results(box: Box, standing: Sequence[Vote], confidence: float) -> Results:
    """What the votes add up to."""
    current = [vote for vote in standing if _is_about(vote, box)]
    by_voter = {name: Counter(vote.outcome for vote in current if vote.voter == name) for name in _voters(current)}
    total = Counter(vote.outcome for vote in current)
    decided = total["first"] + total["second"] + total["tie"]
    return Results(
        first=box.first.model,
        second=box.second.model,
        total=_counted("", total),
        voters=[_counted(name, counts) for name, counts in by_voter.items()],
        images=len({vote.prompt_id for vote in current}),
        rate=win_rate(total["first"], total["second"], total["tie"], confidence=confidence) if decided else None,
        confidence=confidence,
        outdated=len(standing) - len(current),
    )


def _voters(votes: Sequence[Vote]) -> list[str]:
    return [name for name, _ in Counter(vote.voter for vote in votes).most_common()]


def _counted(voter: str, counts: Counter[str]) -> VoterOut:
    return VoterOut(
        voter=voter, first=counts["first"], second=counts["second"], tie=counts["tie"], both_bad=counts["both_bad"]
    )


def _contender(column: Column, caption: Caption) -> Contender:
    return Contender(model=column.model, adapter_hash=caption.adapter_hash, text=_digest(caption))


def _digest(caption: Caption) -> str:
    return bytes_digest(caption.text.encode("utf-8", "surrogatepass"))


def _is_about(vote: Vote, box: Box) -> bool:
    """Whether a vote is about the captions that are there now."""
    place = box.questions.place.get(vote.prompt_id)
    if place is None or vote.prompt_id not in box.first.captions or vote.prompt_id not in box.second.captions:
        return False
    first, second = box.captions(vote.prompt_id)
    return (vote.first.text, vote.second.text) == (_digest(first), _digest(second))


def _stored(outcome: Verdict, left: Side) -> Outcome:
    if outcome == "left":
        return left
    if outcome == "right":
        return "second" if left == "first" else "first"
    return outcome


def _shown(vote: Vote, box: Box) -> VoteOut:
    names = {"first": box.first.model, "second": box.second.model}
    right: Side = "second" if vote.left == "first" else "first"
    sides: dict[Outcome, Verdict] = {vote.left: "left", right: "right", "tie": "tie", "both_bad": "both_bad"}
    return VoteOut(
        vote_id=vote.vote_id,
        outcome=sides[vote.outcome],
        note=vote.note,
        left=names[vote.left],
        right=names[right],
        created_at=vote.created_at,
    )
