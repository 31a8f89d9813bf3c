"""Progress of long work: rate and time left on a terminal, plain lines in a log, nothing in a test."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One counted piece of work."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more as done."""
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
        if counter.reported != counter.done:
            counter.report()

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

            yield _Bar()

    def say(self, message: str) -> None:
        """Print the message."""
        self.console.print(message, markup=False, highlight=False)

    def warn(self, message: str) -> None:
        """Print the warning."""
        self.console.print(f"warning: {message}", markup=False, highlight=False, style="yellow")


def default_progress() -> Progress:
    """Bars on a terminal, lines elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else LineProgress()


class _Counter:
    def __init__(self, done: int) -> None:
        self.done = done

    def advance(self, amount: int = 1) -> None:
        self.done += amount


class _LineCounter(_Counter):
    def __init__(self, description: str, total: int | None, done: int, interval: float) -> None:
        super().__init__(done)
        self.description, self.total, self.interval = description, total, interval
        self.first, self.started = done, time.monotonic()
        self.printed, self.reported = self.started, -1

    def advance(self, amount: int = 1) -> None:
        super().advance(amount)
        if time.monotonic() - self.printed >= self.interval:
            self.report()

    def report(self) -> None:
        self.printed, self.reported = time.monotonic(), self.done
        elapsed = self.printed - self.started
        rate = (self.done - self.first) / max(elapsed, 1e-9)
        line = f"{self.description}: {self.done}" + (f"/{self.total}" if self.total is not None else "")
        line += f"  {rate:.1f}/s"
        if self.total is not None and rate > 0 and self.done < self.total:
            line += f"  {(self.total - self.done) / rate:.0f} s left"
        print(line, file=sys.stderr, flush=True)
