"""How likely a model finds responses, one number each."""

from typing import TYPE_CHECKING

import torch

from opadpo.training.collate import Collator, Visit
from opadpo.training.logps import response_logps

if TYPE_CHECKING:
    from torch import nn

BATCH = 8
"""Examples that are scored together."""


@torch.no_grad()
def mean_logps(model: "nn.Module", collator: Collator) -> dict[str, list[float]]:
    """Response -> mean log-prob per token of every example that has one, in nats.

    Args:
        model: the base, or the base with an adapter; it computes in eval mode and stays as it was.
        collator: with the examples and the names of their responses, each in a sequence of its own.
    """
    found: dict[str, list[float]] = {name: [] for name in collator.names}
    training, parameter = model.training, next(model.parameters())
    model.eval()
    for first in range(0, len(collator.examples), BATCH):
        visits = [Visit(place, 0) for place in range(first, min(first + BATCH, len(collator.examples)))]
        batch = collator(visits).placed(parameter.device, parameter.dtype)
        logps = response_logps(model, batch.sequences).view(len(collator.names), len(visits), -1)
        for name, values in zip(collator.names, logps, strict=True):
            tokens = batch.masks[name].sum(-1)
            means = values.double().sum(-1) / tokens.clamp(min=1)
            found[name] += means[tokens > 0].tolist()
    model.train(training)
    return found
