"""The notebooks run for real in kernels of their own: in order in one workspace, and each first in a fresh one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from photograph_expert import photograph_expert
from run_notebooks import copy_photographs, execute, read

from opadpo.display.shipped import OWN_WORKSPACE, shipped, with_parameters

pytestmark = pytest.mark.slow

NAMES = [path.name for path in shipped()]
SMALLEST = [
    "rollout.max_new_tokens=48",
    "caption.max_new_tokens=24",
    "train.opa.batch_size=4",
    "train.opa.micro_batch_size=4",
    "train.opa.max_steps=2",
    "train.opadpo.batch_size=4",
    "train.opadpo.micro_batch_size=4",
    "train.opadpo.max_steps=3",
]
"""What a recipe may have for steps that take seconds."""

CAUGHT_UP = "not there yet"
"""What a cell says of a step that it has to run first."""

SIZES = ["prepare.subset_size=24", "prepare.heldout_size=6", *SMALLEST]


@pytest.fixture(scope="module")
def expert() -> Iterator[str]:
    with photograph_expert() as url:
        yield url


def run(path: Path, folder: Path, expert: str) -> str:
    """All that the notebook's cells show in a run in this folder at the smallest size; an error fails."""
    values: dict[str, Any] = {"settings": SIZES}
    if path.name == OWN_WORKSPACE:
        copy_photographs(folder / "photographs")
        values = {"settings": SMALLEST, "base_url": expert, "model": "photograph-expert", "api_key_env": None}
    executed = execute(with_parameters(read(path), values), folder)
    return json.dumps([cell.get("outputs", []) for cell in executed["cells"]])


# The last one makes a workspace of its own, so one run is enough for it; so it is for the first one.


@pytest.mark.timeout(600)
def test_in_order_in_one_workspace(tmp_path: Path, expert: str) -> None:
    caught_up = {path.name: CAUGHT_UP in run(path, tmp_path, expert) for path in shipped()[:-1]}
    assert not any(caught_up.values()), caught_up


@pytest.mark.parametrize("path", shipped()[1:], ids=NAMES[1:])
def test_each_is_opened_first(path: Path, tmp_path: Path, expert: str) -> None:
    assert (CAUGHT_UP in run(path, tmp_path, expert)) == (path.name != OWN_WORKSPACE)
