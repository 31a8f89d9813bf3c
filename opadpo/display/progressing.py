"""Progress in a notebook: bars and messages in one output that is updated in place, with curves under a training run.

Plain display updates: it needs no widgets, and what an executed notebook keeps is the last state.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from opadpo.display.showing import Html, piece
from opadpo.workspace import Workspace

EVERY = 0.25
"""Seconds between two updates of the page."""

FIGURE_EVERY = 2.0
"""Seconds between two drawings of a figure, at least; drawing never takes more than a tenth of the time."""


@dataclass
class Bar:
    """One counted piece of work."""

    description: str
    total: int | None
    done: int
    progress: "NotebookProgress"
    pace: str = ""
    """Rate and time left, or why it does not go on."""
    detail: str = ""
    """How it is going, in the step's own words."""
    finished: bool = False
    started: float = field(default_factory=time.monotonic)
    first: int = 0

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more as done."""
        self.set(self.done + amount)

    def set(self, done: int) -> None:
        """Say how many are done in all."""
        self.done = done
        elapsed = time.monotonic() - self.started
        rate = (self.done - self.first) / max(elapsed, 1e-9)
        self.pace = f"{rate:.1f} a second" if rate >= 1 else f"{elapsed / max(self.done - self.first, 1):.1f} s each"
        if self.total is not None and rate > 0 and self.done < self.total:
            self.pace += f", {(self.total - self.done) / rate:.0f} s left"
        self.progress.draw()

    def note(self, text: str) -> None:
        """How it is going: shown until the work is done."""
        self.detail = text
        self.progress.draw()

    @property
    def percent(self) -> int:
        """Of the total, 0 to 100."""
        return min(100, 100 * self.done // self.total) if self.total else 0


class Line(NamedTuple):
    """Something that was told."""

    message: str
    warning: bool = False


class NotebookProgress:
    """Where a step tells how far it is, in a notebook."""

    def __init__(self, figure: Callable[[], str | None] | None = None) -> None:
        """`figure` draws what there is so far, as a data URI; None where there is nothing to draw yet."""
        self.entries: list[Bar | Line] = []
        """What there was to tell, in order."""
        self._figure = figure
        self._drawn: str | None = None
        self._next_figure = 0.0
        self._handle: Any = None
        self._shown = 0.0

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Bar]:
        """A bar."""
        bar = self.add(description, total, done=done)
        try:
            yield bar
            # How long it took is of no interest any more, and would make every run's file another one.
            bar.finished = bar.total is None or bar.done >= bar.total
        finally:
            bar.pace = "stopped"
            self.draw(force=True, figure=True)

    def add(self, description: str, total: int | None, *, done: int = 0) -> Bar:
        """A bar that its caller brings to an end."""
        bar = Bar(description, total, done, self, first=done)
        self.entries.append(bar)
        self.draw(force=True)
        return bar

    def say(self, message: str) -> None:
        """Tell the user something."""
        self._tell(Line(message))

    def warn(self, message: str) -> None:
        """Tell the user something that they should act on."""
        self._tell(Line(message, warning=True))

    def _tell(self, line: Line) -> None:
        self.entries.append(line)
        self.draw(force=True)

    def draw(self, *, force: bool = False, figure: bool = False) -> None:
        """Bring the page up to date, if it is time or if it must be."""
        now = time.monotonic()
        if not force and now - self._shown < EVERY:
            return
        self._shown = now
        if self._figure is not None and (figure or now >= self._next_figure):
            self._drawn = self._figure() or self._drawn
            self._next_figure = time.monotonic() + max(FIGURE_EVERY, 10 * (time.monotonic() - now))
        self._update(self.html())

    def html(self) -> Html:
        """What there is to see now."""
        told = (each.message if isinstance(each, Line) else f"{each.description}: {each.done}" for each in self.entries)
        return piece("progress", "\n".join(told), entries=self.entries, figure=self._drawn)

    def _update(self, html: Html) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(html, display_id=True)
        else:
            self._handle.update(html)


def notebook_progress() -> NotebookProgress:
    """Bars and messages in the cell."""
    return NotebookProgress()


def training_progress(workspace: Workspace, name: str) -> NotebookProgress:
    """The same with the run's curves below, drawn anew while it trains; a resumed run's begin where it began."""
    from opadpo.plots import svg_uri, training_curves
    from opadpo.steps.looking import curve

    def drawn() -> str | None:
        lines = curve(workspace, name)
        return svg_uri(training_curves(name, lines)) if len(lines) > 1 else None

    return NotebookProgress(drawn)
