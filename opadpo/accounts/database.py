"""The file that holds accounts and sessions; only its owner may read it."""

import os
from pathlib import Path
from typing import Self

from sqlalchemy import Column, Double, ForeignKey, Integer, MetaData, String, Table

from opadpo.databases import OpenDatabase, open_sqlite
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


class Database(OpenDatabase):
    """The open file; make it by `Database.open`."""

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
        return cls(open_sqlite(path, metadata, version=VERSION, remedy=REMEDY), path, REMEDY)
