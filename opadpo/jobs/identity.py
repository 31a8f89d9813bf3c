"""Whether a process that was written down still runs: not gone, no zombie, not another of the same number."""

import os
import socket
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil

CLOCKS_DIFFER_SECONDS = 3600.0
"""The clocks of two machines are not further apart."""
_LINUX = Path("/proc/self/stat").exists()


@cache
def hostname() -> str:
    """This machine's name."""
    return socket.gethostname()


@cache
def boot_id() -> str:
    """What is the same until this machine starts again."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(psutil.boot_time()))


def started_at(pid: int) -> int | None:
    """When a process started, in the system's own unit; None if there is none or it is a zombie.

    Linux: ticks since the machine started (field 22 of /proc/PID/stat); elsewhere seconds since 1970.
    """
    if not _LINUX:
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
        except psutil.Error:
            return None
    try:
        # The name, in parentheses, may hold spaces and parentheses of its own.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def of_this_process() -> dict[str, Any]:
    """Machine, boot, number and start of this process, by the names that an attempt has for them."""
    pid = os.getpid()
    return {"host": hostname(), "boot_id": boot_id(), "pid": pid, "pid_started": started_at(pid)}


def alive(pid: int, started: int | None, boot: str | None) -> bool:
    """Whether the process of this number, start and boot runs on this machine."""
    return (boot is None or boot == boot_id()) and (now := started_at(pid)) is not None and started in (None, now)


def age(path: Path) -> float | None:
    """Seconds since a file was touched, by the clock of its file system; None if it is not there."""
    try:
        with path.open("rb") as stream:  # over a network, opening asks the server; a glance may be answered from memory
            touched = os.fstat(stream.fileno()).st_mtime
    except OSError:
        return None
    return max(0.0, _clock(path.parent) - touched)


def _clock(folder: Path) -> float:
    """The time that the folder's file system gives to what is written now: a file server's clock is not ours.

    Where we may not write it is at least this.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time() - CLOCKS_DIFFER_SECONDS
