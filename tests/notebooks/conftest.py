"""A tiny workspace, made once; every test gets a copy of it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trainable_workspace

from opadpo.recipe import dump_recipe
from opadpo.workspace import RECIPE_FILE, Workspace


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    base = trainable_workspace.base(tmp_path_factory.mktemp("base"))
    return trainable_workspace.make(tmp_path_factory.mktemp("made") / "ws", base)


@pytest.fixture
def made(_made: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """`made("section.key=value")`: prompts, rollouts and revisions of a random model; nothing is built yet."""

    def make(*settings: str) -> Workspace:
        root = shutil.copytree(_made.root, tmp_path / "ws")
        recipe = Workspace.open(root, [*_made.overrides, *settings]).recipe
        (root / RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
        return Workspace.open(root)

    return make
