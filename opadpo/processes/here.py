"""Which of several processes this one is. All of it is read from the environment, as torchrun sets it."""

import importlib
import os

SERVING_VARIABLE = "OPADPO_SERVING"
"""Set in processes that serve a team."""


def processes_here() -> int:
    """Number of processes that work together, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_here() -> int:
    """Number of this process among them, from 0."""
    return int(os.environ.get("RANK", "0"))


def first_process() -> bool:
    """Whether this one writes files and tells the user things."""
    return rank_here() == 0


def launched_outside() -> bool:
    """Whether torchrun, accelerate or srun started several processes with this command, and not one that we started."""
    return "RANK" in os.environ and processes_here() > 1 and SERVING_VARIABLE not in os.environ


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if processes_here() > 1:
        importlib.import_module("accelerate").PartialState().wait_for_everyone()
