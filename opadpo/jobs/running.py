"""One command of a job: started in a group of its own, stopped with all that it has started."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opadpo.jobs.descendants import bury_orphans, descendants, ends_with_parent, send

LINGER_SECONDS = 5.0
"""What processes get that outlive the command that started them."""


_FULL_BYTES = 1_000_000
"""A disk with less room than this is why a command failed that could not say why."""


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


def failure(result: Path, start: int, code: int) -> str:
    """Why a command failed: what it printed last as its result, else what its exit code says."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        with result.open("rb") as stream:
            stream.seek(start)
            error = json.loads(stream.read().splitlines()[-1])["error"]
        parts = [error["what"], error.get("seen") and f"seen: {error['seen']}", error.get("remedy")]
        return "; ".join(" ".join(str(part).split()) for part in parts if part)
    if code == -signal.SIGKILL:
        return "It was killed (SIGKILL), often because memory ran out; resume it, it continues where it was"
    if code < 0:
        return f"It was ended by {signal.Signals(-code).name} from outside; resume it, it continues where it was"
    if _disk_is_full(result.parent):
        return "No space is left on the disk; free some and resume it, it continues where it was"
    return f"Its command ended with exit status {code}; the end of the log says more"


def _disk_is_full(folder: Path) -> bool:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize < _FULL_BYTES
