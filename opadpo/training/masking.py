"""The masked image of the image pairs: random pixels, or whole patches, replaced by the image's mean.

As released: drawn after preprocessing, value = mean over all channels in the tensor's own dtype, the number of places
cut off (not rounded). Unlike there, the places depend on a seed alone: not on batch, rank, device or dtype.
"""

from typing import Literal

import torch
from torch import Tensor

from opadpo.errors import UserError


def mask_image(
    pixel_values: Tensor,
    ratio: float,
    mode: Literal["pixels", "patches"] = "pixels",
    patch: int = 14,
    *,
    seed: int,
) -> Tensor:
    """A copy of `pixel_values` (channels, height, width) with a share of its places set to its mean.

    `pixels` masks int(height * width * ratio) places; `patches` masks int(rows * columns * ratio) whole blocks of
    `patch` x `patch`. A place is masked in all channels. A seed per example and epoch comes from
    `opadpo.hashing.derive_seed(seed, example_id, epoch)`.

    Raises:
        UserError: for another shape, an integer image, a ratio outside 0 to 1, or sides that are no multiple of
            `patch`.
    """
    if pixel_values.dim() != 3 or not pixel_values.is_floating_point():
        raise UserError(
            "Only one preprocessed image (channels, height, width) of floats can be masked",
            seen=f"{pixel_values.dtype} of shape {tuple(pixel_values.shape)}",
            remedy="mask each image by itself, after the image processor",
        )
    if not 0 <= ratio <= 1:
        raise UserError("The masked share is outside 0 to 1", seen=ratio, remedy="set masking.ratio, for example 0.3")
    height, width = pixel_values.shape[1:]
    if mode == "patches":
        if height % patch or width % patch:
            raise UserError(
                "The image does not divide into patches",
                seen=f"{height} x {width} with patches of {patch}",
                remedy='set masking.mode to "pixels", or patch to a divisor of both sides',
            )
        blocks = _draw(height // patch, width // patch, ratio, seed)
        masked = blocks.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    else:
        masked = _draw(height, width, ratio, seed)
    return torch.where(masked.to(pixel_values.device), pixel_values.mean(), pixel_values)


def _draw(rows: int, columns: int, ratio: float, seed: int) -> Tensor:
    """Bool (rows, columns) with int(rows * columns * ratio) true places, drawn on the CPU."""
    total = rows * columns
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: int(total * ratio)]
    return torch.zeros(total, dtype=torch.bool).index_fill_(0, chosen, True).view(rows, columns)
