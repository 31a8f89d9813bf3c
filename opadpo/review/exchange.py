"""Everything that a review store holds as lines of JSON, and back into a store of either kind, without loss.

Each line has a `kind`: `revision` and `withdrawal` are what was decided, in order; `draft` and `skip` what reviewers
have not finished. Claims are not among them: they end by themselves.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, func, or_, select
from sqlalchemy.exc import IntegrityError

from opadpo.errors import DataError, disk_errors
from opadpo.files import atomic_write
from opadpo.records import Revision
from opadpo.review.editing import MAX_SENTENCES, Note, SentenceEdit
from opadpo.review.schema import drafts, revisions, skips, withdrawals
from opadpo.review.store import ReviewStore, revision_row

FORMAT = 1
_CHUNK = 500


def _moment(text: str) -> str:
    """Times are compared as text, so all are UTC and of one form."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC).isoformat()


Moment = Annotated[str, AfterValidator(_moment)]


class _Line(BaseModel):
    """A line that is no revision."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Header(_Line):
    format: int = Field(ge=1)


class _Withdrawal(_Line):
    revision_id: str
    author: str
    created_at: Moment


class _DraftBody(_Line):
    sentences: list[SentenceEdit] = Field(max_length=MAX_SENTENCES)
    note: Note


def _draft_body(body: dict[str, Any]) -> dict[str, Any]:
    """What a page will be given as it stands: checked, and not changed."""
    _DraftBody.model_validate(body)
    return body


class _Draft(_Line):
    reviewer: str
    rollout_id: str
    base_revision_id: str | None
    seq: int = Field(ge=0, lt=2**53)
    updated_at: Moment
    body: Annotated[dict[str, Any], AfterValidator(_draft_body)] | None


class _Skip(_Line):
    reviewer: str
    rollout_id: str
    skipped_at: float = Field(allow_inf_nan=False)


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
        DataError: if the file is not there, a line of it cannot be used, or it says what no desk could have written:
            a revision made from one of another record, or a withdrawal by another than its author. Then nothing is
            added.
    """
    added: Counter[str] = Counter()
    with store.database.writing() as connection:
        pending = _checked(path)
        while chunk := list(islice(pending, _CHUNK)):
            for kind, put in _PUTS.items():
                rows = [line for found, line in chunk if found == kind]
                if rows:
                    added[f"{kind}s"] += _put(connection, store, put, rows, path)
                if kind == "revision":
                    _refuse_altered(connection, rows, path)
        if sum(added.values()):
            _refuse_impossible(connection, path)
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
                line = _read(text)
                if number == 1 and line.get("kind") != "opadpo-reviews":
                    raise ValueError("the first line is not that of an export of reviews")
                found = _parsed(line)
                if isinstance(found, _Header) and found.format > FORMAT:
                    raise ValueError(f"format {found.format} is of a newer version of opadpo")
                yield line["kind"], found
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "A file of reviews cannot be used",
            seen=f"{path}, line {number}: {_first(error)}" if number else f"{path}: {_first(error)}",
            remedy="name a file that `opadpo export WORKSPACE --format reviews` wrote",
        ) from error
    if not number:
        raise DataError("A file of reviews is empty", seen=path, remedy="name a file that `opadpo export` wrote")


def _read(text: str) -> dict[str, Any]:
    """A line as plain data. What is added can never be taken out again, so nothing is let in that no file can hold."""
    line = json.loads(text)
    if not isinstance(line, dict):
        raise ValueError("no JSON object")
    if "\\u" in text:
        json.dumps(line, ensure_ascii=False).encode()  # refuses a half of a surrogate pair
        if any("\0" in part for part in _texts(line)):
            raise ValueError("holds a NUL character")
    return line


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _parsed(line: dict[str, Any]) -> BaseModel:
    kind = line.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    found = _KINDS[kind].model_validate({name: value for name, value in line.items() if name != "kind"})
    if isinstance(found, Revision):
        if found.created_at.tzinfo is None:
            raise ValueError("created_at: a time without its zone")
        if found.parent_revision_id == found.revision_id:
            raise ValueError("parent_revision_id: the revision itself")
    return found


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if isinstance(error, UnicodeEncodeError):
        return "holds half a surrogate pair, which is no character"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _refuse_impossible(connection: Connection, path: Path) -> None:
    """Look at all links between rows at once: cheaper than line by line, and the file's own order does not matter."""
    parent = revisions.alias("parent")
    elsewhere = (
        select(revisions.c.revision_id)
        .join(parent, revisions.c.parent_revision_id == parent.c.revision_id)
        .where(revisions.c.rollout_id != parent.c.rollout_id)
    )
    not_theirs = (
        select(withdrawals.c.revision_id)
        .join(revisions, revisions.c.revision_id == withdrawals.c.revision_id)
        .where(or_(revisions.c.author_kind != "human", revisions.c.author != withdrawals.c.author))
    )
    for query, what in (
        (elsewhere, "is made from a revision of another record"),
        (not_theirs, "is withdrawn by somebody who did not make it"),
    ):
        if (found := connection.execute(query.limit(1)).scalar()) is not None:
            raise DataError(
                "A file of reviews says what cannot have happened",
                seen=f"{path}: revision {found} {what}",
                remedy="import an export that nobody has edited",
            )


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


def _refuse_altered(connection: Connection, rows: list[Any], path: Path) -> None:
    """A revision never changes: one that says something else than the store under the same id was edited."""
    query = select(revisions.c.body).where(revisions.c.revision_id.in_({row.revision_id for row in rows}))
    held = {body["revision_id"]: Revision.model_validate(body) for body in connection.execute(query).scalars()}
    if altered := next((row for row in rows if row != held[row.revision_id]), None):
        raise DataError(
            "A file of reviews holds another revision under an id that is taken",
            seen=f"{path}: {altered.revision_id}",
            remedy="import an export that nobody has edited",
        )


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
