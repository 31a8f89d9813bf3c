"""Review stores of both kinds: a SQLite file, and a schema of a real PostgreSQL server."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import postgresql_server
import pytest

from opadpo.review.store import ReviewStore

_numbers = itertools.count()

Opener = Callable[[], ReviewStore]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    if postgresql_server.programs() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgresql_server.running() as url:
        yield url


@pytest.fixture
def new_url(postgresql_url: str) -> Callable[[], str]:
    """Makes URLs of empty databases."""
    import psycopg
    from psycopg import sql

    def make() -> str:
        schema = f"test_{next(_numbers)}"
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        return f"{postgresql_url}?options=-csearch_path%3D{schema}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be made: the path of a file, or the URL of a server."""
    if request.param == "sqlite":
        return str(tmp_path / "reviews.db")
    return request.getfixturevalue("new_url")()


@pytest.fixture
def opener(address: str) -> Opener:
    """Opens the same store again and again."""
    return lambda: open_store(address)


def open_store(address: str) -> ReviewStore:
    if address.startswith("postgresql:"):
        return ReviewStore.open_url(address, "$TEST_URL")
    return ReviewStore.open(Path(address))
