"""Revisions of rollouts, by the expert and by people, in one append-only table."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    case,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import IntegrityError

from opadpo.databases import database_errors, open_sqlite, writing
from opadpo.errors import WorkspaceError
from opadpo.hashing import digest
from opadpo.records import Revision

SCHEMA_VERSION = 1

_REMEDY = "restore the file from a copy; without one, move it away and run `opadpo revise`, which asks nothing twice"

_metadata = MetaData()
_revisions = Table(
    "revisions",
    _metadata,
    # AUTOINCREMENT: numbers only ever grow, also after a row of another program's making has gone.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("revision_id", String, nullable=False, unique=True),
    Column("rollout_id", String, nullable=False),
    Column("parent_revision_id", String, ForeignKey("revisions.revision_id")),
    Column("author_kind", String, nullable=False),
    Column("author", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("status", String, nullable=False),
    Column("body", JSON, nullable=False),
    Index("revisions_of_rollout", "rollout_id", "author_kind", "number"),
    sqlite_autoincrement=True,
)

# A person's word counts more than the expert's, whichever came later.
_HUMAN_FIRST = case((_revisions.c.author_kind == "human", 0), else_=1)


class ReviewStore:
    """The revisions of a workspace; use as a context manager or call `close`."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Use `ReviewStore.open`."""
        self._engine = engine
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store, making it if it is not there.

        Raises:
            WorkspaceError: if the file is damaged, or was made by a newer version of this package.
        """
        return cls(open_sqlite(path, _metadata, version=SCHEMA_VERSION, remedy=_REMEDY), path)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, revisions: Iterable[Revision]) -> int:
        """Add revisions in one transaction; those that are there already are left alone. Returns the number added.

        Raises:
            WorkspaceError: if a revision names a parent that is not there; then none is added.
        """
        rows = [_to_row(revision) for revision in revisions]
        if not rows:
            return 0
        statement = insert(_revisions).on_conflict_do_nothing(index_elements=["revision_id"])
        try:
            with self._errors(), writing(self._engine) as connection:
                return sum(connection.execute(statement, row).rowcount for row in rows)
        except IntegrityError as error:
            raise WorkspaceError(
                "A revision names a parent that is not in the store",
                seen=", ".join(sorted({str(row["parent_revision_id"]) for row in rows} - {"None"})),
                remedy="add the parent first",
            ) from error

    def history(self, rollout_id: str) -> list[Revision]:
        """All revisions of a rollout, oldest first."""
        query = select(_revisions.c.body).where(_revisions.c.rollout_id == rollout_id).order_by(_revisions.c.number)
        return self._revisions(query)

    def current(self, rollout_id: str) -> Revision | None:
        """The revision in force: a person's newest if there is one, else the expert's (or imported) newest."""
        query = (
            select(_revisions.c.body)
            .where(_revisions.c.rollout_id == rollout_id)
            .order_by(_HUMAN_FIRST, _revisions.c.number.desc())
            .limit(1)
        )
        return next(iter(self._revisions(query)), None)

    def newest_by(self, author_kind: str, rollout_id: str) -> Revision | None:
        """The newest revision of a rollout by one kind of author."""
        query = (
            select(_revisions.c.body)
            .where(_revisions.c.rollout_id == rollout_id, _revisions.c.author_kind == author_kind)
            .order_by(_revisions.c.number.desc())
            .limit(1)
        )
        return next(iter(self._revisions(query)), None)

    def iter_current(self) -> Iterator[Revision]:
        """Stream the revision in force of every rollout, in the order in which they were added.

        All come from one state of the store, whatever is added meanwhile; memory stays at a few hundred rows.
        """
        order = func.row_number().over(
            partition_by=_revisions.c.rollout_id, order_by=(_HUMAN_FIRST, _revisions.c.number.desc())
        )
        ranked = select(_revisions.c.number, order.label("place")).subquery()
        query = (
            select(_revisions.c.body)
            .join(ranked, ranked.c.number == _revisions.c.number)
            .where(ranked.c.place == 1)
            .order_by(_revisions.c.number)
        )
        with self._errors(), self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=500).execute(query):
                yield self._to_revision(row.body)

    def head(self) -> str:
        """Digest of the newest state; changes whenever a revision is added."""
        count = select(func.count()).select_from(_revisions).scalar_subquery()
        query = select(count, _revisions.c.number, _revisions.c.revision_id).order_by(_revisions.c.number.desc())
        row = self._first(query.limit(1))
        return digest(list(row) if row else [0, 0, ""])

    def counts(self) -> dict[str, int]:
        """Revisions in all, rollouts that have one, and revisions by kind of author (`by_expert`, `by_human`, ...)."""
        totals = select(func.count(), func.count(_revisions.c.rollout_id.distinct()))
        by_kind = select(_revisions.c.author_kind, func.count()).group_by(_revisions.c.author_kind)
        with self._errors(), self._engine.connect() as connection:
            revisions, rollouts = connection.execute(totals).one()
            kinds = {f"by_{kind}": count for kind, count in sorted(connection.execute(by_kind).tuples())}
        return {"revisions": revisions, "rollouts": rollouts, **kinds}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with database_errors(self.path, _REMEDY):
            yield

    def _first(self, query: Any) -> Row[Any] | None:
        with self._errors(), self._engine.connect() as connection:
            return connection.execute(query).first()

    def _revisions(self, query: Any) -> list[Revision]:
        with self._errors(), self._engine.connect() as connection:
            bodies: Sequence[Any] = connection.execute(query).scalars().all()
        return [self._to_revision(body) for body in bodies]

    def _to_revision(self, body: Any) -> Revision:
        try:
            return Revision.model_validate(body)
        except ValidationError as error:
            raise WorkspaceError(
                "A stored revision cannot be read", seen=f"{self.path}: {error}", remedy=_REMEDY
            ) from error


def reviews_head(path: Path) -> str:
    """`ReviewStore.head` of a file that may not be there yet; nothing is made."""
    if not path.exists():
        return digest([0, 0, ""])
    with ReviewStore.open(path) as store:
        return store.head()


def _to_row(revision: Revision) -> dict[str, Any]:
    body = revision.model_dump(mode="json")
    columns = ("revision_id", "rollout_id", "parent_revision_id", "author_kind", "author", "created_at", "status")
    return {**{name: body[name] for name in columns}, "body": body}
