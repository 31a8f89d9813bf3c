import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from opadpo.errors import EndpointError
from opadpo.llm.server import running_server

# Ignores SIGTERM if told to, and has a child of its own.
SERVER = """
import http.server, os, pathlib, signal, subprocess, sys
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def gone(pids: str, seconds: float = 60) -> bool:
    """True once none of the processes is alive (a zombie is not)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        states = []
        for pid in pids.split():
            try:
                states.append(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0])
            except OSError:
                continue
        if all(state == "Z" for state in states):
            return True
        time.sleep(0.02)
    return False


def test_a_server_runs_inside_the_block_and_not_after_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with running_server(["{python}", "-c", SERVER, "{port}", str(pids)], tmp_path / "log") as url:
        assert url.endswith("/v1")
        with urllib.request.urlopen(f"{url}/models") as reply:
            assert reply.status == 200
    assert gone(pids.read_text())
    assert "listening" in (tmp_path / "log").read_text()


def test_it_stops_when_the_block_ends_with_an_error(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with (
        pytest.raises(ZeroDivisionError),
        running_server(["{python}", "-c", SERVER, "{port}", str(pids)], tmp_path / "log"),
    ):
        _ = 1 / 0
    assert gone(pids.read_text())


@pytest.mark.slow
def test_it_stops_even_if_it_does_not_want_to(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with running_server(["{python}", "-c", SERVER, "{port}", str(pids), "stubborn"], tmp_path / "log"):
        pass
    assert gone(pids.read_text())


def test_it_ends_with_its_starter_even_if_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import sys, time, pathlib; from opadpo.llm.server import running_server\n"
        "with running_server(sys.argv[1:-1], pathlib.Path(sys.argv[-1])):\n    print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, "{python}", "-c", SERVER, "{port}", str(pids), str(tmp_path / "log")]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"up\n"
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert gone(pids.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["{python}", "-c", "raise SystemExit('no weights here')"], "ended with status 1.*no weights here"),
        (["/no/such/program"], "ended with status 127.*cannot start /no/such/program"),
    ],
)
def test_a_server_that_ends_instead_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, command: list[str], words: str
) -> None:
    with (
        pytest.raises(EndpointError, match=rf"(?s){words}.*remedy: correct the command"),
        running_server(command, tmp_path / "log"),
    ):
        pass


def test_so_is_one_that_does_not_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"

    def not_yet(_port: int) -> bool:
        while b"loading" not in log.read_bytes():  # however long it takes to start
            time.sleep(0.02)
        return False

    monkeypatch.setattr("opadpo.llm.server._answers", not_yet)
    command = ["{python}", "-c", "print('loading', flush=True); import time; time.sleep(600)"]
    with (
        pytest.raises(EndpointError, match=r"(?s)did not answer within 0 s.*loading.*remedy: correct the command"),
        running_server(command, log, start_seconds=0),
    ):
        pass
