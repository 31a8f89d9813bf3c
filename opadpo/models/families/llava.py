"""LLaVA-1.5 (arXiv 2310.03744) as transformers holds it: CLIP tower, two-layer projector, Llama-like language model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from opadpo.errors import ModelError
from opadpo.models.families.base import Aspect, Family, Processing, Targets

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LANGUAGE_LINEARS = r"(?:.*\.)?language_model\.(?:.*\.)?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
OTHER_LINEARS = (
    r"(?:.*\.)?multi_modal_projector\.linear_[12]"
    r"|(?:.*\.)?vision_tower\.(?:.*\.)?(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
)


class Llava(Family):
    """LLaVA-1.5 and the tiny model of the toy world."""

    name: ClassVar[str] = "llava"
    templates: ClassVar[dict[str, str]] = {
        "vicuna_v1": f"{VICUNA_SYSTEM} USER: <image>\n{{question}} ASSISTANT:",
        "toy": "USER: <image>\n{question} ASSISTANT:",
    }
    default_template: ClassVar[str] = "vicuna_v1"

    def load_image_processor(self, config: dict[str, Any]) -> Any:
        """LLaVA's PIL processor: it resizes and normalises as CLIP's does and can pad to a square besides."""
        from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

        labels = ("image_processor_type", "processor_class", "feature_extractor_type")
        return LlavaImageProcessorPil(**{key: value for key, value in config.items() if key not in labels})

    def join_chunks(self, processing: Processing, chunks: Sequence[Sequence[int]]) -> list[int]:
        """Begin-of-sequence first, then the chunks with the image token between them.

        The original tokenizes the text before and after the image apart (each as if it began a text, so the newline
        after the image gets Llama's leading space) and puts the image in between; so do we.
        """
        before, after = chunks
        return [processing.tokenizer.bos_token_id, *before, self.image_token_id(processing), *after]

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

    def image_token_id(self, processing: Processing) -> int:
        """From the model's config."""
        return processing.config.image_token_id

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

    def stop_token_ids(self, processing: Processing) -> list[int]:
        """The end-of-sequence id."""
        return [processing.tokenizer.eos_token_id]

    def lora_targets(self, targets: Targets) -> str:
        """Linear layers of the language model's blocks; `all`: those of projector and tower as well; never lm_head."""
        return LANGUAGE_LINEARS if targets == "language" else f"{LANGUAGE_LINEARS}|{OTHER_LINEARS}"

    def check(self, processing: Processing) -> None:
        """Compare tokenizer and image processor with the model's config.

        Raises:
            ModelError: naming the first thing that does not fit.
        """
        tokenizer, config = processing.tokenizer, processing.config
        remedy = "use the tokenizer and processor files that belong to the model"
        for label, value in (
            ("begin-of-sequence", tokenizer.bos_token_id),
            ("end-of-sequence", tokenizer.eos_token_id),
        ):
            if value is None:
                raise ModelError(f"The tokenizer has no {label} token", seen=tokenizer.name_or_path, remedy=remedy)
        token_id = tokenizer.convert_tokens_to_ids(self.image_placeholder)
        if token_id != config.image_token_id:
            raise ModelError(
                "The tokenizer's image token is not the model's",
                seen=f"{self.image_placeholder} is {token_id}, image_token_index is {config.image_token_id}",
                remedy=remedy,
            )
        rows = config.text_config.vocab_size
        if len(tokenizer) > rows:
            raise ModelError(
                "The tokenizer has more tokens than the model has embeddings",
                seen=f"{len(tokenizer)} tokens, {rows} embeddings",
                remedy=remedy,
            )
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        if side % patch:
            raise ModelError("The tower's image size is not a multiple of its patches", seen=f"{side}, {patch}")
