"""The app in a process of its own, as a user starts it; it can be killed and started again at the same address."""

import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import httpx

OFTEN = "from app.jobs import refreshing; refreshing.EVERY = 0.5"
"""It looks at jobs on other machines more often than usual."""
ESTIMATED = """
from app.jobs import estimates
estimates._estimate = lambda *_: {
    "state": "done", "parts": {"weights": 3e8, "activations": 1e8, "margin": 7e8}, "total": 1.1e9, "memory": 1.6e10,
    "device": "RAM", "gpu": False, "close": False, "impossible": False, "cards": "24 GiB: 64", "advice": [],
}
"""
"""Its estimates of memory cost nothing: each of the real ones takes a process with torch some seconds."""
_PROGRAM = """
import sys
{before}
from opadpo.cli import main
sys.exit(main())
"""


class RunningApp:
    """`opadpo app` on a workspace, from `start` to `stop`."""

    def __init__(self, workspace: Path, *, log: Path | None = None, before: str = "") -> None:
        self.workspace = workspace
        self.before = before
        """Lines of Python that its process runs first."""
        self.log = log
        """Where its standard error goes, if not to ours."""
        self.port = 0
        self.url = ""
        """Its address, which answers those only who have come in once."""
        self.link = ""
        """The link that lets in; every start has a new one, and remembers who has come in before."""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens; the second time at the same port."""
        program = ["-c", _PROGRAM.format(before=self.before)] if self.before else ["-m", "opadpo"]
        command = [sys.executable, *program, "app", str(self.workspace), "--port", str(self.port)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self.log.open("a") if self.log else nullcontext() as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\S*", line)
        assert found, f"the app did not say where it listens: {line!r}"
        self.port = int(found[1])
        self.link = found[0]
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.Client:
        """A client that has come in by the link."""
        visit = httpx.get(self.link)
        assert visit.status_code == 303
        return httpx.Client(base_url=self.url, timeout=60, cookies=visit.cookies)

    def state(self) -> Any:
        """The same for a browser: `new_context(storage_state=app.state())`."""
        with self.client() as client:
            found = next(iter(client.cookies.jar))
        cookie = {"name": found.name, "value": found.value, "domain": "127.0.0.1", "path": "/", "expires": -1}
        return {"cookies": [{**cookie, "httpOnly": True, "secure": False, "sameSite": "Strict"}], "origins": []}

    def kill(self) -> None:
        """End it without a warning, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as Ctrl+C does."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
