"""`python deadly.py WORKSPACE NAME WORK COUNT [setting ...]`: train OPA-DPO, and die (SIGKILL) in the middle.

That is when the work whose description begins with WORK has advanced COUNT times.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from opadpo.progress import SilentProgress, Task
from opadpo.steps.train import train
from opadpo.workspace import Workspace


class Deadly(SilentProgress):
    """Ends its process."""

    def __init__(self, work: str, count: int) -> None:
        super().__init__()
        self.work, self.count = work, count

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> Iterator[Task]:
        yield _Counted(self.count if description.startswith(self.work) else sys.maxsize)


class _Counted:
    def __init__(self, left: int) -> None:
        self.left = left

    def advance(self, amount: int = 1) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text: str) -> None:
        pass


if __name__ == "__main__":
    root, name, work, count, *settings = sys.argv[1:]
    train(Workspace.open(root, settings), "opadpo", name=name, progress=Deadly(work, int(count)))
