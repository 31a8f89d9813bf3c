"""Accounts and sessions without a server."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from opadpo.accounts import passwords
from opadpo.accounts.database import Database
from opadpo.accounts.people import People, User
from opadpo.accounts.sessions import FREE, IDLE, LONGEST, LONGEST_WAIT, Sessions, TooManyAttempts, WrongPassword
from opadpo.errors import NotFound, UserError

SECRET = "four words make sense"
HERE = "192.0.2.1"


class Clock:
    """A clock that is set by hand."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost next to nothing: none of these tests is about their strength."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "users.db")


@pytest.fixture
def people(database: Database) -> People:
    people = People(database)
    people.add("Ana", "admin", SECRET)
    people.add("Jonas Berg", "reviewer", SECRET)
    return people


def test_only_the_owner_reads_the_file_and_it_holds_neither_passwords_nor_tokens(people: People, tmp_path: Path):
    token = Sessions(people._database).sign_in("Ana", SECRET, HERE)
    files = sorted(tmp_path.glob("users.db*"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * len(files)
    content = b"".join(path.read_bytes() for path in files)
    assert SECRET.encode() not in content
    assert token.encode() not in content
    assert b"$argon2id$" in content


def test_a_name_is_one_account_however_it_is_written(people: People, database: Database):
    for name in ("ana", " ANA ", "\uff21na"):
        with pytest.raises(UserError, match="There is an account"):
            people.add(name, "reviewer", SECRET)
    sessions = Sessions(database)
    assert sessions.user(sessions.sign_in("jonas BERG", SECRET, HERE)) == User("Jonas Berg", "reviewer")


@pytest.mark.parametrize("name", ["", " ", "<b>", "a/b", "x\u202ey", "a\nb", "a" * 65, "-a", "a\x00"])
def test_names_that_would_mislead_are_refused(people: People, name: str):
    with pytest.raises(UserError, match="cannot be the name"):
        people.add(name, "reviewer", SECRET)


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaa", "x" * 1001, "jonathan berg"])
def test_weak_passwords_are_refused(people: People, password: str):
    with pytest.raises(UserError):
        people.add("Jonathan Berg", "reviewer", password)


def test_there_is_always_an_admin(database: Database):
    people = People(database)
    with pytest.raises(UserError, match="first account"):
        people.add("Jonas", "reviewer", SECRET)
    people.add("Ana", "admin", SECRET)
    people.add("Jonas", "reviewer", SECRET)
    with pytest.raises(UserError, match="last admin"):
        people.remove("Ana")
    people.add("Rosa", "admin", SECRET)
    people.remove("ana")
    assert [account.name for account in people.list()] == ["Jonas", "Rosa"]
    with pytest.raises(NotFound):
        people.remove("Ana")


def test_sessions_end_with_time_log_out_removal_and_a_new_password(people: People, database: Database):
    clock = Clock()
    sessions = Sessions(database, clock)
    idle, used, out, gone, changed = (
        sessions.sign_in(name, SECRET, HERE) for name in ("Ana",) * 3 + ("Jonas Berg",) * 2
    )
    sessions.end(out)
    assert sessions.user(out) is None
    people.set_password("Jonas Berg", "another " + SECRET)
    assert sessions.user(changed) is None
    gone = sessions.sign_in("Jonas Berg", "another " + SECRET, HERE)
    people.remove("Jonas Berg")
    assert sessions.user(gone) is None
    begun = clock.now
    while clock.now < begun + LONGEST - IDLE:
        clock.now += IDLE - 1
        assert sessions.user(used) == User("Ana", "admin")
    assert sessions.user(idle) is None
    clock.now = begun + LONGEST + 1
    assert sessions.user(used) is None


def test_the_owners_sessions_are_no_accounts(people: People, database: Database):
    sessions = Sessions(database)
    owners, anas = sessions.open_owner(), sessions.sign_in("Ana", SECRET, HERE)
    assert sessions.is_owner(owners)
    assert sessions.user(owners) is None
    assert not sessions.is_owner(anas)
    assert sessions.user("nobody's") is None


def test_guessing_has_to_wait_longer_and_longer_also_after_a_restart(people: People, database: Database, monkeypatch):
    clock, looked = Clock(), []
    monkeypatch.setattr(passwords, "fits", lambda password, kept: looked.append(kept) or password == SECRET)
    for _ in range(FREE["account"]):
        with pytest.raises(WrongPassword):
            Sessions(database, clock).sign_in("Ana", "wrong", HERE)
    waits = []
    for _ in range(12):
        with pytest.raises(TooManyAttempts) as found:
            Sessions(database, clock).sign_in("Ana", SECRET, "198.51.100.7")
        waits.append(found.value.seconds)
        clock.now += found.value.seconds
        with pytest.raises(WrongPassword):
            Sessions(database, clock).sign_in("Ana", "wrong", HERE)
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == waits[-1] == LONGEST_WAIT
    assert len(looked) == FREE["account"] + 12
    Sessions(database, clock).sign_in("Jonas Berg", SECRET, "198.51.100.7")
    clock.now += LONGEST_WAIT
    Sessions(database, clock).sign_in("Ana", SECRET, "198.51.100.7")
    Sessions(database, clock).sign_in("Ana", SECRET, "198.51.100.7")


def test_an_address_that_tries_many_names_has_to_wait(database: Database, people: People, monkeypatch):
    monkeypatch.setattr(passwords, "fits", lambda password, kept: kept is not None and password == SECRET)
    sessions = Sessions(database, Clock())
    for number in range(FREE["address"]):
        with pytest.raises(WrongPassword):
            sessions.sign_in(f"nobody {number}", SECRET, HERE)
    with pytest.raises(TooManyAttempts):
        sessions.sign_in("Ana", SECRET, HERE)
    assert sessions.user(sessions.sign_in("Ana", SECRET, "198.51.100.7"))


def test_many_guesses_at_once_do_not_slip_through(people: People, database: Database, monkeypatch):
    looked = []
    monkeypatch.setattr(passwords, "fits", lambda password, kept: looked.append(kept) or False)
    sessions = Sessions(database, Clock())

    def guess(number: int) -> None:
        with pytest.raises((WrongPassword, TooManyAttempts)):
            sessions.sign_in("Ana", str(number), HERE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(guess, range(24)))
    assert len(looked) == FREE["account"]
