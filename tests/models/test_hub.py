"""Base models from the hub: a real HTTP server with the hub's routes, in place of the hub."""

import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMIT = "c" * 40
SCRIPT = """
import json, sys
from opadpo.errors import OpadpoError
from opadpo.models.base import fetch_base
from opadpo.progress import SilentProgress
from opadpo.recipe.sections import ModelSection
for base, revision, offline in json.loads(sys.argv[1]):
    try:
        pin = fetch_base(ModelSection(base=base, revision=revision), SilentProgress(), offline=offline)
        print(json.dumps({"name": pin.name, "files": sorted(pin.files), "digest": pin.digest}))
    except OpadpoError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


class Hub(http.server.ThreadingHTTPServer):
    """`owner/tiny` with the files of a folder; `owner/pickled` with pickles; `owner/gated`; nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.folder = folder
        self.requests: list[str] = []


class _Routes(http.server.BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        if path in ("/api/models/owner/tiny", "/api/models/owner/tiny/revision/main"):
            names = [file.name for file in self.server.folder.iterdir()]
            self.answer(200, self.info([*names, "README.md", "modeling_evil.py", "onnx/model.onnx"]))
        elif path == "/api/models/owner/pickled":
            self.answer(200, self.info(["config.json", "pytorch_model.bin"]))
        elif path == "/api/models/owner/gated":
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/owner/tiny/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith((f"/owner/tiny/resolve/{COMMIT}/", "/owner/tiny/resolve/main/")):
            file = self.server.folder / path.rsplit("/", 1)[1]
            self.answer(200, file.read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{file.name}"'})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def info(self, names):
        siblings = [{"rfilename": name} for name in names]
        return json.dumps({"id": "owner/x", "sha": COMMIT, "siblings": siblings}).encode()

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def hub(tiny_llava_folder, tmp_path_factory):
    folder = shutil.copytree(tiny_llava_folder, tmp_path_factory.mktemp("hub") / "files")
    server = Hub(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(cache, endpoint, *wanted, **environment):
    """Results of several fetches in one fresh process: the library reads its endpoint and cache once."""
    variables = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(wanted)],
        env={
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            **variables,
            **environment,
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub(hub, tmp_path, tiny_llava_folder):
    address = f"http://127.0.0.1:{hub.server_port}"
    before, fetched, cached, pickled, gated, unknown, revision, invalid = fetch(
        tmp_path,
        address,
        ["owner/tiny", None, True],
        ["owner/tiny", None, False],
        ["owner/tiny", None, True],
        ["owner/pickled", None, False],
        ["owner/gated", None, False],
        ["owner/nothing", None, False],
        ["owner/tiny", "v9", False],
        ["not a hub id", None, False],
    )
    assert before["error"] == "ModelError"
    assert "not in the local cache" in before["message"]
    assert fetched["name"] == f"owner/tiny@{COMMIT}"
    assert fetched["files"] == sorted(file.name for file in tiny_llava_folder.iterdir())
    assert not any("README" in line or "evil" in line or "onnx" in line for line in hub.requests)
    for result, message in (
        (pickled, "pickles can run code"),
        (gated, "gated"),
        (unknown, "no such model"),
        (revision, "no such revision"),
        (invalid, "neither a folder nor a hub id"),
    ):
        assert result["error"] == "ModelError", result
        assert message in result["message"]
    assert cached["name"] == f"owner/tiny@{COMMIT}"
    assert cached["digest"] == fetched["digest"]


def test_a_hub_that_does_not_answer(tmp_path):
    closed, offline = fetch(tmp_path, "http://127.0.0.1:9", ["owner/tiny", None, False], ["owner/tiny", None, True])
    assert "cannot be reached" in closed["message"]
    assert "not in the local cache" in offline["message"]
