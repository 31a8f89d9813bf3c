"""SQLite files that survive a kill or a power cut, PostgreSQL by URL, and database errors that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from opadpo.errors import Busy, DependencyMissing, DiskFull, UserError, WorkspaceError, disk_errors

LOCK_SECONDS = 30
"""How long a writer waits for another process's transaction."""

_POSTGRESQL_LOCK = 0x0FAD_D90
"""Key of the advisory lock that writers of one PostgreSQL database take in turn."""


class OpenDatabase:
    """Transactions in a database, for any number of threads; use as a context manager or call `close`."""

    def __init__(self, engine: Engine, where: Path | str, remedy: str) -> None:
        """`where` is its file, or its server in words; `remedy` says what to do if it is damaged."""
        self.engine = engine
        self.where = where
        self._remedy = remedy

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database; raises as `database_errors`."""
        with database_errors(self.where, self._remedy), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that waits for its turn to write, and is on disk when the block ends; raises alike."""
        with database_errors(self.where, self._remedy), writing(self.engine) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_sqlite(path: Path, metadata: MetaData, *, version: int, remedy: str) -> Engine:
    """Open a SQLite file, making it and its tables if needed.

    A table `schema_version` holds the version of the tables. Write inside `writing(engine)`.

    Raises:
        WorkspaceError: if the file is damaged, is another program's, or was made by a newer version of this package;
            `remedy` says what to do about a damaged file.
    """
    engine = sqlite_engine(path)
    try:
        with database_errors(path, remedy):
            _ensure_schema(engine, metadata, version, path, remedy)
    except BaseException:
        engine.dispose()
        raise
    return engine


def sqlite_engine(path: Path) -> Engine:
    """An engine for a SQLite file; its folder is made if needed.

    Write-ahead log (readers and one writer side by side), `synchronous=FULL` (a committed row survives a power
    cut), foreign keys on.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": LOCK_SECONDS, "isolation_level": None}
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def postgresql_engine(url: str, source: str) -> Engine:
    """An engine for a PostgreSQL database; `source` says where the URL comes from, for messages.

    Reading sees one state of the database for as long as its transaction lasts.

    Raises:
        UserError: if the URL is none of a PostgreSQL database. The URL may hold a password: no message repeats it.
        DependencyMissing: if the driver is not installed.
    """
    try:
        parsed = make_url(url.strip())
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.database:
        raise UserError(
            f"{source} does not hold the URL of a PostgreSQL database",
            seen="(not shown: it may hold a password)",
            remedy="set it to postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        )
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), isolation_level="REPEATABLE READ", pool_pre_ping=True
        )
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "The driver for PostgreSQL is not installed", seen=error.name, remedy="pip install 'opadpo[postgres]'"
        ) from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that takes the write lock at its start, so that writers queue instead of failing.

    What one of them reads inside is what the last one left.
    """
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection
        return
    # Every statement sees what was committed before it: with a snapshot from before the lock, it would not.
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        connection.execute(select(func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
        yield connection


@contextmanager
def database_errors(path: Path | str, remedy: str) -> Iterator[None]:
    """Turn the database's errors about `path` (a file, or a server in words) into messages.

    `remedy` is for a damaged file.

    Raises:
        DiskFull: if there is no room.
        Busy: if another process kept the file locked for `LOCK_SECONDS`.
        WorkspaceError: for a damaged, foreign, read-only or unreadable file, or a server that cannot be used.
    """
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, IntegrityError):
            raise
        if not isinstance(error.orig, sqlite3.Error):
            raise WorkspaceError(
                "The database server cannot be used",
                seen=f"{path}: {str(error.orig).strip().splitlines()[0]}",
                remedy="check that it runs, that the URL is right, and that its user may create tables",
            ) from error
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        seen = f"{path}: {error.orig}"
        if code == sqlite3.SQLITE_FULL:
            raise DiskFull(
                "No space left while writing a database",
                seen=seen,
                remedy="free some space and run the command again; it continues where it was",
            ) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(
                "Another process keeps a database locked",
                seen=seen,
                remedy="wait until it has finished, or end it; then run the command again",
            ) from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            raise WorkspaceError(
                "A database cannot be opened or written", seen=seen, remedy="check the folder's permissions and disk"
            ) from error
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            raise WorkspaceError("A database is damaged", seen=seen, remedy=remedy) from error
        raise


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # The driver would begin a transaction only at the first write; then a read before it may see another state.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _ensure_schema(engine: Engine, metadata: MetaData, version: int, path: Path, remedy: str) -> None:
    table = Table("schema_version", MetaData(), Column("version", Integer, primary_key=True))
    with engine.connect() as connection:
        found = _found_version(connection, table, path, remedy)
    if found is None:
        with writing(engine) as connection:
            # Another process may have made the tables since the look above.
            found = _found_version(connection, table, path, remedy)
            if found is None:
                metadata.create_all(connection)
                table.create(connection)
                connection.execute(insert(table).values(version=version))
                return
    if found > version:
        raise WorkspaceError(
            "A database was made by a newer version of opadpo",
            seen=f"{path}: schema version {found}; this version reads up to {version}",
            remedy="upgrade opadpo",
        )
    if found < version:
        # Newer versions of these files have further tables, never other columns.
        with writing(engine) as connection:
            metadata.create_all(connection)
            connection.execute(update(table).values(version=version))


def _found_version(connection: Connection, table: Table, path: Path, remedy: str) -> int | None:
    """The schema version in the file; None for a new file."""
    names = inspect(connection).get_table_names()
    if not names:
        return None
    found = connection.execute(select(table.c.version)).scalar_one_or_none() if table.name in names else None
    if found is None:
        raise WorkspaceError("A database has tables that opadpo did not make", seen=path, remedy=remedy)
    return found
