"""Messages and exit statuses: one clear message on standard error for people, one line of JSON for machines."""

import errno
import json
import os
import platform
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import typer

from opadpo.errors import DependencyMissing, DiskFull, OpadpoError
from opadpo.processes.signals import Stopped
from opadpo.progress import FileProgress, Progress, SilentProgress, Task, default_progress

FAILED = 1

# Libraries that write from C or Rust report a full disk in words, without an errno.
DISK_FULL_WORDS = ("no space left on device", "database or disk is full", "disk quota exceeded")

LOG_FOLDER = ".logs"

PROGRESS_VARIABLE = "OPADPO_PROGRESS"
"""Names a file that tells others, as a job's page, how far the command is."""

# typer keeps its parser's exceptions to itself; every usage error shares this base of the public one.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])


class CommandProgress:
    """Bars or lines on standard error; with `quiet` warnings only. Remembers what it has warned of."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._inner: Progress = SilentProgress() if quiet else default_progress()
        if path := os.environ.get(PROGRESS_VARIABLE):
            self._inner = FileProgress(self._inner, Path(path))
        self._warned: list[str] = []

    def task(self, description: str, total: int | None, *, done: int = 0) -> AbstractContextManager[Task]:
        """A counted piece of work."""
        return self._inner.task(description, total, done=done)

    def say(self, message: str) -> None:
        """Tell the user something."""
        self._inner.say(message)

    def warn(self, message: str) -> None:
        """Tell the user something that they should act on."""
        self._warned.append(message)
        if self._quiet:
            typer.echo(f"warning: {message}", err=True)
        else:
            self._inner.warn(message)

    def warn_of_rest(self, messages: Sequence[str]) -> None:
        """Warn of those that have not been shown yet: a step's result repeats what it said on the way."""
        for message in messages:
            if message not in self._warned:
                self.warn(message)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one line of JSON on standard output."""
    typer.echo(json.dumps(data, ensure_ascii=False, default=str))


@contextmanager
def errors(verb: str, root: Path | None, *, as_json: bool) -> Iterator[None]:
    """Turn whatever goes wrong inside into a message and an exit status.

    Raises:
        typer.Exit: with the status, once the message is printed.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, UsageError):
        raise
    except KeyboardInterrupt as interrupt:
        status = 128 + (interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT)
        _tell("Interrupted", "stopped; run the same command again to continue", as_json=as_json, status=status)
        raise typer.Exit(status) from interrupt
    except BrokenPipeError as error:
        # The reader of our output (`head`, a pager) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from error
    except Exception as error:
        known = as_known(error)
        if known is None:
            _tell_unexpected(error, verb, root, as_json=as_json)
            raise typer.Exit(FAILED) from error
        if os.environ.get("OPADPO_DEBUG"):
            traceback.print_exception(error)
        _tell(type(known).__name__, str(known), known=known, as_json=as_json, status=known.exit_status)
        raise typer.Exit(known.exit_status) from error


def as_known(error: BaseException) -> OpadpoError | None:
    """The error as one of ours, also where a library wraps a full disk or a package is not installed."""
    if isinstance(error, OpadpoError):
        return error
    if isinstance(error, ModuleNotFoundError) and not (error.name or "opadpo").startswith("opadpo"):
        return DependencyMissing(
            "A package is not installed",
            seen=error.name,
            remedy="install it; `opadpo doctor` says what else is missing",
        )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OpadpoError):
            return cause
        if _is_disk_full(cause):
            return DiskFull(
                "No space left on the disk",
                seen=str(cause),
                remedy="free some space and run the command again; it continues where it was",
            )
        cause = cause.__cause__ or cause.__context__
    return None


def report_usage_error(error: typer.BadParameter, *, as_json: bool) -> int:
    """Print typer's own message about the command line; returns the exit status."""
    error.message = error.message.removeprefix("Value error, ")  # how typer's validation begins a wrong choice
    if as_json:
        command = error.ctx.command_path if error.ctx else "opadpo"
        known = OpadpoError(error.format_message(), remedy=f"see `{command} --help`")
        _tell("UsageError", known.what, known=known, as_json=True, status=2)
    else:
        error.show()
    return 2


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(words in str(error).lower() for words in DISK_FULL_WORDS)


def _tell(kind: str, text: str, *, as_json: bool, status: int, known: OpadpoError | None = None) -> None:
    """The message on standard error and, for machines, the same on standard output."""
    typer.echo(text if known is None else f"Error: {text}", err=True)
    if as_json:
        detail = {
            "type": kind,
            "what": known.what if known else text,
            "seen": None if known is None or known.seen is None else str(known.seen),
            "remedy": known.remedy if known else None,
        }
        problems = getattr(known, "problems", None)
        if problems:
            detail["problems"] = problems
        print_json({"error": detail, "exit": status})


def _tell_unexpected(error: Exception, verb: str, root: Path | None, *, as_json: bool) -> None:
    log = write_traceback(error, verb, root)
    known = OpadpoError(
        f"`opadpo {verb}` stopped on an unexpected {type(error).__name__}: {_first_line(error)}",
        seen=f"full traceback in {log}" if log else None,
        remedy="run the same command again to continue; if it stops again, report it with the traceback",
    )
    if os.environ.get("OPADPO_DEBUG"):
        traceback.print_exception(error)
    _tell(type(error).__name__, str(known), known=known, as_json=as_json, status=FAILED)


def write_traceback(error: BaseException, verb: str, root: Path | None) -> Path | None:
    """Write the full traceback into the workspace's `.logs` (else the folder for temporary files).

    Returns None if that is not possible either.
    """
    now = datetime.now(UTC)
    is_workspace = root is not None and (root / "recipe.yaml").is_file()
    text = "\n".join(
        [
            f"when: {now.isoformat(timespec='seconds')}",
            f"command: {shlex.join(['opadpo', *sys.argv[1:]])}",
            f"python: {platform.python_version()} on {platform.platform()}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    for folder in [*([root / LOG_FOLDER] if root and is_workspace else []), Path(tempfile.gettempdir())]:
        try:
            folder.mkdir(exist_ok=True)
            path = folder / f"opadpo-{verb.replace(' ', '-')}-{now:%Y%m%dT%H%M%S}-{os.getpid()}.txt"
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return path
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "(no message)"
