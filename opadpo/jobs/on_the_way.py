"""Locks in a job's folder: who brings it to where it runs, and who asks its machine for it or copies what it made."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from opadpo.progress import Progress

WAY_LOCK = ".way.lock"
"""In a job's folder: held by the process that hands the job over, for as long as that process lives at most."""
REFRESH_LOCK = ".refresh.lock"
"""In a job's folder: held by whoever asks its machine for it, or copies something there or back."""
LOCK_SECONDS = 30.0
POLL_SECONDS = 0.5


class Ways:
    """The jobs that this process has in its hands, whichever of its threads."""

    def __init__(self) -> None:
        self._held: dict[str, FileLock] = {}

    @contextmanager
    def beginning(self, folder: Path) -> Iterator[None]:
        """Write a job down that has to be handed over; it is in our hands from the first moment that others see it."""
        lock = FileLock(folder / WAY_LOCK, timeout=LOCK_SECONDS, thread_local=False)
        lock.acquire()
        try:
            yield
        except BaseException:
            lock.release()
            raise
        self._held[folder.name] = lock

    def end(self, folder: Path) -> None:
        """The job has arrived, or never will."""
        if (lock := self._held.pop(folder.name, None)) is not None:
            lock.release()


@contextmanager
def alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Nobody else asks the job's machine or copies meanwhile; how long that takes to be so is told."""
    lock = FileLock(folder / REFRESH_LOCK)
    try:
        lock.acquire(timeout=POLL_SECONDS)
    except Timeout:
        with progress.task("Waiting until what is being copied of this job is here", None) as task:
            while not lock.is_locked:
                task.advance(0)
                with suppress(Timeout):
                    lock.acquire(timeout=POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def is_on_its_way(folder: Path) -> bool:
    """Whether a process that lives has the job in its hands."""
    try:
        with (folder / WAY_LOCK).open("rb") as lock:
            # Shared: another glance at the same moment must not pass for somebody who brings the job.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
