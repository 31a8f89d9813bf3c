"""Runs the command line in this process, or as a program of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import made_workspace
import pytest
from command import Ended, Run

from opadpo.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("status", folder)` -> exit status and output."""

    def call(*words: object) -> Ended:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Ended(status, str(out), str(err))

    return call


@pytest.fixture
def program() -> Run:
    """The same in a process of its own; `before` is a shell command that it inherits the effects of."""

    def call(*words: object, before: str = ":", env: dict[str, str] | None = None) -> Ended:
        command = ["bash", "-c", f'{before}; exec "$@"', "-", sys.executable, "-m", "opadpo", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_workspace.make(tmp_path_factory.mktemp("finished") / "w").root


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A workspace in which everything is done."""
    return shutil.copytree(_finished, tmp_path / "finished")
