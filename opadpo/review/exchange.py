"""Everything that a review store holds as lines of JSON, and back into a store of either kind, without loss.

Each line has a `kind`: `revision` and `withdrawal` are what was decided, in order; `draft` and `skip` what reviewers
have not finished. Claims are not among them: they end by themselves.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from opadpo.errors import DataError, disk_errors
from opadpo.files import atomic_write
from opadpo.records import Revision
from opadpo.review.schema import drafts, revisions, skips, withdrawals
from opadpo.review.store import ReviewStore, revision_row

FORMAT = 1
_CHUNK = 500


class _Line(BaseModel):
    """A line that is no revision."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Header(_Line):
    format: int


class _Withdrawal(_Line):
    revision_id: str
    author: str
    created_at: str


class _Draft(_Line):
    reviewer: str
    rollout_id: str
    base_revision_id: str | None
    seq: int
    updated_at: str
    body: dict[str, Any] | None


class _Skip(_Line):
    reviewer: str
    rollout_id: str
    skipped_at: float


_KINDS: dict[str, type[BaseModel]] = {
    "opadpo-reviews": _Header,
    "revision": Revision,
    "withdrawal": _Withdrawal,
    "draft": _Draft,
    "skip": _Skip,
}


def lines(store: ReviewStore) -> Iterator[dict[str, Any]]:
    """Everything in a store, from one state of it; memory stays at a few hundred rows."""
    yield {"kind": "opadpo-reviews", "format": FORMAT}
    with store.database.reading() as connection:
        streamed = connection.execution_options(yield_per=_CHUNK)
        for body in streamed.execute(select(revisions.c.body).order_by(revisions.c.number)).scalars():
            yield {"kind": "revision", **body}
        for kind, table, order in (
            ("withdrawal", withdrawals, withdrawals.c.number),
            ("draft", drafts, drafts.c.reviewer),
            ("skip", skips, skips.c.reviewer),
        ):
            columns = [table.c[name] for name in _KINDS[kind].model_fields]
            for row in streamed.execute(select(*columns).order_by(order)):
                yield {"kind": kind, **row._asdict()}


def export_reviews(store: ReviewStore, path: Path) -> dict[str, int]:
    """Write everything in a store into a file, atomically; returns the number of lines of each kind."""
    counts: Counter[str] = Counter()

    def text() -> Iterator[str]:
        for line in lines(store):
            counts[f"{line['kind']}s"] += 1
            yield json.dumps(line, ensure_ascii=False) + "\n"

    with disk_errors(path):
        atomic_write(path, text())
    del counts["opadpo-reviewss"]
    return dict(counts)


def import_reviews(path: Path, store: ReviewStore) -> dict[str, int]:
    """Add what a file holds and the store lacks, in one transaction; returns the number added of each kind.

    A draft replaces an older one of the same reviewer.

    Raises:
        DataError: if the file is not there or a line of it cannot be used; then nothing is added.
    """
    added: Counter[str] = Counter()
    with store.database.writing() as connection:
        pending = _checked(path)
        while chunk := list(islice(pending, _CHUNK)):
            for kind, put in _PUTS.items():
                rows = [line for found, line in chunk if found == kind]
                if rows:
                    added[f"{kind}s"] += _put(connection, store, put, rows, path)
    return dict(added)


def transfer(source: ReviewStore, target: ReviewStore) -> None:
    """Add everything of one store to another."""
    with target.database.writing() as connection:
        pending = ((line["kind"], _parsed(line)) for line in lines(source))
        while chunk := list(islice(pending, _CHUNK)):
            for kind, put in _PUTS.items():
                if rows := [line for found, line in chunk if found == kind]:
                    put(connection, target, rows)


def _checked(path: Path) -> Iterator[tuple[str, BaseModel]]:
    """(kind, line) of every line of a file."""
    number = 0
    try:
        with path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, 1):
                line = json.loads(text)
                if number == 1 and (not isinstance(line, dict) or line.get("kind") != "opadpo-reviews"):
                    raise ValueError("the first line is not that of an export of reviews")
                found = _parsed(line)
                if isinstance(found, _Header) and found.format > FORMAT:
                    raise ValueError(f"format {found.format} is of a newer version of opadpo")
                yield line["kind"], found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "A file of reviews cannot be used",
            seen=f"{path}, line {number}: {_first(error)}" if number else f"{path}: {_first(error)}",
            remedy="name a file that `opadpo export WORKSPACE --format reviews` wrote",
        ) from error
    if not number:
        raise DataError("A file of reviews is empty", seen=path, remedy="name a file that `opadpo export` wrote")


def _parsed(line: dict[str, Any]) -> BaseModel:
    fields = {name: value for name, value in line.items() if name != "kind"}
    return _KINDS[line["kind"]].model_validate(fields)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"unknown kind {error}" if isinstance(error, KeyError) else str(error)


def _put(
    connection: Connection, store: ReviewStore, put: Callable[..., None], rows: list[BaseModel], path: Path
) -> int:
    table = _TABLES[put]
    count = select(func.count()).select_from(table)
    before = connection.execute(count).scalar_one()
    try:
        put(connection, store, rows)
    except IntegrityError as error:
        raise DataError(
            "A file of reviews names a revision that is neither in it nor in the store",
            seen=f"{path}: {error.orig}",
            remedy="import the file that holds it first",
        ) from error
    return connection.execute(count).scalar_one() - before


def _put_revisions(connection: Connection, store: ReviewStore, rows: list[Any]) -> None:
    statement = store.database.insert(revisions).on_conflict_do_nothing(index_elements=["revision_id"])
    connection.execute(statement, [revision_row(row) for row in rows])


def _put_withdrawals(connection: Connection, store: ReviewStore, rows: list[Any]) -> None:
    statement = store.database.insert(withdrawals).on_conflict_do_nothing(index_elements=["revision_id"])
    connection.execute(statement, [row.model_dump() for row in rows])


def _put_drafts(connection: Connection, store: ReviewStore, rows: list[Any]) -> None:
    statement = store.database.insert(drafts)
    newer = {name: statement.excluded[name] for name in ("base_revision_id", "seq", "updated_at", "body")}
    statement = statement.on_conflict_do_update(
        index_elements=["reviewer", "rollout_id"], set_=newer, where=drafts.c.seq < statement.excluded.seq
    )
    connection.execute(statement, [row.model_dump() for row in rows])


def _put_skips(connection: Connection, store: ReviewStore, rows: list[Any]) -> None:
    statement = store.database.insert(skips).on_conflict_do_nothing(index_elements=["reviewer", "rollout_id"])
    connection.execute(statement, [row.model_dump() for row in rows])


_PUTS: dict[str, Callable[..., None]] = {
    "revision": _put_revisions,
    "withdrawal": _put_withdrawals,
    "draft": _put_drafts,
    "skip": _put_skips,
}
_TABLES = {_put_revisions: revisions, _put_withdrawals: withdrawals, _put_drafts: drafts, _put_skips: skips}
