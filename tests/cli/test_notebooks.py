"""`opadpo notebooks`: copies that are never overwritten, and what stands in JupyterLab's way."""

import importlib.util
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import Run
from running_jobs import toy_workspace


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
