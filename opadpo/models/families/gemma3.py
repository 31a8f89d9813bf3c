"""Gemma 3 (arXiv 2503.19786) as transformers holds it: SigLIP tower, a fixed number of tokens for every image.

The family beside LLaVA and Qwen-VL because it is the most used other open model with images in transformers 5 that is
small enough to be trained by everyone, and the one that differs most in what a family must answer: image tokens see
each other in both directions, and most layers see a sliding window only.
"""

from typing import TYPE_CHECKING, ClassVar

from opadpo.models.families.base import Aspect, Family, Processing, same_geometry

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Gemma3(Family):
    """Gemma 3 with images (4B and larger)."""

    name: ClassVar[str] = "gemma3"
    templates: ClassVar[dict[str, str]] = {
        "gemma": "<bos><start_of_turn>user\n\n\n<start_of_image><image><end_of_image>\n\n{question}<end_of_turn>\n"
        "<start_of_turn>model\n",
    }
    default_template: ClassVar[str] = "gemma"
    image_token: ClassVar[str] = "<image_soft_token>"
    stops: ClassVar[tuple[str, ...]] = ("<end_of_turn>",)
    image_processor: ClassVar[str] = "transformers.models.gemma3.image_processing_pil_gemma3:Gemma3ImageProcessorPil"
    image_sees_itself: ClassVar[bool] = True
    tower_linears: ClassVar[str] = r"(?:.*\.)?vision_tower\.(?:.*\.)?(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"

    def text_ids(self, processing: Processing, question: str) -> list[int]:
        """The chat template takes white space off both ends of a question."""
        return super().text_ids(processing, question.strip())

    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """`pixel_values` (3, side, side): the whole image, whatever its shape, scaled to the tower's square.

        Pan and scan, which adds crops to the prompt, is off, as in transformers. So `num_crops`, which tells the
        library's processor how to write the prompt, is always 0; the model does not take it.
        """
        batch = processing.image_processor(image, return_tensors="pt", do_pan_and_scan=False)
        return {"pixel_values": batch["pixel_values"][0]}

    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """The same for every image."""
        return processing.config.mm_tokens_per_image

    def sequence_inputs(self, processing: Processing, input_ids: "Tensor") -> "dict[str, Tensor]":
        """`token_type_ids`: 1 at the image. Without it image tokens see only those before them."""
        return {"token_type_ids": (input_ids == self.image_token_id(processing)).int()}

    def check_geometry(self, processing: Processing) -> None:
        """Compare the image processor's size with the tower's.

        Raises:
            ModelError: if they differ.
        """
        size, side = processing.image_processor.size, processing.config.vision_config.image_size
        same_geometry({"size": ((size["height"], size["width"]), (side, side))})
