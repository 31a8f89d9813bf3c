"""Settings and fixtures of all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
import ssh_server
import tiny_llava
from hypothesis import settings
from IPython.testing.globalipapp import start_ipython
from no_skips import pytest_make_collect_report, pytest_runtest_makereport, required

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

# The machine that runs the tests may be busy: a slow example is no failure. Where every test is required, a property
# is tried on the same examples each time, so that the outcome hangs on the change alone; new ones come up elsewhere.
settings.register_profile("opadpo", deadline=None, derandomize=required())
settings.load_profile("opadpo")


@pytest.fixture(scope="session")
def tiny_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random LLaVA (two layers of width 32), its tokenizer and image processor. Read only."""
    return tiny_llava.save(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.SshServer]:
    """A machine that is reached over ssh; a test that stops it starts it again."""
    queue = tmp_path_factory.mktemp("queue")
    with ssh_server.running({**ssh_server.environment(), "OPADPO_RUNTIME": str(queue)}) as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm_cluster.SlurmCluster]:
    """A Slurm of two nodes, the first with a fake GPU."""
    with slurm_cluster.running() as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A shell lets what it starts in the background, and all that this starts, ignore Ctrl+C: some tests need it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def notebook_shell() -> Any:
    """IPython's shell, of which a process has one, formatting as in a notebook."""
    shell: Any = start_ipython()
    # A terminal formats text only; a notebook everything.
    shell.display_formatter.active_types = shell.display_formatter.format_types
    return shell
