"""Random models of the families beside LLaVA-1.5, of the real architectures, small enough to make in a test run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tiny_llava import SENTENCES

WIDTH = 32
SIDE = 30
"""Side of the towers' images, no multiple of `PATCH`, as 384 is none of 14."""
PATCH = 7
GRIDS = [[SIDE * rows, SIDE * columns] for rows in range(1, 5) for columns in range(1, 5)]
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}
TOWER: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
QWEN_TOWER: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


class Tiny(NamedTuple):
    """How to make a tiny model of a family."""

    specials: list[str]
    """Special tokens beside padding."""
    named: dict[str, str]
    """Which of them are the tokenizer's own, as `bos_token`."""
    config: Callable[[Any], Any]
    """The model's config, for a tokenizer."""
    processor: Callable[[], Any]
    """The image processor."""


def make_tokenizer(tiny: Tiny):
    """Byte-level BPE with a family's special tokens; the Llama-like ones give a text a leading space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    llama = "bos_token" in tiny.named and "<start_of_turn>" not in tiny.specials
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=llama)
    byte_level = decoders.ByteLevel()
    tokenizer.decoder = decoders.Sequence([byte_level, decoders.Strip(" ", 1, 0)]) if llama else byte_level
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", *tiny.specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", clean_up_tokenization_spaces=False, **tiny.named
    )


def make_model(tiny: Tiny, tokenizer, *, seed: int = 0):
    """Weights large enough that responses depend on image, prompt and positions."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(tiny.config(tokenizer))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
    return model.eval()


def save(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write model, tokenizer and image processor as the hub's repositories have them."""
    tiny = TINY[name]
    tokenizer = make_tokenizer(tiny)
    make_model(tiny, tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


def _ids(tokenizer: Any, **names: str) -> dict[str, int]:
    return {f"{key}_id": tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def _llava_next(tokenizer: Any) -> Any:
    from transformers import CLIPVisionConfig, LlavaNextConfig, MistralConfig

    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, projection_dim=WIDTH),
        text_config=MistralConfig(**TEXT, vocab_size=len(tokenizer), sliding_window=None),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=GRIDS,
        vision_feature_layer=-1,
    )


def _llava_next_processor() -> Any:
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    crop = {"height": SIDE, "width": SIDE}
    return LlavaNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=crop, image_grid_pinpoints=GRIDS)


def _llava_onevision(tokenizer: Any) -> Any:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**TOWER, vision_use_head=False),
        text_config=Qwen2Config(**TEXT, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRIDS,
    )


def _llava_onevision_processor() -> Any:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    return LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRIDS)


def _qwen(name: str) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        from transformers import AutoConfig

        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
        vision: dict[str, Any] = {
            "qwen2_vl": {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
            "qwen2_5_vl": {
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "out_hidden_size": WIDTH,
                "window_size": 16,
                "fullatt_block_indexes": [1],
            },
            "qwen3_vl": {
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "out_hidden_size": WIDTH,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
        }[name]
        return AutoConfig.for_model(
            name,
            text_config={
                **TEXT,
                "vocab_size": len(tokenizer),
                "rope_parameters": rope,
                "head_dim": 16,
                **_ids(tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"),
            },
            vision_config={**QWEN_TOWER, **vision},
            **_ids(
                tokenizer,
                image_token="<|image_pad|>",
                video_token="<|video_pad|>",
                vision_start_token="<|vision_start|>",
                vision_end_token="<|vision_end|>",
            ),
        )

    return config


def _qwen_processor() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 16 * 16, "longest_edge": 56 * 56})


def _gemma3(tokenizer: Any) -> Any:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

    text = Gemma3TextConfig(
        **TEXT,
        vocab_size=len(tokenizer),
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"],
    )
    return Gemma3Config(
        text_config=text,
        vision_config=SiglipVisionConfig(**{**TOWER, "image_size": 28}, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
    )


def _gemma3_processor() -> Any:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    return Gemma3ImageProcessorPil(size={"height": 28, "width": 28})


QWEN_SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|im_end|>",
]
GEMMA_SPECIALS = [
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<end_of_turn>",
]
TINY = {
    "llava_next": Tiny(
        ["<s>", "<image>", "</s>"], {"bos_token": "<s>", "eos_token": "</s>"}, _llava_next, _llava_next_processor
    ),
    "llava_onevision": Tiny(
        ["<|endoftext|>", "<|im_start|>", "<image>", "<video>", "<|im_end|>"],
        {"eos_token": "<|im_end|>"},
        _llava_onevision,
        _llava_onevision_processor,
    ),
    **{
        name: Tiny(QWEN_SPECIALS, {"eos_token": "<|im_end|>"}, _qwen(name), _qwen_processor)
        for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
    },
    "gemma3": Tiny(GEMMA_SPECIALS, {"bos_token": "<bos>", "eos_token": "<eos>"}, _gemma3, _gemma3_processor),
}
"""By `model_type`."""
