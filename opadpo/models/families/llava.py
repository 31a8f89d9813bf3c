"""LLaVA-1.5 (arXiv 2310.03744) as transformers holds it: CLIP tower, two-layer projector, Llama-like language model."""

from typing import TYPE_CHECKING, Any, ClassVar

from opadpo.errors import ModelError
from opadpo.models.families.base import BOS, Aspect, Family, Processing

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PROJECTOR_AND_TOWER = (
    r"(?:.*\.)?multi_modal_projector\.linear_[12]"
    r"|(?:.*\.)?vision_tower\.(?:.*\.)?(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
)
"""Linear layers of LLaVA's two-layer projector and of a CLIP or SigLIP tower."""


class Llava(Family):
    """LLaVA-1.5 and the tiny model of the toy world.

    The original tokenizes the text before and after the image apart (each as if it began a text, so the newline after
    the image gets Llama's leading space) and puts the image in between; so do we.
    """

    name: ClassVar[str] = "llava"
    templates: ClassVar[dict[str, str]] = {
        "vicuna_v1": f"{BOS}{VICUNA_SYSTEM} USER: <image>\n{{question}} ASSISTANT:",
        "toy": f"{BOS}USER: <image>\n{{question}} ASSISTANT:",
    }
    default_template: ClassVar[str] = "vicuna_v1"
    aspects: ClassVar[tuple[Aspect, ...]] = ("pad", "square", "native")
    # LLaVA's processor resizes and normalises as CLIP's does, which the hub's configs name, and can pad to a square.
    image_processor: ClassVar[str] = "transformers.models.llava.image_processing_pil_llava:LlavaImageProcessorPil"
    tower_linears: ClassVar[str] = PROJECTOR_AND_TOWER

    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """`pixel_values` (3, height, width), float32.

        `pad`: pad to a square with the mean colour, then resize (LLaVA-1.5 as released). `square`: resize the shorter
        side, then crop the centre. `native`: what the model's own preprocessor config says.
        """
        geometry: dict[str, Any] = {}
        if aspect != "native":
            side = processing.config.vision_config.image_size
            geometry = {
                "do_pad": aspect == "pad",
                "do_resize": True,
                "size": {"shortest_edge": side},
                "do_center_crop": True,
                "crop_size": {"height": side, "width": side},
            }
        batch = processing.image_processor(image, return_tensors="pt", **geometry)
        return {key: value[0] for key, value in batch.items()}

    def square_colour(self, processing: Processing, aspect: Aspect) -> tuple[int, int, int] | None:
        """The mean colour for `pad`: the hub's preprocessor configs, which servers follow, crop instead."""
        if aspect != "pad":
            return None
        red, green, blue = (int(mean * 255) for mean in processing.image_processor.image_mean)
        return red, green, blue

    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """Patches of the tower, and its class token if the model keeps it.

        Raises:
            ModelError: if the image processor makes another size than the tower takes.
        """
        vision = processing.config.vision_config
        height, width = model_inputs["pixel_values"].shape[-2:]
        if (height, width) != (vision.image_size, vision.image_size):
            raise ModelError(
                "The image processor's size does not fit the vision tower",
                seen=f"{height} x {width} pixels, the tower takes {vision.image_size} x {vision.image_size}",
                remedy="set image.aspect to pad or square, or use the preprocessor_config.json that belongs to the"
                " model",
            )
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches if processing.config.vision_feature_select_strategy == "default" else patches + 1

    def check_geometry(self, processing: Processing) -> None:
        """Check that the tower's image divides into patches.

        Raises:
            ModelError: if it does not.
        """
        side, patch = processing.config.vision_config.image_size, processing.config.vision_config.patch_size
        if side % patch:
            raise ModelError("The tower's image size is not a multiple of its patches", seen=f"{side}, {patch}")
