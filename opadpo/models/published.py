"""Sizes of the base models that the package's recipes name, for plans made where neither weights nor hub are at hand.

Each is what the `config.json` of the model's repository on the hub says, as far as it is not what transformers assumes
for that kind of model anyway; their sums are checked against the published numbers of parameters.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opadpo.errors import ModelError
from opadpo.models.base import TOY, BasePin, read_config, toy_folder
from opadpo.models.families import family_for
from opadpo.models.families.base import Processing

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from opadpo.recipe import Recipe


class Published(NamedTuple):
    """A model on the hub."""

    family: str
    """`model_type`."""
    parameters: float
    """Number of parameters on the model's page on the hub, in billions."""
    text: dict[str, Any]
    """Settings of the language model."""
    vision: dict[str, Any]
    """Settings of the tower; none: what transformers assumes."""
    processor: dict[str, Any]
    """Settings of the image processor."""

    def config(self) -> "PreTrainedConfig":
        """The model's config."""
        from transformers import CONFIG_MAPPING

        settings: dict[str, Any] = {"text_config": _typed(self.family, self.text)}
        if self.vision:
            settings["vision_config"] = self.vision
        return CONFIG_MAPPING[self.family](**settings)


QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
"""Qwen2 technical report (arXiv 2407.10671), table 1; Qwen2.5 has the same."""
CLIP_L_336: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "model_type": "clip_vision_model",
}
"""openai/clip-vit-large-patch14-336, the tower of LLaVA-1.5 (arXiv 2310.03744, section 3)."""
VICUNA = {"vocab_size": 32064, "max_position_embeddings": 4096}
"""The conversion to transformers pads Vicuna's 32,000 tokens."""

PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": Published("llava", 7.06, VICUNA, CLIP_L_336, {}),
    "llava-hf/llava-1.5-13b-hf": Published(
        "llava",
        13.35,
        {
            **VICUNA,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
        },
        CLIP_L_336,
        {},
    ),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": Published(
        "llava_onevision", 8.03, {**QWEN2_7B, "vocab_size": 152000, "max_position_embeddings": 32768}, {}, {}
    ),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published(
        "qwen2_5_vl",
        8.29,
        {**QWEN2_7B, "vocab_size": 152064, "max_position_embeddings": 128000},
        {"hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "depth": 32},
        {"max_pixels": 12845056},
    ),
    "Qwen/Qwen3-VL-8B-Instruct": Published(
        "qwen3_vl",
        8.77,
        {
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
        },
        {"hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 4096, "depth": 27},
        {"patch_size": 16, "max_pixels": 16777216},
    ),
}
"""By hub id."""

TEXT_TYPES = {"llava": "llama", "llava_onevision": "qwen2"}
"""Families whose language model may be of several kinds -> the kind that the models above have."""


def _typed(family: str, text: dict[str, Any]) -> dict[str, Any]:
    return {**text, "model_type": TEXT_TYPES[family]} if family in TEXT_TYPES else text


def planned_processing(recipe: "Recipe") -> Processing:
    """Config and image processor of the recipe's base without its weights: its own files, else as published above.

    Raises:
        ModelError: if neither is there.
        UserError: if the family has no such prompt template or image geometry.
    """
    from opadpo.models.loading import load_processing

    known = PUBLISHED.get(recipe.model.base)
    folder = _folder(recipe)
    if folder is not None and (folder / "config.json").is_file():
        family = str(read_config(folder / "config.json").get("model_type", ""))
        pin = BasePin(base=recipe.model.base, revision="", path=str(folder), digest="", family=family_for(family).name)
        try:
            return load_processing(pin, recipe)
        except ModelError:
            if known is None:
                raise
    if known is None:
        raise ModelError(
            "The base model's config is not on this machine, and its sizes are not among those known without it",
            seen=recipe.model.base,
            remedy=f"run `opadpo prepare`, or fetch its small files alone: hf download {recipe.model.base}"
            " --include '*.json' '*.txt'",
        )
    family = family_for(known.family)
    family.check_aspect(recipe.image.aspect)
    processor = family.load_image_processor(known.processor)
    return Processing(family, None, processor, known.config(), recipe.prompt.template, recipe.image.aspect)


def _folder(recipe: "Recipe") -> Path | None:
    base = recipe.model.base
    if base == TOY:
        return toy_folder()
    if Path(base).expanduser().is_dir():
        return Path(base).expanduser()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(base, "config.json", revision=recipe.model.revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None
