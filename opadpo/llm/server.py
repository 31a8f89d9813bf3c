"""A model server that a step starts for itself and stops when it is done."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opadpo.errors import EndpointError

START_SECONDS = 600.0
"""A server that loads a large model takes minutes."""
_STOP_SECONDS = 15.0
_LOG_TAIL_LINES = 20


@contextmanager
def running_server(command: Sequence[str], log: Path, *, start_seconds: float = START_SECONDS) -> Iterator[str]:
    """Start `command`, wait until its `/v1/models` answers, and yield its base URL; stop it at the end.

    `{python}` in the command becomes this interpreter, `{port}` a free port of 127.0.0.1. The server has a process
    group of its own, its output goes to `log`, and it ends with this process even if that is killed.

    Raises:
        EndpointError: if it does not come up; with the end of its log.
    """
    port = _free_port()
    words = [word.replace("{python}", sys.executable).replace("{port}", str(port)) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "opadpo.llm.leash", *words],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, port, words, log, start_seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(process)


def log_tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(it printed nothing)"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_up(
    process: "subprocess.Popen[bytes]", port: int, words: Sequence[str], log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.02
    while not _answers(port):
        status = process.poll()
        if status is not None or time.monotonic() > deadline:
            what = f"ended with status {status}" if status is not None else f"did not answer within {seconds:g} s"
            raise EndpointError(
                f"The server that endpoint.server_command starts {what}",
                seen=f"{' '.join(words)}\n{log_tail(log)}",
                remedy=f"correct the command; its whole output is in {log}",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def _answers(port: int) -> bool:
    # Plain http.client: proxies of the environment do not concern a server on this machine.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Let go of the leash and make sure that the whole group has gone."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
