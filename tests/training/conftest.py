"""A workspace with built data sets and an OPA adapter, made once; tests train models of other names in it."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import trainable_workspace

from opadpo.progress import SilentProgress
from opadpo.steps.build import build
from opadpo.steps.train import train
from opadpo.workspace import Workspace


@dataclass
class Trainable:
    """Opens the workspace with other settings."""

    root: Path
    base: Path

    def open(self, *overrides: str) -> Workspace:
        """The workspace with settings changed for this test."""
        return Workspace.open(self.root, [f"model.base={self.base}", *trainable_workspace.SMALL, *overrides])


@pytest.fixture(scope="session")
def trainable(tmp_path_factory):
    base = trainable_workspace.base(tmp_path_factory.mktemp("base"))
    workspace = trainable_workspace.make(tmp_path_factory.mktemp("trainable") / "ws", base)
    build(workspace, progress=SilentProgress())
    train(workspace, "opa", progress=SilentProgress())
    return Trainable(workspace.root, base)
