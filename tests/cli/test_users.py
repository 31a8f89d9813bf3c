"""`opadpo users`: accounts from the terminal."""

import io
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from command import Run

from opadpo.accounts.database import Database
from opadpo.accounts.sessions import Sessions, WrongPassword
from opadpo.recipe import preset_text
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

SECRET = "four words make sense"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Workspace.create(tmp_path / "team", preset_text("toy")).root


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Give the next command these lines on standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def enters(folder: Path, name: str, password: str) -> bool:
    try:
        return bool(Sessions(Database.open(folder / "users.db")).sign_in(name, password, "192.0.2.1"))
    except WrongPassword:
        return False


def test_accounts_are_made_listed_changed_and_removed(run: Run, folder: Path, typed):
    assert "no accounts" in run("users", "list", folder).out
    typed(f"{SECRET}\n")
    made = run("users", "add", folder, "Ana", "--role", "admin", "--password-stdin")
    assert made.status == 0
    assert "start it again" in made.out
    assert SECRET not in made.out + made.err
    typed(f"{SECRET}\r\n")
    assert run("users", "add", folder, "Jonas Berg", "--password-stdin").status == 0
    listed = run("users", "list", folder, "--json").result["accounts"]
    assert [(account["name"], account["role"]) for account in listed] == [("Ana", "admin"), ("Jonas Berg", "reviewer")]
    assert enters(folder, "Jonas Berg", SECRET)
    typed("another " + SECRET)
    assert run("users", "password", folder, "jonas berg", "--password-stdin").status == 0
    assert enters(folder, "Jonas Berg", "another " + SECRET)
    assert not enters(folder, "Jonas Berg", SECRET)
    assert run("users", "remove", folder, "Jonas Berg").status == 0
    assert not enters(folder, "Jonas Berg", "another " + SECRET)


def test_mistakes_say_what_to_do(run: Run, folder: Path, typed):
    for words, message in (
        (["add", "Rosa"], "first account must be an admin's"),
        (["add", "a/b"], "cannot be the name"),
        (["password", "Nobody"], "no account of this name"),
    ):
        typed(f"{SECRET}\n")
        ended = run("users", words[0], folder, words[1], "--password-stdin")
        assert ended.status == 2
        assert message in ended.err
        assert "remedy" in ended.err
    typed(SECRET)
    assert run("users", "add", folder, "Ana", "--role", "admin", "--password-stdin").status == 0
    ended = run("users", "remove", folder, "Ana")
    assert ended.status == 2
    assert "last admin" in ended.err
    typed("")
    ended = run("users", "add", folder, "Rosa")
    assert ended.status == 2
    assert "--password-stdin" in ended.err


def test_a_password_is_asked_for_twice_and_never_shown(folder: Path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "opadpo", "users", "add", str(folder), "Ana", "--role", "admin"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as asking:
        os.close(theirs)
        seen = b""
        for question in (b"Password of Ana", b"Once more"):
            while question not in seen:
                seen += os.read(ours, 1000)
            while termios.tcgetattr(ours)[3] & termios.ECHO:  # goes off after the question
                time.sleep(0.01)
            os.write(ours, f"{SECRET}\n".encode())
        while True:
            try:
                seen += os.read(ours, 1000)
            except OSError:  # the other end is closed
                break
        assert asking.wait(120) == 0
    os.close(ours)
    assert SECRET.encode() not in seen
    assert enters(folder, "Ana", SECRET)


def test_the_app_says_what_is_wrong_with_its_addresses(run: Run, folder: Path):
    for options, message in (
        (["--host", "0.0.0.0"], "users add"),
        (["--public-url", "nowhere"], "--public-url"),
        (["--proxy", "everybody"], "IP address"),
        (["--host", "no.such.host.invalid"], "users add"),
    ):
        ended = run("app", folder, "--port", 0, *options)
        assert ended.status == 2
        assert message in ended.err
