"""Models whose parameters are sharded over processes (FSDP2): each holds a part of every parameter, as a `DTensor`."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full. Every process must call it where the tensor is sharded."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, place: Tensor) -> Tensor:
    """A full tensor as `place` is: this process's part of it where that is sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(place, DTensor):
        return tensor
    return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements, src_data_rank=None)


def forward_method(model: nn.Module, name: str) -> Callable[..., Any]:
    """A method of a model that computes with its parameters, as `forward` does.

    Sharded parameters are put together around `forward` alone; any other method would meet parts of them.
    """
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

    if isinstance(model, FSDPModule) and name not in vars(model):
        register_fsdp_forward_method(model, name)
    return getattr(model, name)
