"""One command of a job: started in a group of its own, stopped with all that it has started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opadpo.jobs.descendants import bury_orphans, descendants, ends_with_parent, send

LINGER_SECONDS = 5.0
"""What processes get that outlive the command that started them."""


class Command:
    """A running command."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], log: Path, result: Path, grace_seconds: float
    ) -> None:
        """Start it; its standard output is added to `result`, its standard error to `log`.

        Raises:
            OSError: if it cannot be started.
        """
        self._grace = grace_seconds
        self._killed_at: float | None = None
        self._linger_until: float | None = None
        self.code: int | None = None
        """Its exit code once it has ended; negative: the signal that killed it."""
        # Files, no pipes: a log of any speed costs the runner nothing, and nobody blocks when the runner dies.
        with log.open("ab") as told, result.open("ab") as printed:
            self._process = subprocess.Popen(
                list(argv),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=told,
                process_group=0,
                preexec_fn=ends_with_parent(),
            )

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._killed_at is not None

    def stop(self) -> None:
        """Tell it to stop; when the grace is over it is killed, and everything below this process with it."""
        if self._killed_at is None:
            self._killed_at = time.monotonic() + self._grace
            self._signal(signal.SIGTERM)

    def gone(self) -> bool:
        """Whether it has ended with everything that it started; ends what is left. Asked again and again."""
        if self.code is None:
            self.code = self._process.poll()
        bury_orphans(None if self.code is not None else self._process.pid)
        at = time.monotonic()
        if self._killed_at is not None and at >= self._killed_at:
            self._signal(signal.SIGKILL)
            send(signal.SIGKILL, descendants())
        if self.code is None:
            return False
        left = descendants()
        if left and self._linger_until is None:
            self._linger_until = at + min(LINGER_SECONDS, self._grace)
            send(signal.SIGTERM, left)
        elif left and self._linger_until is not None and at >= self._linger_until:
            send(signal.SIGKILL, left)
        return not left

    def _signal(self, number: int) -> None:
        if self.code is None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return


def end_all(processes: Callable[[], list], grace_seconds: float, tick: Callable[[float], None]) -> None:
    """End processes that are no children of this one: SIGTERM, and SIGKILL when the grace is over, until all are gone.

    `tick` is called in between, with the seconds that it may wait.
    """
    send(signal.SIGTERM, processes())
    deadline = time.monotonic() + grace_seconds
    while left := processes():
        if time.monotonic() >= deadline:
            send(signal.SIGKILL, left)
        tick(0.2)
