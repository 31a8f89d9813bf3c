"""Revisions of rollouts, by the expert and by people: append-only, in SQLite or PostgreSQL."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import ValidationError
from sqlalchemy import CompoundSelect, Connection, Select, case, func, select
from sqlalchemy.exc import IntegrityError

from opadpo.errors import Conflict, NotFound, WorkspaceError
from opadpo.hashing import digest
from opadpo.records import Revision
from opadpo.review.opening import REMEDY, Database, database_url
from opadpo.review.places import Draft, Places
from opadpo.review.schema import revisions, withdrawals
from opadpo.workspace import Workspace

NO_REVIEWS = digest([0, 0, ""])
"""`ReviewStore.head` of a store that is empty, or not there."""

_CHUNK = 500
_COLUMNS = ("revision_id", "rollout_id", "parent_revision_id", "author_kind", "author", "created_at", "status")
_SAME = {"schema_version", "revision_id", "created_at"}
"""Fields in which the same act, sent twice, may differ."""

# A person's word counts more than the expert's, whichever came later.
_HUMAN_FIRST = case((revisions.c.author_kind == "human", 0), else_=1)
_WITHDRAWN = withdrawals.c.revision_id == revisions.c.revision_id
_STANDS = withdrawals.c.revision_id.is_(None)


class StaleEdit(Conflict):
    """A revision was made from one that is no longer in force; `theirs` is the one that is now."""

    def __init__(self, theirs: Revision | None, base: str | None) -> None:
        """`base` is the revision that the refused change started from."""
        self.theirs = theirs
        by = f"by {theirs.author} at {theirs.created_at:%H:%M UTC}" if theirs else "withdrawn"
        super().__init__(
            "Someone else has changed this record since it was opened",
            seen=f"in force is {theirs.revision_id if theirs else 'no revision'} ({by}), the change starts from {base}",
            remedy="compare both versions, then send yours again from the newest",
        )


class Mark(NamedTuple):
    """How far a reader has seen a store."""

    number: int = 0
    """Number of the newest revision."""
    revision_id: str = ""
    """Its id: tells a store that was replaced by an older copy of itself."""
    withdrawals: int = 0
    """Number of the newest withdrawal."""


class Undone(NamedTuple):
    """What a withdrawal did."""

    withdrawn: Revision
    """No longer in force."""
    current: Revision | None
    """In force now."""


class Dossier(NamedTuple):
    """What a reviewer may see of a rollout."""

    history: list[Revision]
    """All revisions, oldest first."""
    withdrawn: set[str]
    """Ids of those that were withdrawn."""
    current: Revision | None
    """The one in force."""
    draft: Draft | None
    """The reviewer's own draft, also one that was sent."""


class ReviewStore:
    """The revisions of a workspace; use as a context manager or call `close`."""

    def __init__(self, database: Database) -> None:
        """Use `ReviewStore.open` or `ReviewStore.of`."""
        self.database = database
        self.places = Places(database)
        """Drafts, claims and skips."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store in a SQLite file, making it if it is not there, migrating it if it is old.

        Raises:
            WorkspaceError: if the file is damaged, or was made by a newer version of this package.
        """
        return cls(Database.open_file(path))

    @classmethod
    def open_url(cls, url: str, source: str) -> Self:
        """Open a store in a PostgreSQL database; `source` says where its URL comes from.

        Raises:
            UserError: if the URL is none of a PostgreSQL database.
            DependencyMissing: if the driver is not installed.
            WorkspaceError: if the server cannot be used.
        """
        return cls(Database.open_server(url, source))

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """The store of a workspace: `reviews.db`, or the database that its recipe names.

        Raises:
            UserError: if the recipe names an environment variable that is not set; and as `open` and `open_url`.
        """
        url = database_url(workspace)
        if url is None:
            return cls.open(workspace.reviews_db)
        return cls.open_url(url, f"${workspace.recipe.review.database_url_env}")

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing -----------------------------------------------------------------------------------------------

    def append(self, added: Iterable[Revision]) -> int:
        """Add revisions in one transaction; those that are there already are left alone. Returns the number added.

        Raises:
            WorkspaceError: if a revision names a parent that is not there; then none is added.
        """
        chunk: list[dict[str, Any]] = []
        statement = self.database.insert(revisions).on_conflict_do_nothing(index_elements=["revision_id"])
        try:
            with self.database.writing() as connection:
                before = connection.execute(select(func.count()).select_from(revisions)).scalar_one()
                pending = (revision_row(revision) for revision in added)
                while chunk := list(islice(pending, _CHUNK)):
                    connection.execute(statement, chunk)
                return connection.execute(select(func.count()).select_from(revisions)).scalar_one() - before
        except IntegrityError as error:
            raise WorkspaceError(
                "A revision names a parent that is not in the store",
                seen=", ".join(sorted({str(row["parent_revision_id"]) for row in chunk} - {"None"})),
                remedy="add the parent first",
            ) from error

    def commit(self, revision: Revision, *, seq: int = 0) -> Revision:
        """Append a person's revision if its parent is still in force; its author's draft and claim end with it.

        `seq` is the number of the newest draft that was sent. Returns the revision in force: the one given, or, where
        the same was sent before (an answer that got lost), the one from then.

        Raises:
            StaleEdit: if another revision is in force; nothing is written.
        """
        with self.database.writing() as connection:
            current = self._current(connection, revision.rollout_id)
            if current and _same_act(current, revision):
                return current
            if (current.revision_id if current else None) != revision.parent_revision_id:
                raise StaleEdit(current, revision.parent_revision_id)
            connection.execute(revisions.insert().values(revision_row(revision)))
            self.places.finish(connection, revision.author, revision.rollout_id, seq)
            return revision

    def undo(self, author: str) -> Undone:
        """Withdraw an author's newest revision that stands; the one before it is in force again.

        What it had changed is there again as the author's draft.

        Raises:
            NotFound: if there is none.
            StaleEdit: if somebody has built on it.
        """
        newest = (
            self._standing()
            .where(revisions.c.author == author, revisions.c.author_kind == "human")
            .order_by(revisions.c.number.desc())
        )
        with self.database.writing() as connection:
            withdrawn = self._one(connection, newest)
            if withdrawn is None:
                raise NotFound("There is nothing to undo", seen=author, remedy="nothing of yours stands in this store")
            current = self._current(connection, withdrawn.rollout_id)
            if current is None or current.revision_id != withdrawn.revision_id:
                raise StaleEdit(current, withdrawn.revision_id)
            values = {"revision_id": withdrawn.revision_id, "author": author, "created_at": _now()}
            connection.execute(withdrawals.insert().values(values))
            back = self._current(connection, withdrawn.rollout_id)
            if back is None or back.sentences != withdrawn.sentences or withdrawn.note:
                body = {
                    "sentences": [sentence.model_dump(mode="json") for sentence in withdrawn.sentences],
                    "note": withdrawn.note,
                }
                base = back.revision_id if back else None
                self.places.reopen(connection, author, withdrawn.rollout_id, base, body)
            return Undone(withdrawn, back)

    def hand_out(self, reviewer: str, candidates: Iterable[str], *, seen: Mark) -> str | None:
        """Claim the first candidate that nobody else is at, or has decided since `seen`; None if there is none.

        In one transaction: two reviewers who ask at once get different records.
        """
        with self.database.writing() as connection:
            taken = self.places.taken(connection, reviewer)
            taken.update(connection.execute(_changed_since(seen)).scalars())
            chosen = next((rollout_id for rollout_id in candidates if rollout_id not in taken), None)
            if chosen is not None:
                self.places.take(connection, reviewer, chosen)
            return chosen

    # -- reading -----------------------------------------------------------------------------------------------

    def history(self, rollout_id: str) -> list[Revision]:
        """All revisions of a rollout, oldest first, also those withdrawn."""
        query = select(revisions.c.body).where(revisions.c.rollout_id == rollout_id).order_by(revisions.c.number)
        with self.database.reading() as connection:
            return [self._to_revision(body) for body in connection.execute(query).scalars()]

    def dossier(self, rollout_id: str, reviewer: str) -> Dossier:
        """Everything about a rollout that a reviewer may see, from one state of the store."""
        query = (
            select(revisions.c.body, withdrawals.c.number)
            .outerjoin(withdrawals, _WITHDRAWN)
            .where(revisions.c.rollout_id == rollout_id)
            .order_by(revisions.c.number)
        )
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
            draft = self.places.draft(connection, reviewer, rollout_id)
        history = [self._to_revision(row.body) for row in rows]
        withdrawn = {r.revision_id for r, row in zip(history, rows, strict=True) if row.number is not None}
        standing = [r for r in history if r.revision_id not in withdrawn]
        human = [r for r in standing if r.author_kind == "human"]
        return Dossier(history, withdrawn, next(reversed(human or standing), None), draft)

    def current(self, rollout_id: str) -> Revision | None:
        """The revision in force: a person's newest that stands, else the expert's (or imported) newest."""
        with self.database.reading() as connection:
            return self._current(connection, rollout_id)

    def newest_by(self, author_kind: str, rollout_id: str) -> Revision | None:
        """The newest revision of a rollout by one kind of author that stands."""
        query = self._standing().where(revisions.c.rollout_id == rollout_id, revisions.c.author_kind == author_kind)
        with self.database.reading() as connection:
            return self._one(connection, query.order_by(revisions.c.number.desc()))

    def iter_current(self, since: Mark | None = None) -> Iterator[Revision]:
        """Stream the revision in force of every rollout, in the order in which they were added.

        With `since`, of those rollouts only about which something was decided after it. All come from one state of
        the store, whatever is added meanwhile; memory stays at a few hundred rows.
        """
        for body in self.iter_current_data(since):
            yield self._to_revision(body)

    def iter_current_data(self, since: Mark | None = None) -> Iterator[dict[str, Any]]:
        """`iter_current` as plain data, for readers of the whole store that need a few fields."""
        order = func.row_number().over(
            partition_by=revisions.c.rollout_id, order_by=(_HUMAN_FIRST, revisions.c.number.desc())
        )
        ranked = select(revisions.c.number, order.label("place")).outerjoin(withdrawals, _WITHDRAWN).where(_STANDS)
        if since is not None:
            ranked = ranked.where(revisions.c.rollout_id.in_(_changed_since(since)))
        places = ranked.subquery()
        query = (
            select(revisions.c.body)
            .join(places, places.c.number == revisions.c.number)
            .where(places.c.place == 1)
            .order_by(revisions.c.number)
        )
        with self.database.reading() as connection:
            for row in connection.execution_options(yield_per=_CHUNK).execute(query):
                yield row.body

    def rollouts(self) -> set[str]:
        """Ids of all rollouts that have a revision."""
        with self.database.reading() as connection:
            return set(connection.execute(select(revisions.c.rollout_id).distinct()).scalars())

    def changed_since(self, since: Mark) -> set[str]:
        """Rollouts about which something was decided after `since`."""
        with self.database.reading() as connection:
            return set(connection.execute(_changed_since(since)).scalars())

    def mark(self) -> Mark:
        """How far the store goes now."""
        newest = select(revisions.c.number, revisions.c.revision_id).order_by(revisions.c.number.desc()).limit(1)
        with self.database.reading() as connection:
            row = connection.execute(newest).first()
            last = connection.execute(select(func.max(withdrawals.c.number))).scalar() or 0
        return Mark(row.number, row.revision_id, last) if row else Mark()

    def knows(self, mark: Mark) -> bool:
        """Whether this store has been in the state of `mark`; False for another store, or an older copy of it."""
        if mark == Mark():
            return True
        query = select(revisions.c.revision_id).where(revisions.c.number == mark.number)
        with self.database.reading() as connection:
            last = connection.execute(select(func.max(withdrawals.c.number))).scalar() or 0
            return connection.execute(query).scalar() == mark.revision_id and last >= mark.withdrawals

    def head(self) -> str:
        """Digest of the newest state; changes whenever a revision is added or withdrawn."""
        with self.database.reading() as connection:
            count = connection.execute(select(func.count()).select_from(revisions)).scalar_one()
        mark = self.mark()
        taken_back = [mark.withdrawals] if mark.withdrawals else []
        return digest([count, mark.number, mark.revision_id, *taken_back])

    def counts(self) -> dict[str, int]:
        """Revisions in all, rollouts that have one, and revisions by kind of author (`by_expert`, `by_human`, ...)."""
        totals = select(func.count(), func.count(revisions.c.rollout_id.distinct()))
        by_kind = select(revisions.c.author_kind, func.count()).group_by(revisions.c.author_kind)
        with self.database.reading() as connection:
            number, rollouts = connection.execute(totals).one()
            kinds = {f"by_{kind}": count for kind, count in sorted(connection.execute(by_kind).tuples())}
        return {"revisions": number, "rollouts": rollouts, **kinds}

    # -- inside ------------------------------------------------------------------------------------------------

    def _standing(self) -> Select[Any]:
        return select(revisions.c.body).outerjoin(withdrawals, _WITHDRAWN).where(_STANDS)

    def _current(self, connection: Connection, rollout_id: str) -> Revision | None:
        query = self._standing().where(revisions.c.rollout_id == rollout_id)
        return self._one(connection, query.order_by(_HUMAN_FIRST, revisions.c.number.desc()))

    def _one(self, connection: Connection, query: Select[Any]) -> Revision | None:
        body = connection.execute(query.limit(1)).scalar()
        return None if body is None else self._to_revision(body)

    def _to_revision(self, body: Any) -> Revision:
        try:
            return Revision.model_validate(body)
        except ValidationError as error:
            raise WorkspaceError(
                "A stored revision cannot be read", seen=f"{self.database.where}: {error}", remedy=REMEDY
            ) from error


def _changed_since(since: Mark) -> CompoundSelect[Any]:
    later = select(revisions.c.rollout_id).where(revisions.c.number > since.number)
    taken_back = select(revisions.c.rollout_id).join(withdrawals).where(withdrawals.c.number > since.withdrawals)
    return later.union(taken_back)


def has_store(workspace: Workspace) -> bool:
    """Whether there are reviews to open without making the file."""
    return database_url(workspace) is not None or workspace.reviews_db.exists()


def reviews_head(workspace: Workspace) -> str:
    """`ReviewStore.head` of a workspace that may have no reviews yet; no file is made."""
    if not has_store(workspace):
        return NO_REVIEWS
    with ReviewStore.of(workspace) as store:
        return store.head()


def _same_act(one: Revision, other: Revision) -> bool:
    return one.author_kind == "human" and one.model_dump(exclude=_SAME) == other.model_dump(exclude=_SAME)


def revision_row(revision: Revision) -> dict[str, Any]:
    """A revision as a row of the table."""
    body = revision.model_dump(mode="json")
    return {**{name: body[name] for name in _COLUMNS}, "body": body}


def _now() -> str:
    return datetime.now(UTC).isoformat()
