"""Processes below this one: kept together on Linux, so that none can slip away, and ended for certain."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterable

import psutil

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36

JOB_VARIABLE = "OPADPO_JOB"
"""Environment variable that marks every process of a job with its id."""
GRACE_VARIABLE = "OPADPO_GRACE"
"""Environment variable with the seconds between the wish that a command stops and its being killed."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that `descendants` finds it (Linux)."""
    if (prctl := _prctl()) is not None:
        prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def ends_with_parent() -> Callable[[], None]:
    """What a child calls before it runs its program: SIGTERM comes to it when this process ends, even by SIGKILL."""
    prctl, parent = _prctl(), os.getpid()

    def call() -> None:
        if prctl is not None:
            prctl(_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it ended before the call
                os.kill(os.getpid(), signal.SIGTERM)

    return call


def _prctl() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "prctl", None)


def descendants() -> list[psutil.Process]:
    """Every process below this one that still runs."""
    return running(psutil.Process().children(recursive=True))


def marked(job_id: str) -> list[psutil.Process]:
    """Processes of a job that run anywhere on this machine, this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(JOB_VARIABLE) == job_id:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return running(found)


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have neither ended nor are waiting to be buried."""
    found = []
    for process in processes:
        try:
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def send(number: int, processes: Iterable[psutil.Process]) -> None:
    """Send a signal; those that are gone are passed over."""
    for process in processes:
        try:
            process.send_signal(number)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def bury_orphans(child: int | None = None) -> None:
    """Take the exit status of adopted processes that have ended, but not that of our own `child`."""
    if not hasattr(os, "waitid"):  # where nothing is adopted
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == child:
            return
        os.waitpid(ended.si_pid, 0)
