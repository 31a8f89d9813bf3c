"""A workspace of its own for each test, and a line for devices of its own; machines for the remote ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
import ssh_server
from remote_jobs import environment
from running_jobs import toy_workspace

from opadpo.jobs.machines import OverSsh
from opadpo.workspace import Workspace


@pytest.fixture(autouse=True)
def _queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A toy workspace whose path a careless shell command would not survive."""
    return toy_workspace(tmp_path / 'it\'s a "work space"; touch x')


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.SshServer]:
    """A machine that is reached over ssh; a test that stops it starts it again."""
    queue = tmp_path_factory.mktemp("queue")
    with ssh_server.running({**environment(), "OPADPO_RUNTIME": str(queue)}) as server:
        yield server


@pytest.fixture
def machine(sshd: ssh_server.SshServer) -> Iterator[OverSsh]:
    """That machine, as jobs see it."""
    found = OverSsh(ssh_server.ALIAS, str(sshd.client_config))
    yield found
    found.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm_cluster.SlurmCluster]:
    """A Slurm of one node with one fake GPU."""
    with slurm_cluster.running() as found:
        yield found
