"""Log-probs of chosen tokens straight from hidden states: the logits of all positions never exist together.

With h a position's hidden state, W the head and p the softmax of W h, a token t has the log-prob W_t h - log Z, whose
gradient by h is W_t - p W. Of the whole vocabulary the backward pass needs p W alone, one vector per position, and a
frozen head lets the forward pass compute it chunk by chunk while the logits are there: the same products as a backward
pass through the logits, without keeping or recomputing any. (Liger's fused losses do the same with the gradient of a
loss; here the loss comes later, so the vector is kept instead.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from opadpo.errors import ModelError

CHUNK = 2**24
"""Logits that exist at once."""


class _ChosenLogps(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, sources: Tensor, targets: Tensor, chunk: int
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        norms, means = [], []
        for piece in hidden.split(max(1, chunk // len(weight))):
            logits = linear(piece, weight, bias).to(wide)
            largest = logits.amax(-1, keepdim=True)
            powers = logits.sub_(largest).exp_()
            total = powers.sum(-1, keepdim=True)
            norms.append((largest + total.log()).squeeze(-1))
            if ctx.needs_input_grad[0]:
                means.append(((powers.to(weight.dtype) @ weight).to(wide) / total).to(hidden.dtype))
        rows = weight[targets].to(wide)
        logps = (hidden[sources].to(wide) * rows).sum(-1) - torch.cat(norms)[sources]
        if bias is not None:
            logps += bias[targets]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(rows.to(weight.dtype), torch.cat(means), sources)
        return logps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, means, sources = ctx.saved_tensors
        shares = gradient.unsqueeze(-1) * (rows.to(gradient.dtype) - means[sources].to(gradient.dtype))
        by_position = torch.zeros(means.shape, dtype=gradient.dtype, device=means.device)
        return by_position.index_add_(0, sources, shares).to(means.dtype), None, None, None, None, None


def chosen_logps(hidden: Tensor, head: nn.Linear, sources: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-probs of tokens, float32 (float64 stays), with gradients by the hidden states alone.

    Args:
        hidden: (positions, width).
        head: frozen.
        sources: (tokens,): the position that predicts each token; several tokens may share one.
        targets: (tokens,): their ids.
        chunk: logits that exist at once.
    """
    return _ChosenLogps.apply(hidden, head.weight, head.bias, sources, targets, chunk)  # pyright: ignore[reportReturnType]


@contextmanager
def scoring(head: nn.Linear, sources: Tensor, targets: Tensor) -> Iterator[None]:
    """Inside, the model's head gives the log-probs of tokens in place of logits.

    They are computed within the model's own forward pass: what wraps it (sharding, autocast) is as for the logits.
    """
    found: list[Tensor] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        found.append(chosen_logps(inputs[0], head, sources, targets))
        return (inputs[0][:0],)

    handles = (
        head.register_forward_pre_hook(before),
        # Before the hooks of sharding: they have to see what is really given back, as its gradient tells them when the
        # weights are needed again.
        head.register_forward_hook(lambda *_: found.pop(), prepend=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def frozen_head(model: Any) -> nn.Linear:
    """The layer that makes a model's logits.

    Raises:
        ModelError: if it is trained, or no plain linear layer.
    """
    head = model.get_output_embeddings()
    # Sharding makes a subclass of the layer's class; one that computes something else has its own `forward`.
    if (
        getattr(type(head), "forward", None) is not nn.Linear.forward
        or head.weight.requires_grad
        or not head.weight.is_floating_point()
    ):
        raise ModelError(
            "Packed training needs a frozen linear head",
            seen=type(head).__name__ + ", trained" * head.weight.requires_grad,
            remedy="leave lm_head out of the adapter and of quantization, or set `packing` of the stage to false",
        )
    return head
