"""Who may use which device of this machine: first come, first served, over all workspaces of a user, without a server.

A waiting or running job has a *ticket*: a file with what it wants and what it holds, whose lock its runner keeps until
it ends. The operating system gives the lock back when the runner dies, however it dies, so that a ticket without one
counts for nothing. Tickets are looked at and changed under one more lock, each time for a moment only.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Self

from opadpo.jobs.identity import hostname

_SIZE = 4096
"""Characters of a ticket's file."""
_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
"""Seconds after which the first in line looks again, and after which anybody does."""
ORDINALS = ("", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


def queue_folder() -> Path:
    """Where the tickets of this user on this machine are: `$OPADPO_RUNTIME`, else ~/.cache/opadpo/queue."""
    given = os.environ.get("OPADPO_RUNTIME")
    # Homes are often shared between machines, whose devices are not.
    return (Path(given) if given else Path.home() / ".cache" / "opadpo" / "queue") / hostname()


@dataclass(frozen=True)
class Wish:
    """What a job wants: these devices, or any `count` of `devices`."""

    devices: tuple[str, ...]
    """By name."""
    count: int
    """How many of them; all of them where they are named."""

    @property
    def text(self) -> str:
        """For people."""
        if self.count == len(self.devices):
            return ", ".join(self.devices)
        return f"{self.count} of {', '.join(self.devices)}"


@dataclass(frozen=True)
class _Ticket:
    """What the file of a live ticket says."""

    number: int
    title: str
    wish: Wish
    holds: tuple[str, ...]


class Queue:
    """A job's place in the line; made by `Queue.join`."""

    def __init__(self, folder: Path, number: int, stream: FileIO, title: str, wish: Wish) -> None:
        self._folder, self._number, self._stream = folder, number, stream
        self._title, self.wish = title, wish
        self.pause = _PAUSE
        """Seconds until it is worth to look again: a long line costs little when those far behind look seldom."""

    @classmethod
    def join(cls, title: str, wish: Wish, folder: Path | None = None) -> Self:
        """Line up behind everybody who is there."""
        folder = folder or queue_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(folder):
            numbers = [int(path.stem) for path in folder.glob("*.ticket") if path.stem.isdigit()]
            number = max(numbers, default=0) + 1
            stream = (folder / f"{number:012d}.ticket").open("w+b", buffering=0)
            fcntl.flock(stream, fcntl.LOCK_EX)
            joined = cls(folder, number, stream, title, wish)
            try:
                joined._write(())
            except OSError:  # the disk is full, and nobody can read a ticket without a wish
                Path(stream.name).unlink()
                stream.close()
                raise
        return joined

    def try_take(self) -> tuple[list[str], str]:
        """(the devices, "") once it is this job's turn and they are free; before that ([], what it waits for)."""
        with _locked(self._folder):
            tickets = _live(self._folder, self._number)
            held = {device: ticket for ticket in tickets for device in ticket.holds}
            waiting = [ticket for ticket in tickets if ticket.number < self._number and not ticket.holds]
            reserved = _reserved(waiting, held)
            free = [each for each in self.wish.devices if each not in held and each not in reserved]
            if len(free) >= self.wish.count:
                taken = tuple(free[: self.wish.count])
                self._write(taken)
                return list(taken), ""
        self.pause = min(_PAUSE * max(1, len(waiting)), _LONGEST_PAUSE)
        return [], self._waits_for(waiting, held)

    def leave(self) -> None:
        """Give everything back."""
        with _locked(self._folder):
            (self._folder / f"{self._number:012d}.ticket").unlink(missing_ok=True)
        self._stream.close()

    def _write(self, holds: Sequence[str]) -> None:
        wish = {"devices": self.wish.devices, "count": self.wish.count}
        text = json.dumps({"title": self._title, **wish, "holds": list(holds)})
        self._stream.seek(0)
        # Written over itself at one size, so that a full disk cannot leave a ticket that nobody can read.
        self._stream.write(text.ljust(_SIZE).encode())

    def _waits_for(self, waiting: Sequence[_Ticket], held: dict[str, _Ticket]) -> str:
        """What people read about a job that waits."""
        mine = set(self.wish.devices)
        users = [f"{device} is used by {held[device].title}" for device in self.wish.devices if device in held]
        place = sum(bool(mine & set(ticket.wish.devices)) for ticket in waiting) + 1
        ordinal = ORDINALS[place] if place < len(ORDINALS) else f"number {place}"
        line = f"{ordinal} in line for {self.wish.text}"
        return "; ".join([line, *users]) if place > 1 or not users else "; ".join(users)


def _reserved(waiting: Sequence[_Ticket], held: dict[str, _Ticket]) -> set[str]:
    """What those who came earlier will take as soon as they can: nobody who comes later gets it before them."""
    reserved: set[str] = set()
    for ticket in waiting:
        wish = ticket.wish
        if wish.count == len(wish.devices):
            reserved |= set(wish.devices)
        else:
            free = [each for each in wish.devices if each not in held and each not in reserved]
            reserved |= set(free[: wish.count])
    return reserved


def _live(folder: Path, own: int) -> list[_Ticket]:
    """Tickets of others whose runner lives, in their order; those of dead ones are thrown away."""
    found = []
    for path in sorted(folder.glob("*.ticket")):
        if not path.stem.isdigit() or int(path.stem) == own:
            continue
        with path.open(encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(_ticket(int(path.stem), stream.read()))
            else:
                path.unlink()
    return found


def _ticket(number: int, text: str) -> _Ticket:
    told = json.loads(text)
    return _Ticket(number, told["title"], Wish(tuple(told["devices"]), told["count"]), tuple(told["holds"]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "queue.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
