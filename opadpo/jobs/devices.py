"""The GPUs of this machine."""

import os
from functools import cache

CPU = "cpu"
"""The device of jobs without GPUs: one at a time."""
GPU = "gpu-"
"""How the names of the others begin."""


def gpu(index: int) -> str:
    """The name of a GPU as a device."""
    return f"{GPU}{index}"


def visible_gpus() -> str:
    """What `CUDA_VISIBLE_DEVICES` says to this process; empty if it says nothing."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def gpus_here() -> list[int]:
    """Indexes of the GPUs of this machine, in the order of the bus; only those that this process may use."""
    there = _gpus_there()
    allowed = [word.strip() for word in visible_gpus().split(",") if word.strip()]
    if all(word.isdigit() for word in allowed) and allowed:
        return [index for index in there if str(index) in allowed]
    return list(there)


@cache
def _gpus_there() -> tuple[int, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()
