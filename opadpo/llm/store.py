"""Every request to a model and what came of it, on disk: what was answered once is never asked again."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Engine, Row, delete, func, select, update
from sqlalchemy.dialects.sqlite import Insert, insert

from opadpo.databases import OpenDatabase, open_sqlite
from opadpo.llm.requests import Answer, Failure
from opadpo.llm.schema import SCHEMA_VERSION, failed_rows, metadata, requests, samples
from opadpo.records import Usage

_REMEDY = "restore the file from a copy; without one, move it away: the requests in it will be asked (and paid) again"

_SPENT = ("prompt_tokens", "completion_tokens", "requests", "cost_usd")


def _put_statement() -> Insert:
    statement = insert(requests)
    replaced = {
        column.name: column + statement.excluded[column.name]
        if column.name in _SPENT
        else statement.excluded[column.name]
        for column in requests.c
        if column.name != "key"
    }
    return statement.on_conflict_do_update(index_elements=["key"], set_=replaced)


_PUT = _put_statement()
_PUT_SAMPLE = insert(samples)
_PUT_SAMPLE = _PUT_SAMPLE.on_conflict_do_update(
    index_elements=["key"], set_={name: _PUT_SAMPLE.excluded[name] for name in ("token_ids", "left_out")}
)
_GET = select(requests, samples.c.token_ids, samples.c.left_out).outerjoin(samples, samples.c.key == requests.c.key)


class FailedRow(NamedTuple):
    """A row of work (a rollout, a caption) for which there is no result, and why."""

    row_id: str
    """Id of the row."""
    kind: str
    """As in `Failure`."""
    reason: str
    """As in `Failure`."""


class RequestStore(OpenDatabase):
    """Requests by content, and the rows that failed."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Use `RequestStore.open`."""
        super().__init__(engine, path, _REMEDY)
        self.path = path
        self._known: set[str] | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the store, making it if it is not there.

        Raises:
            WorkspaceError: if the file is damaged, or was made by a newer version of this package.
        """
        return cls(open_sqlite(path, metadata, version=SCHEMA_VERSION, remedy=_REMEDY), path)

    # -- requests ----------------------------------------------------------------------------------------------

    def get(self, key: str) -> Answer | Failure | None:
        """What came of a request; None if it was never asked.

        Most requests of a run are new: the keys are kept in memory, so that these cost no look into the file.
        """
        if self._known is None:
            with self.reading() as connection:
                self._known = set(connection.execute(select(requests.c.key)).scalars())
        if key not in self._known:
            return None
        with self.reading() as connection:
            row = connection.execute(_GET.where(requests.c.key == key)).first()
        return None if row is None else _outcome(row)

    def put(self, outcomes: Iterable[tuple[str, Answer | Failure]]) -> None:
        """Keep what came of requests, in one transaction that is on disk when this returns.

        A request that is asked again replaces its former outcome; what both cost is added up.
        """
        with self.writing() as connection:
            self.put_within(connection, list(outcomes))

    def put_within(self, connection: Connection, outcomes: Sequence[tuple[str, Answer | Failure]]) -> None:
        """The same as a part of a transaction of `writing`; a request must not be there twice."""
        if not outcomes:
            return
        again = [key for key, _ in outcomes if key in (self._known or ())]
        connection.execute(_PUT, [{"key": key, **_columns(outcome)} for key, outcome in outcomes])
        sampled = [
            {"key": key, "token_ids": outcome.token_ids, "left_out": outcome.left_out}
            for key, outcome in outcomes
            if isinstance(outcome, Answer) and (outcome.token_ids is not None or outcome.left_out)
        ]
        if again:  # of an answer that could not be used
            connection.execute(delete(samples).where(samples.c.key.in_(again)))
        if sampled:
            connection.execute(_PUT_SAMPLE, sampled)
        if self._known is not None:
            self._known.update(key for key, _ in outcomes)

    def mark_failed(self, keys: Sequence[str], failure: Failure) -> None:
        """Turn answers that turned out to be unusable into failures; the answers' text is kept."""
        values = {"status": "failed", "kind": failure.kind, "reason": failure.reason, "retryable": failure.retryable}
        with self.writing() as connection:
            connection.execute(update(requests).where(requests.c.key.in_(keys)).values(values))

    def take_over(self, other: Path) -> int:
        """Keep the answers of another store to requests that were not answered here; returns how many.

        Raises:
            WorkspaceError: if that file is damaged, or was made by a newer version of this package.
        """
        with RequestStore.open(other) as store, store.reading() as connection:
            answered = connection.execute(select(requests).where(requests.c.status == "done")).mappings().all()
            sampled = connection.execute(select(samples)).mappings().all()
        with self.writing() as connection:
            done = set(connection.execute(select(requests.c.key).where(requests.c.status == "done")).scalars())
            new = [dict(row) for row in answered if row["key"] not in done]
            if new:
                connection.execute(_PUT, new)
            keys = {row["key"] for row in new}
            if with_tokens := [dict(row) for row in sampled if row["key"] in keys]:
                connection.execute(_PUT_SAMPLE, with_tokens)
        self._known = None
        return len(new)

    def spent(self) -> Usage:
        """What all requests cost together."""
        sums = [func.coalesce(func.sum(requests.c[name]), 0) for name in _SPENT]
        with self.reading() as connection:
            return Usage(**dict(zip(_SPENT, connection.execute(select(*sums)).one(), strict=True)))

    def counts(self) -> dict[str, int]:
        """Number of requests by status: done, failed."""
        query = select(requests.c.status, func.count()).group_by(requests.c.status)
        with self.reading() as connection:
            return {"done": 0, "failed": 0, **dict(connection.execute(query).tuples().all())}

    # -- rows --------------------------------------------------------------------------------------------------

    def put_rows(self, run: str, failed: Iterable[FailedRow], succeeded: Iterable[str]) -> None:
        """Note in one transaction which rows have failed, and which have not any more; `run` names the run."""
        statement = insert(failed_rows)
        statement = statement.on_conflict_do_update(
            index_elements=["row_id"], set_={name: statement.excluded[name] for name in ("kind", "reason", "run")}
        )
        with self.writing() as connection:
            for row in failed:
                connection.execute(statement, {**row._asdict(), "run": run})
            for row_id in succeeded:
                connection.execute(delete(failed_rows).where(failed_rows.c.row_id == row_id))

    def forget_rows(self, run: str) -> None:
        """Drop the rows that the complete run `run` has not seen: they are part of the work no more."""
        with self.writing() as connection:
            connection.execute(delete(failed_rows).where(failed_rows.c.run != run))

    def failed_rows(self) -> list[FailedRow]:
        """Rows without a result, with the reasons."""
        columns = [failed_rows.c.row_id, failed_rows.c.kind, failed_rows.c.reason]
        with self.reading() as connection:
            return [FailedRow(*row) for row in connection.execute(select(*columns).order_by(columns[0]))]


def _columns(outcome: Answer | Failure) -> dict[str, Any]:
    answer = isinstance(outcome, Answer)
    return {
        "status": "done" if answer else "failed",
        "kind": None if answer else outcome.kind,
        "reason": None if answer else outcome.reason,
        "retryable": None if answer else outcome.retryable,
        "text": outcome.text if answer else None,
        "finish_reason": outcome.finish_reason if answer else None,
        "model": outcome.model,
        **{name: getattr(outcome.usage, name) for name in _SPENT},
        "created_at": datetime.now(UTC).isoformat(),
    }


def _outcome(row: Row[Any]) -> Answer | Failure:
    about: dict[str, Any] = {"model": row.model, "usage": Usage(**{name: getattr(row, name) for name in _SPENT})}
    if row.status == "done":
        sampled = {"token_ids": row.token_ids, "left_out": row.left_out or []}
        return Answer(text=row.text, finish_reason=row.finish_reason, **sampled, **about)
    return Failure(kind=row.kind, reason=row.reason, retryable=row.retryable, **about)
