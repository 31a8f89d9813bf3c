"""Which requests are with the provider's batch service, on disk: so that a restart finds them again.

A part is one file of requests and the batch made from it. Its row says how far it has got; each of its requests has a
row until the outcome is kept, and leaves in the same transaction.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import Select, delete, func, insert, select, update

from opadpo.llm.requests import Answer, Failure
from opadpo.llm.schema import batch_parts, batch_requests
from opadpo.llm.store import RequestStore


class Part(NamedTuple):
    """A file of requests on its way; its row goes when all its outcomes are kept."""

    part_id: str
    """Our name for it; the file and the batch carry it."""
    base_url: str
    """The server."""
    requests: int
    """Requests in the file."""
    reserved_usd: float
    """The most that it can cost."""
    input_file_id: str | None
    """The server's name for the file, once it is uploaded."""
    batch_id: str | None
    """The server's name for the batch, once it is made."""


class BatchLedger:
    """The parts that are open, in the file of a `RequestStore`."""

    def __init__(self, store: RequestStore) -> None:
        self._store = store

    def open_parts(self) -> list[Part]:
        """Parts whose outcomes are not all kept, oldest first."""
        query = select(*(batch_parts.c[name] for name in Part._fields)).order_by(
            batch_parts.c.created_at, batch_parts.c.part_id
        )
        with self._store.reading() as connection:
            return [Part(*row) for row in connection.execute(query)]

    def waiting_keys(self) -> set[str]:
        """Requests that are in an open part."""
        with self._store.reading() as connection:
            return set(connection.execute(select(batch_requests.c.key)).scalars())

    def keys_of(self, part_id: str) -> set[str]:
        """Requests of a part that wait for their outcome."""
        with self._store.reading() as connection:
            return set(connection.execute(_keys(part_id)).scalars())

    def add(self, part_id: str, base_url: str, keys: Sequence[str], reserved_usd: float) -> Part:
        """Note a part whose file is complete, before anything is sent."""
        part = Part(part_id, base_url, len(keys), reserved_usd, None, None)
        with self._store.writing() as connection:
            connection.execute(insert(batch_parts).values(**part._asdict(), created_at=datetime.now(UTC).isoformat()))
            connection.execute(insert(batch_requests), [{"key": key, "part_id": part_id} for key in keys])
        return part

    def uploaded(self, part: Part, input_file_id: str) -> Part:
        """The server has the file."""
        return self._note(part._replace(input_file_id=input_file_id))

    def created(self, part: Part, batch_id: str | None) -> Part:
        """The server has made the batch; None: it has refused it, and it is to be made again later."""
        return self._note(part._replace(batch_id=batch_id))

    def keep(self, part: Part, outcomes: Sequence[tuple[str, Answer | Failure]]) -> list[str]:
        """Keep outcomes of a part, each once however often a part is read; returns the keys that were new."""
        with self._store.writing() as connection:
            query = _keys(part.part_id).where(batch_requests.c.key.in_([key for key, _ in outcomes]))
            expected = set(connection.execute(query).scalars())
            new = {key: outcome for key, outcome in outcomes if key in expected}
            self._store.put_within(connection, list(new.items()))
            connection.execute(delete(batch_requests).where(batch_requests.c.key.in_(list(new))))
        return list(new)

    def close(self, part: Part) -> int:
        """The part is done with; returns how many of its requests have no outcome and have to be asked again."""
        with self._store.writing() as connection:
            mine = batch_requests.c.part_id == part.part_id
            left = connection.execute(select(func.count()).select_from(batch_requests).where(mine)).scalar_one()
            connection.execute(delete(batch_requests).where(mine))
            connection.execute(delete(batch_parts).where(batch_parts.c.part_id == part.part_id))
        return left

    def _note(self, part: Part) -> Part:
        values = {"input_file_id": part.input_file_id, "batch_id": part.batch_id}
        with self._store.writing() as connection:
            connection.execute(update(batch_parts).where(batch_parts.c.part_id == part.part_id).values(values))
        return part


def _keys(part_id: str) -> Select[str]:
    return select(batch_requests.c.key).where(batch_requests.c.part_id == part_id)


def new_part_id() -> str:
    """A name that no other part has, here or with the provider."""
    return uuid4().hex
