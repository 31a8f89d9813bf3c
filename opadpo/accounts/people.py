"""Accounts: names, roles and passwords."""

import re
import time
import unicodedata
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from opadpo.accounts import passwords
from opadpo.accounts.database import Database, accounts, sessions
from opadpo.errors import NotFound, UserError

Role = Literal["reviewer", "admin"]
NAME = re.compile(r"\w[\w .@+-]{0,62}\w|\w")


class User(NamedTuple):
    """Who asks."""

    name: str
    """The author of what they do."""
    role: Role
    """What they may do."""


class Account(NamedTuple):
    """One account."""

    name: str
    """As it is shown."""
    role: Role
    """What its user may do."""
    created_at: datetime
    """When it was made."""


class People:
    """The accounts of a workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, role: Role, password: str) -> Account:
        """Make an account. The first one must be an admin's.

        Raises:
            UserError: if the name is taken or has characters that names cannot have, or the password is too weak.
        """
        name = checked_name(name)
        kept = passwords.hashed(password, name)
        now = time.time()
        with self._database.writing() as connection:
            if _find(connection, name) is not None:
                raise UserError("There is an account of this name", seen=name, remedy="choose another name")
            if role != "admin" and not _admins(connection):
                raise UserError(
                    "The first account must be an admin's", seen=f"--role {role}", remedy="add it with --role admin"
                )
            connection.execute(
                insert(accounts).values(key=key_of(name), name=name, role=role, password_hash=kept, created_at=now)
            )
        return Account(name, role, datetime.fromtimestamp(now, UTC))

    def list(self) -> list[Account]:
        """All accounts, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(accounts).order_by(accounts.c.key)).all()
        return [Account(row.name, row.role, datetime.fromtimestamp(row.created_at, UTC)) for row in rows]

    def remove(self, name: str) -> None:
        """Remove an account and end its sessions. What its user has reviewed stays, under the name.

        Raises:
            NotFound: if there is none of this name.
            UserError: if it is the last admin's.
        """
        with self._database.writing() as connection:
            row = _found(connection, name)
            if row.role == "admin" and _admins(connection) == 1:
                raise UserError(
                    "This is the last admin",
                    seen=row.name,
                    remedy="add another first (--role admin); to use the app without accounts again, end it and delete"
                    " users.db in the workspace",
                )
            connection.execute(delete(accounts).where(accounts.c.key == row.key))

    def set_password(self, name: str, password: str) -> None:
        """Change a password and end the sessions that the old one has opened.

        Raises:
            NotFound: if there is no account of this name.
            UserError: if the password is too weak.
        """
        with self._database.reading() as connection:
            row = _found(connection, name)
        kept = passwords.hashed(password, row.name)
        with self._database.writing() as connection:
            key = _found(connection, name).key
            connection.execute(update(accounts).where(accounts.c.key == key).values(password_hash=kept))
            connection.execute(delete(sessions).where(sessions.c.account == key))


def key_of(name: str) -> str:
    """What two names share if they are the same to a reader: `Ana` and `ana`."""
    return unicodedata.normalize("NFKC", name.strip()).casefold()


def checked_name(name: str) -> str:
    """The name as it is kept.

    Raises:
        UserError: if it has characters that names cannot have.
    """
    clean = unicodedata.normalize("NFC", name.strip())
    if not NAME.fullmatch(clean):
        raise UserError(
            "This cannot be the name of an account",
            seen=repr(name[:80]),
            remedy="use 1 to 64 letters, digits, spaces and . _ - @ +, beginning and ending with a letter or digit",
        )
    return clean


def _find(connection: Connection, name: str):
    return connection.execute(select(accounts).where(accounts.c.key == key_of(name))).one_or_none()


def _found(connection: Connection, name: str):
    row = _find(connection, name)
    if row is None:
        raise NotFound("There is no account of this name", seen=name, remedy="`opadpo users list` shows all names")
    return row


def _admins(connection: Connection) -> int:
    return connection.execute(select(func.count()).where(accounts.c.role == "admin")).scalar_one()
