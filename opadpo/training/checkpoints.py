"""Checkpoints of a run: complete ones found, torn ones cleared away, disk trouble told plainly."""

import errno
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opadpo.errors import DiskFull, disk_errors
from opadpo.files import atomic_write, fsync_tree

MARKER = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_WRITER_FAILED = re.compile(r"PytorchStreamWriter|inline_container|No space left|File too large|os error (27|28|122)")


def step_of(checkpoint: Path) -> int:
    """The update after which a checkpoint was written."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def mark_complete(checkpoint: Path) -> None:
    """Say that everything of a checkpoint is on the disk; the marker is the last thing written."""
    fsync_tree(checkpoint)
    files = {str(file.relative_to(checkpoint)): [file.stat().st_size, _checksum(file)] for file in _files(checkpoint)}
    atomic_write(checkpoint / MARKER, json.dumps(files, indent=1, sort_keys=True))


def newest_complete(run: Path) -> Path | None:
    """The newest checkpoint with its marker and all its files as they were written, to the last byte."""
    candidates = sorted((p for p in run.glob("checkpoint-*") if step_of(p) >= 0), key=step_of, reverse=True)
    return next((path for path in candidates if is_complete(path, to_the_byte=True)), None)


def is_complete(checkpoint: Path, *, to_the_byte: bool = False) -> bool:
    """Whether the marker is there and every file has the length that it names; `to_the_byte`: and the checksum."""
    try:
        files = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return all(
            (checkpoint / name).stat().st_size == size and (not to_the_byte or _checksum(checkpoint / name) == checksum)
            for name, (size, checksum) in files.items()
        )
    except (OSError, ValueError, TypeError):
        return False


def clear_torn(run: Path, *, after: int) -> None:
    """Remove checkpoints that are not complete, and those of updates later than `after`."""
    for path in run.glob("checkpoint-*"):
        if not is_complete(path) or step_of(path) > after:
            shutil.rmtree(path)


def keep_newest(run: Path, count: int) -> None:
    """Remove all but the newest complete checkpoints."""
    complete = sorted((path for path in run.glob("checkpoint-*") if is_complete(path)), key=step_of)
    for path in complete[:-count]:
        (path / MARKER).unlink()
        shutil.rmtree(path)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn what the writers of torch and safetensors raise on a full disk into `DiskFull`; the torn folder goes.

    Raises:
        DiskFull: if there was no room.
    """
    from safetensors import SafetensorError

    try:
        with disk_errors(folder):
            yield
    except DiskFull:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (RuntimeError, SafetensorError) as error:
        # Neither is an OSError, and neither carries an errno.
        if not _WRITER_FAILED.search(str(error)):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise DiskFull(
            "No space left while writing a checkpoint",
            seen=f"{folder}: {os.strerror(errno.ENOSPC)} ({str(error).splitlines()[0][:120]})",
            remedy="free some space (or lower keep_checkpoints) and run the command again; it continues from the"
            " checkpoint before",
        ) from error


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**24):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
