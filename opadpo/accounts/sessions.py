"""Signing in and out: sessions that end, and a brake on guessing."""

import hashlib
import math
import secrets
import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, Connection, delete, insert, or_, select, update
from sqlalchemy.dialects import sqlite

from opadpo.accounts import passwords
from opadpo.accounts.database import Database, accounts, attempts, sessions
from opadpo.accounts.people import User, key_of
from opadpo.errors import UserError

IDLE = 12 * 3600
"""Seconds after which a session ends that nobody uses."""
LONGEST = 7 * 24 * 3600
"""Seconds after which every session ends."""
NOTED = 60
"""A session's last use is kept to this many seconds, so that not every request writes."""

FREE = {"account": 5, "address": 20}
"""Failures before the next attempt has to wait: 1 s, then twice as long each time."""
LONGEST_WAIT = 300
FORGOTTEN = 3600
"""Seconds without an attempt after which failures no longer count."""


class WrongPassword(UserError):
    """Name and password do not belong together; it is not said which one is wrong."""


class TooManyAttempts(UserError):
    """There were so many failures that the next attempt has to wait; `seconds` says how long."""

    def __init__(self, seconds: int) -> None:
        super().__init__("Too many attempts", seen=None, remedy=f"try again in {seconds} s")
        self.seconds = seconds


class Sessions:
    """The sessions of a workspace."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    # -- coming in ---------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str) -> str:
        """Check name and password, open a session, and give its token. `address` is where the request comes from.

        Raises:
            WrongPassword: if they do not belong together, or there is no such account; it takes equally long.
            TooManyAttempts: if the account or the address has failed too often; nothing is checked then.
        """
        key = key_of(name)
        self._count(key, address)
        with self._database.reading() as connection:
            row = connection.execute(select(accounts).where(accounts.c.key == key)).one_or_none()
        if not passwords.fits(password, row.password_hash if row else None) or row is None:
            raise WrongPassword("The name or the password is wrong", remedy="try again, or ask an admin for help")
        fresh = passwords.rehashed(password) if passwords.outdated(row.password_hash) else row.password_hash
        with self._database.writing() as connection:
            same = (accounts.c.key == key) & (accounts.c.password_hash == row.password_hash)
            if not connection.execute(update(accounts).where(same).values(password_hash=fresh)).rowcount:
                raise WrongPassword("The password has just been changed", remedy="use the new one")
            connection.execute(delete(attempts).where(attempts.c.key == _key("account", key)))
            # An address keeps its other failures: they may be somebody else's.
            here = attempts.c.key == _key("address", address)
            connection.execute(update(attempts).where(here).values(failed=attempts.c.failed - 1))
            return self._open(connection, key)

    def open_owner(self) -> str:
        """Open a session of the workspace's owner, who has shown the link's token; gives the session's own token."""
        with self._database.writing() as connection:
            return self._open(connection, None)

    # -- while one is in ---------------------------------------------------------------------------------------

    def user(self, token: str) -> User | None:
        """Whose session this is; None if it has ended, its account has gone or its password was changed."""
        row = self._look(
            token,
            select(sessions, accounts.c.name, accounts.c.role).join(accounts, sessions.c.account == accounts.c.key),
        )
        return User(row.name, row.role) if row else None

    def is_owner(self, token: str) -> bool:
        """True if this is a session of the workspace's owner."""
        return self._look(token, select(sessions).where(sessions.c.account.is_(None))) is not None

    def end(self, token: str) -> None:
        """End a session, if there is one of this token."""
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == _digest(token)))

    # -- inside ------------------------------------------------------------------------------------------------

    def _look(self, token: str, query):
        now = self._clock()
        with self._database.reading() as connection:
            row = connection.execute(query.where(sessions.c.digest == _digest(token))).one_or_none()
        if row is None or now - row.seen_at > IDLE or now - row.created_at > LONGEST:
            return None
        if now - row.seen_at > NOTED:
            with self._database.writing() as connection:
                connection.execute(update(sessions).where(sessions.c.digest == row.digest).values(seen_at=now))
        return row

    def _open(self, connection: Connection, account: str | None) -> str:
        token, now = secrets.token_urlsafe(32), self._clock()
        over: ColumnElement[bool] = or_(sessions.c.seen_at < now - IDLE, sessions.c.created_at < now - LONGEST)
        connection.execute(delete(sessions).where(over))
        connection.execute(insert(sessions).values(digest=_digest(token), account=account, created_at=now, seen_at=now))
        return token

    def _count(self, account: str, address: str) -> None:
        """Count an attempt as failed before it is looked at, so that many at once do not slip through.

        Raises:
            TooManyAttempts: if it comes too early; it is not counted then.
        """
        now = self._clock()
        with self._database.writing() as connection:
            connection.execute(delete(attempts).where(attempts.c.last_at < now - FORGOTTEN))
            counts, wait = {}, 0.0
            for kind, value in (("account", account), ("address", address)):
                kept = select(attempts.c.failed, attempts.c.last_at).where(attempts.c.key == _key(kind, value))
                failed, last_at = connection.execute(kept).one_or_none() or (0, now)
                counts[_key(kind, value)] = failed + 1
                if failed >= FREE[kind]:
                    wait = max(wait, last_at + min(2 ** min(failed - FREE[kind], 20), LONGEST_WAIT) - now)
            for key, count in counts.items() if wait <= 0 else ():
                statement = sqlite.insert(attempts).values(key=key, failed=count, last_at=now)
                there = {"failed": count, "last_at": now}
                connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=there))
        if wait > 0:
            raise TooManyAttempts(max(1, math.ceil(wait)))


def _key(kind: str, value: str) -> str:
    return f"{kind} {value[:100]}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
