"""Several processes, one per GPU: who we are, how they are started, and that none outlives the command."""

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from opadpo import errors
from opadpo.errors import OpadpoError, StepFailed

OWNER_VARIABLE = "OPADPO_TRAINING_OWNER"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 20.0


def processes_here() -> int:
    """Number of processes that train together, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this one writes files and tells the user things."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if processes_here() > 1:
        importlib.import_module("accelerate").PartialState().wait_for_everyone()


def launch(module: str, argument: str, processes: int, failure_file: Path) -> None:
    """Run `python -m module argument` in `processes` processes that accelerate joins, one per GPU of this machine.

    If one fails, or this process is interrupted, all are ended.

    Raises:
        OpadpoError: the failure that a process recorded, as the class that it was there.
        StepFailed: if one ended without recording any (killed).
    """
    failure_file.unlink(missing_ok=True)
    shared = {
        OWNER_VARIABLE: str(os.getpid()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes))),
    }
    command = [sys.executable, "-m", module, argument]
    running = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]
    try:
        while any(process.poll() is None for process in running) and not any(p.returncode for p in running):
            time.sleep(_POLL_SECONDS)
    finally:
        _end(running)
    status = next((process.returncode for process in running if process.returncode), 0)
    if status:
        raise _failure(failure_file, status)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    alive = [process for process in running if process.poll() is None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in alive:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end_with_owner() -> None:
    """End this process when the one that started the training has gone: no rank goes on writing by itself."""
    owner = int(os.environ.get(OWNER_VARIABLE, "0"))
    if not owner:
        return

    def watch() -> None:
        while True:
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(_POLL_SECONDS)

    threading.Thread(target=watch, daemon=True).start()


def _failure(path: Path, status: int) -> OpadpoError:
    try:
        failure = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, failure.pop("class"))
        return kind(failure.pop("what"), **failure)
    except (OSError, ValueError):
        return StepFailed(
            "A training process ended without saying why",
            seen=f"exit status {status}",
            remedy="see its output above; run the command again: it continues from the last checkpoint",
        )
