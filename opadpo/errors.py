"""Every error that a user can meet: what is wrong, the value seen, and what to do about it.

The command line prints the message without a traceback and exits with the class's `exit_status`.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class OpadpoError(Exception):
    """Base of all errors of this package; by itself it means that a step failed (exit status 1)."""

    exit_status = 1

    def __init__(self, what: str, *, seen: object = None, remedy: str | None = None) -> None:
        """`what` is one sentence; `seen` the offending value; `remedy` what the user can do."""
        self.what = what
        self.seen = seen
        self.remedy = remedy
        lines = [what]
        if seen is not None:
            lines.append(f"  seen: {seen}")
        if remedy is not None:
            lines.append(f"  remedy: {remedy}")
        super().__init__("\n".join(lines))


class StepFailed(OpadpoError):
    """A step could not finish for a reason that is not the user's mistake; running it again continues it."""


class UserError(OpadpoError):
    """The user's mistake: one clear message, exit status 2, nothing half-written."""

    exit_status = 2


class RecipeError(UserError):
    """The recipe is wrong; `problems` lists every mistake at once."""

    def __init__(self, problems: Sequence[str], *, source: str = "recipe") -> None:
        """`problems` are ready-made lines "key: what, value seen, remedy"; `source` names the file."""
        self.problems = list(problems)
        count = len(self.problems)
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__("\n".join([f"{source} has {count} {noun}:", *(f"  - {p}" for p in self.problems)]))


class WorkspaceError(UserError):
    """A folder that is not a workspace, or whose contents do not fit together."""


class MissingArtefact(UserError):
    """A step was asked for before the one that makes its input."""


class Busy(UserError):
    """Another process is writing the same artefact."""


class NotFound(UserError):
    """Something was asked for by an id that nothing here has."""


class Conflict(UserError):
    """Somebody else has changed what this change starts from; nothing was written."""


class DataError(UserError):
    """Input data cannot be used: missing columns, no images, unreadable files."""


class ModelError(UserError):
    """A model, adapter, tokenizer or processor is missing, damaged, or does not fit the others."""


class EndpointError(UserError):
    """An expert or judge endpoint cannot be used: wrong address, key, model or quota."""


class CostRefused(UserError):
    """The estimated price of a run is above what may be spent without asking, and nobody agreed to it."""


class BudgetReached(StepFailed):
    """The money that the recipe allows is spent; with a larger budget the step goes on where it stopped."""


class DependencyMissing(UserError):
    """An optional package, system program or device that the request needs is not there."""


class DiskFull(UserError):
    """The disk has no room for what is to be written; nothing half-written is left in place."""


class Unreachable(UserError):
    """Another machine cannot be reached; what it does is not changed by that."""


class PortInUse(UserError):
    """The app was asked to listen on a port that another program has."""


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn the operating system's "no space", "quota" and "read-only" errors under `path` into messages.

    Raises:
        DiskFull: for ENOSPC, EDQUOT and EFBIG.
        WorkspaceError: for a read-only or forbidden folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                "No space left while writing",
                seen=f"{error.filename or path}: {os.strerror(error.errno)}",
                remedy="free some space (or point the workspace at a larger disk) and run the command again;"
                " it continues where it was",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise WorkspaceError(
                "Cannot write here",
                seen=f"{error.filename or path}: {os.strerror(error.errno)}",
                remedy="choose a folder that you may write to",
            ) from error
        raise
