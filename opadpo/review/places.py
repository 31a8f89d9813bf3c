"""What reviewers have not finished: drafts, the record that each has open, and what each has put off."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from opadpo.review.opening import Database
from opadpo.review.schema import claims, drafts, skips

CLAIM_SECONDS = 600
"""How long a record stays with the reviewer who opened it; every saved draft starts this anew."""

DRAFT_HOURS = 12
"""How long a draft keeps a record out of the queues of others."""


class Draft(NamedTuple):
    """What a reviewer has typed and not sent."""

    base_revision_id: str | None
    """The revision that it starts from."""
    seq: int
    """Number that the browser gave it; the highest wins."""
    updated_at: str
    """UTC."""
    body: dict[str, Any] | None
    """Sentences and note; None once it was sent or thrown away."""


class Claim(NamedTuple):
    """Who has a record open."""

    reviewer: str
    """Name."""
    until: datetime
    """UTC; then it is free again."""


class Busyness(NamedTuple):
    """Who is at which record now."""

    drafts: dict[str, dict[str, str | None]]
    """rollout -> reviewer -> the revision that the draft starts from."""
    claims: dict[str, str]
    """rollout -> reviewer."""


class Places:
    """Drafts, claims and skips of a store."""

    def __init__(self, database: Database) -> None:
        """Made by `ReviewStore`."""
        self._database = database

    # -- drafts ------------------------------------------------------------------------------------------------

    def save_draft(
        self, reviewer: str, rollout_id: str, base: str | None, body: Mapping[str, Any], seq: int
    ) -> tuple[bool, Draft]:
        """Keep a draft if no newer one is there, and renew the claim. Returns (saved, the newest)."""
        with self._database.writing() as connection:
            saved = self._put(connection, reviewer, rollout_id, base, body, seq)
            if saved:
                held = (claims.c.rollout_id == rollout_id) & (claims.c.reviewer == reviewer)
                connection.execute(claims.update().where(held).values(until=time.time() + CLAIM_SECONDS))
            newest = self.draft(connection, reviewer, rollout_id)
            assert newest is not None
            return saved, newest

    def draft(self, connection: Connection, reviewer: str, rollout_id: str) -> Draft | None:
        """A reviewer's draft, also one that was sent (its body is None then)."""
        columns = (drafts.c.base_revision_id, drafts.c.seq, drafts.c.updated_at, drafts.c.body)
        query = select(*columns).where(drafts.c.reviewer == reviewer, drafts.c.rollout_id == rollout_id)
        row = connection.execute(query).first()
        return Draft(*row) if row else None

    def drop_draft(self, reviewer: str, rollout_id: str) -> None:
        """Throw a draft away; its number stays taken."""
        empty = {"body": None, "updated_at": _now()}
        mine = (drafts.c.reviewer == reviewer) & (drafts.c.rollout_id == rollout_id)
        with self._database.writing() as connection:
            connection.execute(drafts.update().where(mine).values(empty))

    def finish(self, connection: Connection, reviewer: str, rollout_id: str, seq: int) -> None:
        """End a reviewer's draft, claim and skip of a record, inside the transaction of a commit."""
        values = {"reviewer": reviewer, "rollout_id": rollout_id, "seq": seq, "updated_at": _now(), "body": None}
        statement = self._database.insert(drafts).values(**values, base_revision_id=None)
        newest = {"body": None, "updated_at": values["updated_at"], "base_revision_id": None}
        connection.execute(statement.on_conflict_do_update(index_elements=["reviewer", "rollout_id"], set_=newest))
        mine = (drafts.c.reviewer == reviewer) & (drafts.c.rollout_id == rollout_id) & (drafts.c.seq < seq)
        connection.execute(drafts.update().where(mine).values(seq=seq))
        connection.execute(claims.delete().where(claims.c.rollout_id == rollout_id, claims.c.reviewer == reviewer))
        connection.execute(skips.delete().where(skips.c.rollout_id == rollout_id, skips.c.reviewer == reviewer))

    def reopen(
        self, connection: Connection, reviewer: str, rollout_id: str, base: str | None, body: Mapping[str, Any]
    ) -> None:
        """Bring what was sent back as a draft, inside the transaction of an undo."""
        found = self.draft(connection, reviewer, rollout_id)
        self._put(connection, reviewer, rollout_id, base, body, found.seq + 1 if found else 1)

    # -- who is where ------------------------------------------------------------------------------------------

    def around(self, reviewer: str) -> tuple[Busyness, list[str]]:
        """(live drafts and claims of everybody, what a reviewer has put off: the longest ago first)."""
        query = select(drafts.c.rollout_id, drafts.c.reviewer, drafts.c.base_revision_id).where(
            drafts.c.body.is_not(None)
        )
        held = select(claims.c.rollout_id, claims.c.reviewer).where(claims.c.until > time.time())
        put_off = select(skips.c.rollout_id).where(skips.c.reviewer == reviewer).order_by(skips.c.skipped_at)
        found: dict[str, dict[str, str | None]] = {}
        with self._database.reading() as connection:
            for rollout_id, reviewer, base in connection.execute(query):
                found.setdefault(rollout_id, {})[reviewer] = base
            claimed = dict(connection.execute(held).tuples().all())
            return Busyness(found, claimed), list(connection.execute(put_off).scalars())

    def claim(self, reviewer: str, rollout_id: str) -> Claim:
        """Take a record if nobody else has it; returns who has it now. A reviewer has one at a time."""
        with self._database.writing() as connection:
            return self.take(connection, reviewer, rollout_id)

    def take(self, connection: Connection, reviewer: str, rollout_id: str) -> Claim:
        """Claim a record if nobody else has, inside a transaction."""
        now = time.time()
        query = select(claims.c.reviewer, claims.c.until).where(claims.c.rollout_id == rollout_id)
        found = connection.execute(query).first()
        if found and found.until > now and found.reviewer != reviewer:
            return Claim(found.reviewer, datetime.fromtimestamp(found.until, UTC))
        connection.execute(claims.delete().where((claims.c.reviewer == reviewer) | (claims.c.rollout_id == rollout_id)))
        until = now + CLAIM_SECONDS
        connection.execute(claims.insert().values(rollout_id=rollout_id, reviewer=reviewer, until=until))
        return Claim(reviewer, datetime.fromtimestamp(until, UTC))

    def taken(self, connection: Connection, reviewer: str) -> set[str]:
        """Rollouts that others are at: claimed now, or with a draft of today."""
        since = (datetime.now(UTC) - timedelta(hours=DRAFT_HOURS)).isoformat()
        held = select(claims.c.rollout_id).where(claims.c.reviewer != reviewer, claims.c.until > time.time())
        typed = select(drafts.c.rollout_id).where(
            drafts.c.reviewer != reviewer, drafts.c.body.is_not(None), drafts.c.updated_at > since
        )
        return set(connection.execute(held.union(typed)).scalars())

    def skip(self, reviewer: str, rollout_id: str) -> None:
        """Put a record at the end of a reviewer's queue, and let others have it."""
        values = {"reviewer": reviewer, "rollout_id": rollout_id, "skipped_at": time.time()}
        statement = self._database.insert(skips).values(values)
        with self._database.writing() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["reviewer", "rollout_id"], set_={"skipped_at": values["skipped_at"]}
                )
            )
            connection.execute(claims.delete().where(claims.c.rollout_id == rollout_id, claims.c.reviewer == reviewer))

    # -- inside ------------------------------------------------------------------------------------------------

    def _put(
        self, connection: Connection, reviewer: str, rollout_id: str, base: str | None, body: Any, seq: int
    ) -> bool:
        values = {"base_revision_id": base, "seq": seq, "updated_at": _now(), "body": dict(body)}
        statement = self._database.insert(drafts).values(reviewer=reviewer, rollout_id=rollout_id, **values)
        saved = connection.execute(
            statement.on_conflict_do_update(
                index_elements=["reviewer", "rollout_id"], set_=values, where=drafts.c.seq < seq
            )
        )
        return saved.rowcount > 0


def _now() -> str:
    return datetime.now(UTC).isoformat()
