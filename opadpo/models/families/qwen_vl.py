"""What the Qwen-VL models share: images of any shape as one list of patches, and positions on three axes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from opadpo.models.families.base import Aspect, Family, Processing, same_geometry

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

TURN = "<|im_start|>user\n<|vision_start|><image><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
"""A question and the beginning of its answer, as the chat templates of all Qwen-VL models write it."""
HELPFUL = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
"""The system prompt that the chat templates of Qwen2-VL and Qwen2.5-VL put before a conversation without one."""


LONGEST = 200
"""Times that an image may be longer than wide (`smart_resize` of transformers)."""


class QwenVL(Family):
    """A Qwen-VL model. `pixel_values` (patches, values of a patch), in the order in which the model merges them."""

    image_token: ClassVar[str] = "<|image_pad|>"
    stops: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    image_processor: ClassVar[str] = (
        "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil"
    )
    tower_linears: ClassVar[str] = (
        r"(?:.*\.)?visual\.(?:.*\.)?"
        r"(?:attn\.qkv|attn\.proj|fc1|fc2|gate_proj|up_proj|down_proj|linear_fc1|linear_fc2|merger\.mlp\.[02])"
    )

    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """`pixel_values` (patches, values of a patch) and `image_grid_thw` (3,): frames, rows, columns.

        The processor refuses images that are 200 times as long as they are wide; ours are made a little wider.
        """
        least = -(-max(image.size) // LONGEST)
        if min(image.size) < least:
            image = image.resize((max(image.width, least), max(image.height, least)))
        batch = processing.image_processor(image, return_tensors="pt")
        return {**batch, "image_grid_thw": batch["image_grid_thw"][0]}

    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """One position for each square of merged patches."""
        return int(model_inputs["image_grid_thw"].prod()) // processing.image_processor.merge_size**2

    def batch_images(self, key: str, values: "Sequence[Tensor]") -> "Tensor":
        """Patches of all images in one list; the grids tell them apart."""
        import torch

        return torch.cat(list(values)) if key == "pixel_values" else super().batch_images(key, values)

    def sequence_inputs(self, processing: Processing, input_ids: "Tensor") -> "dict[str, Tensor]":
        """`mm_token_type_ids`: 1 at the image. Without it Qwen2.5-VL silently counts on as if the image were text."""
        return {"mm_token_type_ids": (input_ids == self.image_token_id(processing)).int()}

    def position_ids(
        self, model: Any, input_ids: "Tensor", attention_mask: "Tensor", inputs: "dict[str, Tensor]"
    ) -> "Tensor":
        """(3, rows, length): time, height and width, from the model itself. Text has the same on all three.

        The model would compute them too, but it keeps what it needs for the tokens after the prompt to itself, where
        rows that leave the batch are not noticed.
        """
        owner = next(module for module in model.modules() if hasattr(module, "get_rope_index"))
        positions, _ = owner.get_rope_index(
            input_ids,
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            attention_mask=attention_mask,
        )
        return positions

    def pixels(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> "Tensor":
        """The image (channels, height, width), put together from its patches; every patch holds it twice, in time."""
        patches = self._squares(processing, model_inputs)[:, :, :, :, :, 0]
        rows, columns, merge, _, channels, patch, _ = patches.shape
        return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(channels, rows * merge * patch, columns * merge * patch)

    def with_pixels(
        self, processing: Processing, model_inputs: "dict[str, Tensor]", pixels: "Tensor"
    ) -> "dict[str, Tensor]":
        """The same grid of patches with other pixels."""
        squares = self._squares(processing, model_inputs)
        rows, columns, merge, _, channels, _, patch, _ = squares.shape
        image = pixels.reshape(channels, rows, merge, patch, columns, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
        patches = image.unsqueeze(5).expand_as(squares)
        return model_inputs | {"pixel_values": patches.reshape(model_inputs["pixel_values"].shape)}

    def _squares(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> "Tensor":
        """Patches as (rows, columns, merge, merge, channels, times, patch, patch); rows and columns are of squares."""
        processor = processing.image_processor
        merge, patch, times = processor.merge_size, processor.patch_size, processor.temporal_patch_size
        _, rows, columns = model_inputs["image_grid_thw"].tolist()
        shape = (rows // merge, columns // merge, merge, merge, -1, times, patch, patch)
        return model_inputs["pixel_values"].view(shape)

    def check_geometry(self, processing: Processing) -> None:
        """Compare the image processor's patches with the tower's.

        Raises:
            ModelError: if they differ.
        """
        processor, vision = processing.image_processor, processing.config.vision_config
        same_geometry(
            {
                "patch_size": (processor.patch_size, vision.patch_size),
                "temporal_patch_size": (processor.temporal_patch_size, vision.temporal_patch_size),
                "merge_size": (processor.merge_size, vision.spatial_merge_size),
            }
        )
