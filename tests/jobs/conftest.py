"""A workspace of its own for each test, and a line for devices of its own; the machine for the remote ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_server
import trainable_workspace
from running_jobs import toy_workspace

from opadpo.jobs.machines import OverSsh
from opadpo.progress import SilentProgress
from opadpo.steps.build import build
from opadpo.workspace import Workspace


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A toy workspace whose path a careless shell command would not survive."""
    return toy_workspace(tmp_path / 'it\'s a "work space"; touch x')


@pytest.fixture(scope="session")
def trainable(tiny_llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which everything before training is done; tests train in a copy."""
    made = trainable_workspace.make(tmp_path_factory.mktemp("trainable") / "w", tiny_llava_folder)
    build(made, progress=SilentProgress())
    return made.root


@pytest.fixture
def machine(sshd: ssh_server.SshServer) -> Iterator[OverSsh]:
    """That machine, as jobs see it."""
    found = OverSsh(ssh_server.ALIAS, str(sshd.client_config))
    yield found
    found.close()
