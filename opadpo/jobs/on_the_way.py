"""Jobs between being written down and having arrived where they run: whether somebody is bringing them is a lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WAY_LOCK = ".way.lock"
"""In a job's folder: held by the process that hands the job over, for as long as that process lives at most."""
LOCK_SECONDS = 30.0


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


def is_on_its_way(folder: Path) -> bool:
    """Whether a process that lives has the job in its hands."""
    try:
        with FileLock(folder / WAY_LOCK, timeout=0):
            return False
    except Timeout:
        return True
