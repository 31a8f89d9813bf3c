"""What goes into the OPA-DPO loss: log-probs, weights and masks, and which rows take part in which pair."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from opadpo.errors import UserError
from opadpo.recipe.loss import LossConfig

PAIRS: dict[str, tuple[str, str]] = {
    "standard_pair": ("standard", "generated"),
    "revised_pair": ("revised", "generated"),
    "standard_image": ("standard", "standard_masked"),
    "revised_image": ("revised", "revised_masked"),
}
"""Chosen and rejected side of each pair, as names of `Logps`."""

RESPONSE_PAIRS: tuple[str, ...] = ("standard_pair", "revised_pair")
"""The pairs of two responses under the clean image; the others compare one response under two images."""

Values = dict[str, Tensor]


class Logps(NamedTuple):
    """Per-token log-probs of the responses, each (batch, length); 0 where a response has no token."""

    standard: Tensor
    revised: Tensor
    generated: Tensor
    standard_masked: Tensor | None = None
    revised_masked: Tensor | None = None

    @property
    def has_masked(self) -> bool:
        """Whether the log-probs under the masked image are there."""
        return self.standard_masked is not None


class Weights(NamedTuple):
    """Token weights, each (batch, length); 0 where a response has no token."""

    generated_score: Tensor
    revised_score: Tensor
    revised_image: Tensor


class Masks(NamedTuple):
    """Where the responses have tokens, each bool (batch, length)."""

    standard: Tensor
    revised: Tensor
    generated: Tensor


def real_tokens(policy: Logps, reference: Logps) -> Masks:
    """Positions whose log-prob is not exactly 0 in policy or reference."""
    return Masks(*((getattr(policy, name) != 0) | (getattr(reference, name) != 0) for name in Masks._fields))


def mask_of(response: str, masks: Masks) -> Tensor:
    """The mask of a response by its name in `Logps`; the masked image does not change where tokens are."""
    return getattr(masks, response.removesuffix("_masked"))


def rows_in(masks: Masks, weights: Weights) -> Values:
    """Which rows are in each pair, bool (batch,): both sides have tokens and not all weights are zero."""
    rows = {pair: mask_of(c, masks).any(-1) & mask_of(r, masks).any(-1) for pair, (c, r) in PAIRS.items()}
    rows["revised_pair"] &= ((weights.revised_score != 0) | (weights.generated_score != 0)).any(-1)
    rows["revised_image"] &= (weights.revised_image != 0).any(-1)
    return rows


_Tensors = TypeVar("_Tensors", Logps, Weights)


def at_least_float32(values: _Tensors) -> _Tensors:
    """The same values, half precision widened to float32; float64 stays."""
    wide = {
        name: value.to(torch.promote_types(value.dtype, torch.float32))
        for name, value in values._asdict().items()
        if value is not None
    }
    return values._replace(**wide)


def check_inputs(
    policy: Logps,
    reference: Logps,
    weights: Weights,
    config: LossConfig,
    masks: Masks | None,
    pad_to: int | None,
) -> None:
    """Raise a `UserError` where the inputs of the loss do not fit together."""
    shape = policy.standard.shape
    groups = {"policy": policy, "reference": reference, "weights": weights, "masks": masks}
    for group, values in groups.items():
        for name, value in values._asdict().items() if values else ():
            if value is not None and (value.shape != shape or value.dim() != 2):
                raise UserError(
                    f"{group}.{name} must be (batch, length) like policy.standard",
                    seen=f"{tuple(value.shape)} and {tuple(shape)}",
                    remedy="pad all responses of a batch to one length",
                )
    masked = [v is not None for one in (policy, reference) for v in (one.standard_masked, one.revised_masked)]
    if any(masked) and not all(masked):
        raise UserError(
            "Log-probs under the masked image are there for some responses only",
            seen=f"policy and reference, standard and revised: {masked}",
            remedy="give standard_masked and revised_masked for policy and reference, or none of the four",
        )
    if config.image_coef > 0 and not all(masked):
        raise UserError(
            "The image terms need log-probs under the masked image",
            seen=f"image_coef = {config.image_coef}, no masked log-probs",
            remedy="give standard_masked and revised_masked, or set image_coef to 0",
        )
    if pad_to is not None and shape[1] > pad_to:
        raise UserError(
            "A batch is longer than pad_to",
            seen=f"length {shape[1]}, pad_to {pad_to}",
            remedy="raise pad_to, or drop responses that are longer",
        )
