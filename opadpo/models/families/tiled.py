"""What LLaVA-NeXT and LLaVA-OneVision share: an overview of the image, and a grid of tiles with its details."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from opadpo.models.families.base import Aspect, Family, Processing, same_geometry
from opadpo.models.families.llava import PROJECTOR_AND_TOWER

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Tiled(Family):
    """Images of any shape, as tiles (tiles, 3, side, side) of the tower's size; how many depends on the shape."""

    tower_linears: ClassVar[str] = PROJECTOR_AND_TOWER

    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """`pixel_values` (tiles, 3, side, side), the overview first; `image_sizes` (height, width); and what else."""
        batch = processing.image_processor(image, return_tensors="pt")
        return {key: value[0] for key, value in batch.items()}

    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """Features of the overview, and of the tiles without what pads them, with one more at the end of each row.

        The arithmetic is the model's own functions', on a tensor without memory.
        """
        import torch
        from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

        config, vision = processing.config, processing.config.vision_config
        size = model_inputs["image_sizes"].tolist()
        side = vision.image_size // vision.patch_size
        rows, columns = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, vision.image_size)
        whole = torch.empty((1, rows * side, columns * side), device="meta")
        height, width = self.shrunk(processing, *unpad_image(whole, size).shape[1:])
        return side * side + height * (width + 1)

    def shrunk(self, processing: Processing, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of features that are left of the tiles'."""
        return height, width

    def batch_images(self, key: str, values: "Sequence[Tensor]") -> "Tensor":
        """Images with fewer tiles are filled up with zeros, which the model cuts off again (as in transformers)."""
        import torch

        if key != "pixel_values":
            return super().batch_images(key, values)
        return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True)

    def pixels(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> "Tensor":
        """All tiles, one below the other; pixels at a tile's edge that fill no patch are left out, as in the tower."""
        tiles = self._whole_patches(processing, model_inputs["pixel_values"])
        return tiles.transpose(0, 1).flatten(1, 2)

    def with_pixels(
        self, processing: Processing, model_inputs: "dict[str, Tensor]", pixels: "Tensor"
    ) -> "dict[str, Tensor]":
        """The same tiles with other pixels."""
        tiles = model_inputs["pixel_values"].clone()
        seen = self._whole_patches(processing, tiles)
        seen.copy_(pixels.unflatten(1, (seen.shape[0], seen.shape[2])).transpose(0, 1))
        return model_inputs | {"pixel_values": tiles}

    def _whole_patches(self, processing: Processing, tiles: "Tensor") -> "Tensor":
        patch = self.patch_size(processing)
        height, width = (length // patch * patch for length in tiles.shape[-2:])
        return tiles[..., :height, :width]

    def check_geometry(self, processing: Processing) -> None:
        """Compare the image processor's tiles with the tower's image and the model's grids.

        Raises:
            ModelError: if they differ.
        """
        processor, config = processing.image_processor, processing.config
        size = processor.crop_size if processor.do_center_crop else processor.size
        side = size.get("height") or size.get("shortest_edge")
        same_geometry(
            {
                "tile size": (side, config.vision_config.image_size),
                "image_grid_pinpoints": (
                    sorted(map(list, processor.image_grid_pinpoints)),
                    sorted(map(list, config.image_grid_pinpoints)),
                ),
            }
        )
