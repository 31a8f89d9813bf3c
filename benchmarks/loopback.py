"""The tests' model server as a process of its own, for the benchmarks of `opadpo.llm`; prints nothing by itself."""

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_SERVER = Path(__file__).resolve().parent.parent / "tests" / "servers.py"


class Provider(NamedTuple):
    """A running server."""

    port: int

    @property
    def url(self) -> str:
        """Base URL of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """Requests and faults so far."""
        return self._get("/stats")

    def asked(self) -> dict[str, int]:
        """How often each text of a user was asked so far."""
        return self._get("/asked")

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@contextmanager
def provider(*, latency: float = 0.0, faults: float = 0.0, seed: int = 0) -> Iterator[Provider]:
    """Run the server; `faults` is the share of replies that are faulty."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        words = ["--port-file", port_file, "--latency", latency, "--faults", faults, "--seed", seed]
        process = subprocess.Popen([sys.executable, str(_SERVER), *map(str, words)])
        try:
            while not port_file.exists():
                if process.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.05)
            yield Provider(int(port_file.read_text()))
        finally:
            process.terminate()
            process.wait()
