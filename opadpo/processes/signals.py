"""SIGINT and SIGTERM as a wish to stop at the next good moment; the second one is what it was before.

Work that can stop well says so with `heeding()`. In a process of its own that puts handlers in place until its end; in
a process that serves a team, whose handlers are there for its whole life, it says that the wish will be heeded.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Work that was asked to stop has stopped; run again, it continues."""

    def __init__(self, number: int, message: str = "stopped; run it again to continue") -> None:
        """`number` is the signal's."""
        super().__init__(message)
        self.number = number


class Wish:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.number = 0
        """The signal; 0 while nobody has asked."""
        self.heeded = False
        """Whether somebody will stop for it at a good moment."""

    def ask(self, number: int) -> None:
        """Ask; the first one counts."""
        self.number = self.number or number


_serving: list[Wish] = []
"""The wish of a process that serves a team; else none."""


def serve_wishes() -> Wish:
    """For a process that serves a team: SIGTERM is a wish from now on. Ctrl+C goes to the owner as well, which tells.

    Whoever calls this looks after wishes that nobody heeds.
    """
    wish = Wish()
    _serving[:] = [wish]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _here_only(lambda number: wish.ask(number)))
    return wish


@contextmanager
def heeding() -> Iterator[Wish]:
    """While this lasts, a first signal is a wish, and a second one does what it did before.

    What is ignored stays ignored. Outside the main thread, where Python allows no handlers, nobody ever wishes.
    """
    if _serving:
        _serving[0].heeded = True
        try:
            yield _serving[0]
        finally:
            _serving[0].heeded = False
        return
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def first(number: int) -> None:
        put_back()
        wish.ask(number)

    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):  # None: a handler that was not set from Python cannot be put back
            signal.signal(number, _here_only(first))
    try:
        yield wish
    finally:
        put_back()


def pass_on(number: int, message: str) -> NoReturn:
    """Now that the work has stopped, let the signal do what it does without `heeding`; where that is nothing, raise.

    Raises:
        Stopped: also instead of Python's own KeyboardInterrupt, which has no message.
    """
    if signal.getsignal(number) is not signal.default_int_handler and not _serving and _in_main_thread():
        signal.raise_signal(number)
    raise Stopped(number, message)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _here_only(handle: Any) -> Any:
    """A handler for this process: a forked one, which inherits it, just ends."""
    me = os.getpid()

    def handler(number: int, _: FrameType | None) -> None:
        if os.getpid() == me:
            handle(number)
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return handler
