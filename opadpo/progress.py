"""Progress of long work: a bar on a terminal, plain lines in a log, a file for others, nothing in a test."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

FILE_SECONDS = 1.0
"""How often `FileProgress` writes at most."""
NOTE_SECONDS = 1.0
"""How often a task's notes are printed at most."""


class Task(Protocol):
    """One counted piece of work."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more as done."""
        ...

    def note(self, text: str) -> None:
        """How it is going: a line in a log. On a terminal the bar says enough."""
        ...


class Progress(Protocol):
    """Where a step tells how far it is. Messages go to standard error; results go to standard output."""

    def task(self, description: str, total: int | None, *, done: int = 0) -> AbstractContextManager[Task]:
        """A context manager that yields a `Task`; `done` were finished before (a resumed run)."""
        ...

    def say(self, message: str) -> None:
        """Tell the user something."""
        ...

    def warn(self, message: str) -> None:
        """Tell the user something that they should act on."""
        ...


class SilentProgress:
    """Says nothing; keeps the messages for tests and callers."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        """A task that counts for nobody."""
        yield _Counter(done)

    def say(self, message: str) -> None:
        """Keep the message."""
        self.messages.append(message)

    def warn(self, message: str) -> None:
        """Keep the warning."""
        self.warnings.append(message)


class LineProgress:
    """Plain lines on standard error, at most one per `interval` seconds and task: for logs and pipes."""

    def __init__(self, interval: float = 10.0) -> None:
        self.interval = interval

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        """A task that prints a line now and then, and one at its end."""
        counter = _LineCounter(description, total, done, self.interval)
        yield counter
        counter.end()

    def say(self, message: str) -> None:
        """Print the message."""
        print(message, file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Print the warning."""
        print(f"warning: {message}", file=sys.stderr, flush=True)


class TerminalProgress:
    """Bars with rate and time left, by rich, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        """A bar."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        started = time.monotonic()
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        ) as bars:
            bar = bars.add_task(description, total=total, completed=done, rate="")

            class _Bar:
                count = 0

                def advance(self, amount: int = 1) -> None:
                    self.count += amount
                    rate = self.count / max(time.monotonic() - started, 1e-9)
                    bars.update(bar, advance=amount, rate=f"{rate:.1f}/s")

                def note(self, text: str) -> None:
                    pass

            yield _Bar()

    def say(self, message: str) -> None:
        """Print the message."""
        self.console.print(message, markup=False, highlight=False)

    def warn(self, message: str) -> None:
        """Print the warning."""
        self.console.print(f"warning: {message}", markup=False, highlight=False, style="yellow")


class FileProgress:
    """Writes how far the newest task is into a file, at most once a second, beside what another progress shows.

    The file holds one JSON object: task, done, total, rate (per second), seconds_left, at (since 1970); a reader
    sees it whole. Where it cannot be written (a full disk), the work goes on.
    """

    def __init__(self, inner: Progress, path: Path) -> None:
        """`inner` shows the same to the user."""
        self.inner, self.path = inner, path

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        """A task of both."""
        with self.inner.task(description, total, done=done) as shown:
            counter = _FileCounter(self.path, description, total, done, shown)
            counter.write()
            try:
                yield counter
            finally:
                counter.write()

    def say(self, message: str) -> None:
        """Tell the user something."""
        self.inner.say(message)

    def warn(self, message: str) -> None:
        """Tell the user something that they should act on."""
        self.inner.warn(message)


def default_progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


class _Counter:
    def __init__(self, done: int) -> None:
        self.done = done

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        pass


class _TimedCounter(_Counter):
    """Knows its rate and the time left."""

    def __init__(self, description: str, total: int | None, done: int) -> None:
        super().__init__(done)
        self.description, self.total = description, total
        self.first, self.started = done, time.monotonic()

    @property
    def rate(self) -> float:
        """Done per second since the start."""
        return (self.done - self.first) / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None while nobody can know."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0.0, (self.total - self.done) / self.rate)


class _LineCounter(_TimedCounter):
    def __init__(self, description: str, total: int | None, done: int, interval: float) -> None:
        super().__init__(description, total, done)
        self.interval = interval
        self.printed, self.reported = self.started, -1
        self.noted, self.unprinted = self.started - NOTE_SECONDS, ""

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if time.monotonic() - self.printed >= self.interval:
            self.report()

    def note(self, text: str) -> None:
        self.unprinted = f"{time.strftime('%H:%M:%S')}  {text}"
        if time.monotonic() - self.noted >= NOTE_SECONDS:
            self._print_note()

    def end(self) -> None:
        if self.unprinted:
            self._print_note()
        if self.reported != self.done:
            self.report()

    def report(self) -> None:
        self.printed, self.reported = time.monotonic(), self.done
        line = f"{self.description}: {self.done}" + (f"/{self.total}" if self.total is not None else "")
        line += f"  {self.rate:.1f}/s"
        if self.total is not None and self.done < self.total and (left := self.seconds_left) is not None:
            line += f"  {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)

    def _print_note(self) -> None:
        print(self.unprinted, file=sys.stderr, flush=True)
        self.noted, self.unprinted = time.monotonic(), ""


class _FileCounter(_TimedCounter):
    def __init__(self, path: Path, description: str, total: int | None, done: int, shown: Task) -> None:
        super().__init__(description, total, done)
        self.path, self.shown = path, shown
        self.written = 0.0

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        self.shown.advance(amount)
        if time.monotonic() - self.written >= FILE_SECONDS:
            self.write()

    def note(self, text: str) -> None:
        self.shown.note(text)

    def write(self) -> None:
        self.written = time.monotonic()
        left = self.seconds_left
        state = {
            "task": self.description,
            "done": self.done,
            "total": self.total,
            "rate": round(self.rate, 4),
            "seconds_left": None if left is None else round(left, 1),
            "at": time.time(),
        }
        # Not `atomic_write`: nobody needs this after a power cut, and a disk asked to keep it would slow the work.
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with suppress(OSError):
            temporary.write_text(json.dumps(state), encoding="utf-8")
            os.replace(temporary, self.path)
