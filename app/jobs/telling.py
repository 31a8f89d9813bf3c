"""The progress of a copy as a line of text, for whoever looks at the job's page."""

from collections.abc import Iterator
from contextlib import contextmanager

from opadpo.progress import Task

UNIT = " (bytes)"
"""At the end of what a copy is called: where only its share is told, that says nothing."""


class Telling:
    """A `Progress` whose newest line is kept."""

    def __init__(self) -> None:
        self.told = ""
        """Empty until there was a first one."""

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        """As `Progress.task`."""
        yield _Count(self, description.removesuffix(UNIT), total, done)

    def say(self, message: str) -> None:
        """As `Progress.say`."""
        self.told = message

    def warn(self, message: str) -> None:
        """As `Progress.warn`."""
        self.say(message)


class _Count:
    def __init__(self, telling: Telling, description: str, total: int | None, done: int) -> None:
        self.telling, self.description, self.total, self.done = telling, description, total, done

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        share = f", {100 * self.done // self.total} %" if self.total else ""
        self.telling.say(f"{self.description}{share}")

    def note(self, text: str) -> None:
        self.telling.say(text)
