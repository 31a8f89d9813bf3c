"""A workspace of its own for each test, and a line for devices of its own."""

from pathlib import Path

import pytest
from running_jobs import toy_workspace

from opadpo.workspace import Workspace


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A toy workspace whose path a careless shell command would not survive."""
    return toy_workspace(tmp_path / 'it\'s a "work space"; touch x')
