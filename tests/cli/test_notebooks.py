"""`opadpo notebooks`: copies that are never overwritten, what stands in JupyterLab's way, JupyterLab, a wheel."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import Run
from running_jobs import toy_workspace

from opadpo.display.shipped import shipped

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@contextmanager
def listening() -> Iterator[int]:
    """A port that is taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_copies_are_made_once(run: Run, tmp_path: Path) -> None:
    workspace = toy_workspace(tmp_path / "ws")
    first = run("notebooks", workspace.root, "--copy-only", "--json")
    assert (first.status, first.result["status"], len(first.result["outputs"])) == (0, "done", 8)
    second = run("notebooks", workspace.root, "--copy-only", "--json")
    assert (second.status, second.result["status"], second.result["outputs"]) == (0, "up_to_date", [])


def test_a_file_in_the_place_of_the_copies_is_told(run: Run, tmp_path: Path) -> None:
    workspace = toy_workspace(tmp_path / "ws")
    (workspace.root / "notebooks").touch()
    told = run("notebooks", workspace.root, "--copy-only")
    assert (told.status, "cannot be made" in told.err, str(workspace.root / "notebooks") in told.err) == (2, True, True)


def test_a_taken_port_and_a_missing_jupyterlab_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = toy_workspace(tmp_path / "ws")
    with listening() as port:
        taken = run("notebooks", workspace.root, "--no-browser", "--port", port)
    assert (taken.status, f"127.0.0.1:{port}" in taken.err, "--port" in taken.err) == (2, True, True)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find(name))
    missing = run("notebooks", workspace.root)
    assert missing.status == 2
    assert "pip install 'opadpo[notebooks]'" in missing.err
    assert not (workspace.root / "notebooks").exists(), "nothing is copied where nothing can be opened"


@pytest.mark.slow
def test_jupyterlab_opens_on_the_copies_and_ends_when_asked(tmp_path: Path) -> None:
    workspace = toy_workspace(tmp_path / "a workspace")
    with listening() as port:
        pass
    command = [sys.executable, "-m", "opadpo", "notebooks", str(workspace.root), "--no-browser", "--port", str(port)]
    homes = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "HOME")}
    log = tmp_path / "log"
    with log.open("w") as stream:
        lab = subprocess.Popen(command, stderr=stream, stdout=stream, env={**os.environ, **homes})
    try:
        token = seen_within(180, lambda: re.search(r"/lab\?token=(\w+)", log.read_text()), lab)[1]
        address = f"http://127.0.0.1:{port}/api/contents?token={token}"
        listed = json.loads(seen_within(60, lambda: answer(address), lab))
        assert sorted(each["name"] for each in listed["content"]) == [path.name for path in shipped()]
        lab.terminate()
        assert lab.wait(timeout=60) == 0, log.read_text()
    finally:
        lab.kill()
        lab.wait()


def answer(address: str) -> bytes | None:
    """What a server says there; None while nobody listens."""
    try:
        with urllib.request.urlopen(address, timeout=60) as page:
            return page.read()
    except ConnectionError:
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionError):
            return None
        raise


def seen_within(seconds: float, look: Callable[[], Any], lab: subprocess.Popen[bytes]) -> Any:
    """What a look finds at last, while the process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and lab.poll() is None:
        if found := look():
            return found
        time.sleep(0.1)
    pytest.fail(f"nothing within {seconds} s, or JupyterLab has ended: {lab.poll()}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that are tracked, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    listing = ["git", "ls-files", "opadpo", "app", "notebooks", "pyproject.toml", "README.md", "LICENSE"]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run([*PIP, *build], check=True, capture_output=True)
    (made,) = folder.glob("opadpo-*.whl")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--prefix", "--target"])
def test_an_installed_wheel_finds_its_notebooks(where: str, wheel: Path, tmp_path: Path) -> None:
    assert sum(name.endswith(".ipynb") for name in zipfile.ZipFile(wheel).namelist()) == 8
    install = [
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        "--no-compile",
        where,
        str(tmp_path),
        str(wheel),
    ]
    subprocess.run([*PIP, *install], check=True, capture_output=True)
    (package,) = tmp_path.rglob("opadpo/display")
    program = "from opadpo.display.shipped import shipped; print(*shipped(), sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(package.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    found = [Path(line).resolve() for line in done.stdout.splitlines()]
    assert len(found) == 8, done.stderr
    assert all(path.is_relative_to(tmp_path) and path.is_file() for path in found)
