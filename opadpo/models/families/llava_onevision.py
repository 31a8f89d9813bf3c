"""LLaVA-OneVision (arXiv 2408.03326) as transformers holds it: SigLIP tower, tiles, Qwen2."""

import math
from typing import ClassVar

from opadpo.models.families.base import Processing
from opadpo.models.families.tiled import Tiled


class LlavaOnevision(Tiled):
    """LLaVA-OneVision."""

    name: ClassVar[str] = "llava_onevision"
    templates: ClassVar[dict[str, str]] = {
        # The chat template of the hub's llava-onevision-qwen2-*-hf: no system prompt, a space after the role.
        "onevision": "<|im_start|>user <image>\n{question}<|im_end|><|im_start|>assistant\n",
        # As the original code prompts it.
        "qwen_1_5": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n{question}"
        "<|im_end|>\n<|im_start|>assistant\n",
    }
    default_template: ClassVar[str] = "onevision"
    stops: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>")
    image_processor: ClassVar[str] = (
        "transformers.models.llava_onevision.image_processing_pil_llava_onevision:LlavaOnevisionImageProcessorPil"
    )

    def shrunk(self, processing: Processing, height: int, width: int) -> tuple[int, int]:
        """Where the tiles have more features than `anyres_max_N` allows, the model scales them down to about that."""
        vision = processing.config.vision_config
        most = int(processing.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(height * width / (most * (vision.image_size // vision.patch_size) ** 2))
        return (int(height // ratio), int(width // ratio)) if ratio > 1.1 else (height, width)
