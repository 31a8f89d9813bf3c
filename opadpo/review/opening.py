"""Opening the review store's database: made if it is not there, migrated if it is old, refused if it is newer."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, Engine, Table, inspect, text
from sqlalchemy.dialects import postgresql, sqlite

from opadpo.databases import OpenDatabase, database_errors, postgresql_engine, sqlite_engine, writing
from opadpo.errors import UserError, WorkspaceError, disk_errors
from opadpo.review.schema import VERSION, VERSION_TABLE
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from alembic.config import Config

REMEDY = "restore the file from a copy; without one, move it away and run `opadpo revise`, which asks nothing twice"
"""What to do about a damaged file."""


class Database(OpenDatabase):
    """An open database of reviews, in a file or on a server; make it by `open_file` or `open_server`."""

    @classmethod
    def open_file(cls, path: Path) -> Self:
        """Open a SQLite file; one of an earlier version is copied beside itself, then migrated.

        Raises:
            WorkspaceError: if the file is damaged, is another program's, or was made by a newer version of this
                package.
            DiskFull: if there is no room for the copy.
        """
        return cls(_opened(sqlite_engine(path), path), path, REMEDY)

    @classmethod
    def open_server(cls, url: str, source: str) -> Self:
        """Open a PostgreSQL database; `source` says where its URL comes from.

        Raises:
            UserError, DependencyMissing: as `postgresql_engine`.
            WorkspaceError: if the server cannot be used, or the tables are of a newer version of this package.
        """
        where = shown(url, source)
        return cls(_opened(postgresql_engine(url, source), where), where, REMEDY)

    def insert(self, table: Table) -> Any:
        """An INSERT that can say what to do about a row that is there; both databases write it alike."""
        return (sqlite if self.engine.dialect.name == "sqlite" else postgresql).insert(table)


def database_url(workspace: Workspace) -> str | None:
    """URL of the database that the recipe names; None for `reviews.db`. It may hold a password: never store it.

    Raises:
        UserError: if the environment variable is not set.
    """
    name = workspace.recipe.review.database_url_env
    if not name:
        return None
    if url := os.environ.get(name):
        return url
    raise UserError(
        "The recipe names a database for reviews, but its URL is not there",
        seen=f"review.database_url_env: {name} (not set)",
        remedy=f"export {name}=postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    )


def shown(url: str, source: str) -> str:
    """A server in words, without its password."""
    address = url.rpartition("@")[2].rpartition("//")[2].partition("?")[0]
    return f"{address} ({source})"


def _opened(engine: Engine, where: Path | str) -> Engine:
    try:
        with database_errors(where, REMEDY):
            with engine.connect() as connection:
                found = _version(connection, where)
            if found != VERSION:
                _migrate(engine, where)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _version(connection: Connection, where: Path | str) -> str | None:
    """The version of the tables; None if there are none yet.

    Raises:
        WorkspaceError: if they are another program's, or of a newer version.
    """
    names = inspect(connection).get_table_names()
    if VERSION_TABLE in names:
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
    elif "schema_version" in names and connection.dialect.name == "sqlite":
        found = connection.execute(text("SELECT version FROM schema_version")).scalar_one_or_none()
    else:
        # A team's server may hold tables of other programs beside ours; a file is ours alone.
        if "revisions" in names or (names and connection.dialect.name == "sqlite"):
            raise WorkspaceError("A database has tables that opadpo did not make", seen=where, remedy=REMEDY)
        return None
    version = str(found)
    if not version.isdigit():
        raise WorkspaceError("A database has tables that opadpo did not make", seen=where, remedy=REMEDY)
    if int(version) > int(VERSION):
        raise WorkspaceError(
            "A database was made by a newer version of opadpo",
            seen=f"{where}: schema version {version}; this version reads up to {VERSION}",
            remedy="upgrade opadpo",
        )
    return version


def _migrate(engine: Engine, where: Path | str) -> None:
    """Bring the tables to the newest version in one transaction; whoever else opens them waits for it."""
    from alembic import command

    with writing(engine) as connection:
        # Another process may have done it since the look at the version.
        found = _version(connection, where)
        if found == VERSION:
            return
        if found and isinstance(where, Path):
            _copy(where, where.with_name(f"{where.stem}.v{found}{where.suffix}"))
        config = _config(connection)
        if found and VERSION_TABLE not in inspect(connection).get_table_names():
            command.stamp(config, found)
        command.upgrade(config, "head")


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _copy(source: Path, target: Path) -> None:
    """A consistent copy of the file as it was before the migration; an earlier copy is not overwritten."""
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(source)) as reader, closing(sqlite3.connect(temporary)) as writer:
            reader.backup(writer)
        temporary.replace(target)
