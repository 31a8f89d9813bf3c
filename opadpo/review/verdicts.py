"""What people decided about each record, where several of them looked at it."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, select

from opadpo.records import RevisionStatus
from opadpo.review.schema import revisions, withdrawals
from opadpo.review.store import ReviewStore

_CHUNK = 500

How = Literal["adjudicated", "agreed", "sole", "disagreed"]


class Verdict(NamedTuple):
    """What came of the reviews of one record."""

    how: How
    """adjudicated: decided by one who saw another person's review; agreed: several people decided alike on their own;
    sole: one person did; disagreed: nobody has settled it yet."""
    revision_id: str | None
    """The revision that counts; None if they disagree."""
    status: RevisionStatus | None
    """What it says; None if they disagree."""
    people: list[str]
    """Who decided: the one that counts, or all who agree or disagree, sorted."""


class Act(NamedTuple):
    """A revision without its text."""

    revision_id: str
    rollout_id: str
    parent_revision_id: str | None
    author_kind: str
    author: str
    status: RevisionStatus
    withdrawn: int | None
    """Number of its withdrawal."""


def verdicts(
    store: ReviewStore, adjudicators: Collection[str] = (), *, among: Collection[str] | None = None
) -> dict[str, Verdict]:
    """The verdict on every record that a person has reviewed (of those in `among`, if given), from one state of the
    store.

    In this order: the newest decision (not a flag) by one of the `adjudicators`; the newest revision that builds on
    another person's; what all who looked on their own agree about.
    """
    found: dict[str, Verdict] = {}
    several: dict[str, list[Act]] = {}
    with store.database.reading() as connection:
        for rollout_id, acts in reviewed(connection, among):
            decisive = _adjudication(acts, adjudicators)
            alone = independent(acts)
            if decisive is not None:
                found[rollout_id] = _counts("adjudicated", [decisive])
            elif len(alone) == 1:
                found[rollout_id] = _counts("sole", alone)
            else:
                several[rollout_id] = alone
        bodies = bodies_of(connection, [act for acts in several.values() for act in acts])
    for rollout_id, acts in several.items():
        if len({_substance(bodies[act.revision_id]) for act in acts}) == 1:
            found[rollout_id] = _counts("agreed", acts)
        else:
            found[rollout_id] = Verdict("disagreed", None, None, sorted(act.author for act in acts))
    return found


def review_counts(store: ReviewStore, adjudicators: Collection[str] = ()) -> dict[str, int]:
    """Records that people have reviewed, and those of them that are rejected, flagged, or not settled."""
    found = list(verdicts(store, adjudicators).values())
    statuses = Counter(verdict.status for verdict in found)
    return {
        "reviewed": len(found),
        "rejected": statuses["rejected"],
        "flagged": statuses["flagged"],
        "unresolved": statuses[None],
    }


def independent(acts: Sequence[Act]) -> list[Act]:
    """The newest of each person that stands and was made without another person's review in front, in order."""
    known = {act.revision_id: act for act in acts}
    own = [act for act in acts if _of_a_person(act) and not _builds_on_another(act, known)]
    newest = {act.author: act for act in own}
    return [act for act in own if newest[act.author] is act]


def _adjudication(acts: Sequence[Act], adjudicators: Collection[str]) -> Act | None:
    known = {act.revision_id: act for act in acts}
    standing = [act for act in acts if _of_a_person(act)]
    named = [act for act in standing if act.author in adjudicators and act.status != "flagged"]
    chained = [act for act in standing if _builds_on_another(act, known)]
    return next(reversed(named or chained), None)


def _of_a_person(act: Act) -> bool:
    return act.author_kind == "human" and act.withdrawn is None


def _builds_on_another(act: Act, known: dict[str, Act]) -> bool:
    at = known.get(act.parent_revision_id or "")
    while at is not None:
        if at.author_kind == "human" and at.author != act.author:
            return True
        at = known.get(at.parent_revision_id or "")
    return False


def _counts(how: How, acts: Sequence[Act]) -> Verdict:
    return Verdict(how, acts[-1].revision_id, acts[-1].status, sorted(act.author for act in acts))


def _substance(body: dict[str, Any]) -> tuple[Any, ...]:
    """What training would use of a revision; reasons, notes and objects may differ in words."""
    if body["status"] != "done":
        return (body["status"],)
    told = [(s["start"], s["end"], s["revised"], s["score"], s["error_type"]) for s in body["sentences"]]
    return ("done", body["text"], *told)


def reviewed(connection: Connection, among: Collection[str] | None = None) -> Iterator[tuple[str, list[Act]]]:
    """(rollout id, its revisions without their texts, oldest first) of every record that a person's revision is
    about, one that stands; of those in `among` only, if given."""
    gone = withdrawals.c.revision_id == revisions.c.revision_id
    by_people = (
        select(revisions.c.rollout_id)
        .outerjoin(withdrawals, gone)
        .where(revisions.c.author_kind == "human", withdrawals.c.number.is_(None))
    )
    # A database takes so many parameters and no more; of many records it reads all, and the rest is left out here.
    few = among if among is not None and len(among) <= _CHUNK else None
    if few is not None:
        by_people = by_people.where(revisions.c.rollout_id.in_(few))
    query = (
        select(*[revisions.c[name] for name in Act._fields[:-1]], withdrawals.c.number)
        .outerjoin(withdrawals, gone)
        .where(revisions.c.rollout_id.in_(by_people))
        .order_by(revisions.c.rollout_id, revisions.c.number)
    )
    rows = connection.execution_options(yield_per=_CHUNK).execute(query)
    for rollout_id, acts in groupby((Act(*row) for row in rows), key=lambda act: act.rollout_id):
        if among is None or rollout_id in among:
            yield rollout_id, list(acts)


def bodies_of(connection: Connection, acts: Sequence[Act]) -> dict[str, dict[str, Any]]:
    """Revision id -> the fields of the revision."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(acts), _CHUNK):
        ids = [act.revision_id for act in acts[start : start + _CHUNK]]
        query = select(revisions.c.body).where(revisions.c.revision_id.in_(ids))
        found.update((body["revision_id"], body) for body in connection.execute(query).scalars())
    return found
