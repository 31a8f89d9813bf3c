"""LLaVA-NeXT (LLaVA-1.6) as transformers holds it: CLIP tower, tiles, Mistral, Vicuna or Yi."""

from typing import Any, ClassVar

from opadpo.errors import UserError
from opadpo.models.families.base import BOS, Processing
from opadpo.models.families.llava import VICUNA_SYSTEM
from opadpo.models.families.tiled import Tiled

HUMAN_SYSTEM = VICUNA_SYSTEM.replace("user", "human")


class LlavaNext(Tiled):
    """LLaVA-NeXT; the names of the templates are those of the original code.

    As there, the text before and after the image is tokenized apart.
    """

    name: ClassVar[str] = "llava_next"
    templates: ClassVar[dict[str, str]] = {
        "mistral_instruct": f"{BOS}[INST] <image>\n{{question}} [/INST]",
        "llava_v1": f"{BOS}{HUMAN_SYSTEM} USER: <image>\n{{question}} ASSISTANT:",  # Vicuna, in its model card
        "vicuna_v1": f"{BOS}{VICUNA_SYSTEM} USER: <image>\n{{question}} ASSISTANT:",  # the same, as trained
        # Yi's tokenizer begins a text with nothing.
        "chatml_direct": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n{question}"
        "<|im_end|><|im_start|>assistant\n",
    }
    image_processor: ClassVar[str] = (
        "transformers.models.llava_next.image_processing_pil_llava_next:LlavaNextImageProcessorPil"
    )

    def own_template(self, tokenizer: Any, config: Any) -> str:
        """By the language model: the checkpoints differ, and nothing in their configs names the template.

        Raises:
            UserError: for a language model that none of the templates is known to belong to.
        """
        text, vocabulary = config.text_config.model_type, tokenizer.get_vocab()
        if text == "mistral":
            return "mistral_instruct"
        if text == "llama" and "<|im_start|>" in vocabulary:
            return "chatml_direct"
        if text == "llama" and "<|start_header_id|>" not in vocabulary:
            return "llava_v1"
        raise UserError(
            "prompt.template auto cannot tell which template this LLaVA-NeXT was trained with",
            seen=f"a language model of type {text}",
            remedy=f"set prompt.template to one of: {', '.join(sorted(self.templates))}",
        )

    def stop_token_ids(self, processing: Processing) -> list[int]:
        """The end-of-sequence id; before it the end of a turn where the template has one."""
        turn_end, ids = "<|im_end|>", super().stop_token_ids(processing)
        if turn_end not in self.templates[processing.template]:
            return ids
        return list(dict.fromkeys([processing.tokenizer.convert_tokens_to_ids(turn_end), *ids]))
