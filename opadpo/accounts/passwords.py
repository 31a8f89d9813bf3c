"""Hashes of passwords (argon2id), and which passwords are taken."""

import threading
import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from opadpo.errors import UserError

SHORTEST = 10
LONGEST = 1000

_hasher = PasswordHasher()
# One hash takes 64 MiB: a crowd at the log-in page must not take the server's memory.
_turns = threading.BoundedSemaphore(2)


def hashed(password: str, name: str) -> str:
    """The hash that is kept of a new password.

    Raises:
        UserError: if it is too short, too long, or the name.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise UserError(
            f"A password has {SHORTEST} to {LONGEST:,} characters",
            seen=f"{len(password):,} characters",
            remedy="choose another; four words that nobody says together are good and easy to keep",
        )
    if password.casefold() == name.casefold() or len(set(password)) < 4:
        raise UserError(
            "This password would be guessed at once",
            seen="the name itself, or very few different characters",
            remedy="choose another",
        )
    with _turns:
        return _hasher.hash(_plain(password))


def fits(password: str, kept: str | None) -> bool:
    """True if the password is the one of this hash; None (no such account) takes as long as a wrong password."""
    with _turns:
        try:
            return _hasher.verify(kept or _nobodys(), _plain(password)[:LONGEST]) and kept is not None
        except (VerifyMismatchError, InvalidHashError):
            return False


def outdated(kept: str) -> bool:
    """True if a hash was made with weaker parameters than are usual now."""
    return _hasher.check_needs_rehash(kept)


def rehashed(password: str) -> str:
    """A fresh hash of a password that is known to fit."""
    with _turns:
        return _hasher.hash(_plain(password))


def _plain(password: str) -> str:
    # The same keys give other code points on another system.
    return unicodedata.normalize("NFKC", password)


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody has this password")
