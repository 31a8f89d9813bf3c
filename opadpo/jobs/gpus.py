"""How busy the GPUs of a job are, as the driver tells."""

from collections.abc import Sequence
from typing import Any


class GpuMeter:
    """Reads some GPUs, by their indexes in the driver's order; none where there is no driver."""

    def __init__(self, indexes: Sequence[int]) -> None:
        """Nothing is asked of the driver for a job without GPUs."""
        self._handles = _handles(indexes) if indexes else {}

    def read(self) -> list[dict[str, Any]]:
        """Index, name, utilisation in percent, bytes used and in all, of each; what a GPU cannot tell is None."""
        return [self._one(index, handle) for index, handle in self._handles.items()]

    def _one(self, index: int, handle: Any) -> dict[str, Any]:
        import pynvml

        found: dict[str, Any] = dict.fromkeys(("name", "utilization", "memory_used", "memory_total"))
        try:
            found["name"] = pynvml.nvmlDeviceGetName(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found["memory_used"], found["memory_total"] = int(memory.used), int(memory.total)
            found["utilization"] = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError:
            pass  # a part of a GPU (MIG) has no utilisation
        return {"index": index, **found}


def _handles(indexes: Sequence[int]) -> dict[int, Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
        there = range(pynvml.nvmlDeviceGetCount())
        return {index: pynvml.nvmlDeviceGetHandleByIndex(index) for index in indexes if index in there}
    except pynvml.NVMLError:
        return {}
