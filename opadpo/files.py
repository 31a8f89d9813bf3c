"""Writing files so that a kill or a power cut leaves the old or the new content, never a part."""

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opadpo.errors import UserError, WorkspaceError, disk_errors

_MANY_FILES = 64


def atomic_write(path: Path, content: str | bytes | Iterator[str]) -> None:
    """Write a file so that a reader sees the old or the new content, never a part, even after a power cut.

    What is too large for memory comes as an iterator of its parts.

    Raises:
        UserError: if a folder, a device or a pipe is there: it would be replaced by a file; or as `make_folder`.
    """
    if path.exists() and not path.is_file():
        raise UserError(
            "What is there is no file to write to",
            seen=f"{path} ({'a folder' if path.is_dir() else 'a device or a pipe'})",
            remedy="name a file",
        )
    parts = (content,) if isinstance(content, str | bytes) else content
    make_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in parts:
                stream.write(part.encode() if isinstance(part, str) else part)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _fsync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are not there yet.

    Raises:
        UserError: if no folder can be there: a file is in its way, or the file system has no folders of one's own.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        in_the_way = next((each for each in (path, *path.parents) if each.exists() and not each.is_dir()), None)
        raise UserError(
            "A folder cannot be made here",
            seen=f"{path}: {f'{in_the_way} is a file' if in_the_way else error.strerror}",
            remedy="name another place",
        ) from error


def fsync_tree(folder: Path) -> None:
    """Ask the disk to keep every file below `folder`; many files by one call for their whole file system."""
    files = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    if len(files) > _MANY_FILES and _sync_file_system(folder):
        return
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    for base, _, _ in os.walk(folder):
        _fsync_folder(Path(base))


def _sync_file_system(folder: Path) -> bool:
    """Linux's `syncfs`, which takes a moment where ten thousand single calls take half a minute; False elsewhere."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
    return True


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def given_path(value: object, what: str) -> Path:
    """A path that a person gave, `~` resolved; `what` says of what. Nothing has to be there.

    Raises:
        UserError: if no path can be made of it, or none that this machine can look at.
    """
    if not isinstance(value, str | Path):
        raise UserError(f"The {what} is not a path", seen=repr(value), remedy='write it as a text: "a/folder"')
    if not str(value).strip():
        raise UserError(f"The {what} is not named", seen=repr(value), remedy='write a path; "." is this folder')
    try:
        path = Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (ValueError, RuntimeError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        seen = f"{str(value)!a}: {why}"
        raise UserError(f"The {what} is no path on this machine", seen=seen, remedy="name another one") from error
    return path


@contextmanager
def folder_errors(path: Path) -> Iterator[None]:
    """Turn what can go wrong while a folder is made into messages.

    Raises:
        WorkspaceError: if it cannot be made.
        DiskFull: if there is no room.
    """
    try:
        with disk_errors(path):
            yield
    except OSError as error:
        raise WorkspaceError(
            "The folder cannot be made",
            seen=f"{path}: {error.strerror}",
            remedy="choose a path on a disk, below a folder that you may write to",
        ) from error
