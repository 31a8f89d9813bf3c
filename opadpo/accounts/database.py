"""The file that holds accounts and sessions; only its owner may read it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Column, Connection, Double, Engine, ForeignKey, Integer, MetaData, String, Table

from opadpo.databases import database_errors, open_sqlite, writing
from opadpo.errors import disk_errors

VERSION = 1
REMEDY = "restore the file from a copy; without one, move it away and make the accounts again with `opadpo users add`"
"""What to do about a damaged file."""

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("key", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("password_hash", String, nullable=False),
    Column("created_at", Double, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    # The token itself is in the browser's cookie only: who reads this file cannot sign in with it.
    Column("digest", String, primary_key=True),
    # Null: the owner of the workspace, who came with the link.
    Column("account", String, ForeignKey("accounts.key", ondelete="CASCADE"), index=True),
    Column("created_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    # "account KEY" or "address IP"
    Column("key", String, primary_key=True),
    Column("failed", Integer, nullable=False),
    Column("last_at", Double, nullable=False),
)


class Database:
    """The open file; for any number of threads and processes."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Use `Database.open`."""
        self._engine = engine
        self._path = path

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file, making it if needed, readable by its owner only.

        Raises:
            WorkspaceError: if it is damaged, another program's, of a newer version, or may not be written.
        """
        with disk_errors(path):
            # Before SQLite makes it with the rights that everybody has; its side files take over those of the file.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        return cls(open_sqlite(path, metadata, version=VERSION, remedy=REMEDY), path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the file."""
        with database_errors(self._path, REMEDY), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that waits for its turn to write; committed when the block ends."""
        with database_errors(self._path, REMEDY), writing(self._engine) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
