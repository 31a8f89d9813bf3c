"""Loading a pinned base model and its processors: never remote code, never pickles."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.errors import DependencyMissing, ModelError
from opadpo.models.base import BasePin, read_config
from opadpo.models.families import family_for
from opadpo.models.families.base import Processing
from opadpo.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_processing(pin: BasePin, recipe: Recipe) -> Processing:
    """Tokenizer and image processor of the base, checked against the model's config; no weights are read.

    Raises:
        ModelError: if they are missing, damaged, or do not fit the model.
        UserError: if the family has no such prompt template or image geometry.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(pin.path)
    family = family_for(pin.family)
    family.check_aspect(recipe.image.aspect)
    family.check_aspect(recipe.train.opa.image_aspect, "train.opa.image_aspect")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        image_processor = family.load_image_processor(_image_processor_config(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "The base model's config, tokenizer or image processor cannot be read",
            seen=f"{folder}: {error}",
            remedy="fetch the model again",
        ) from error
    processing = Processing(
        family=family,
        tokenizer=tokenizer,
        image_processor=image_processor,
        config=config,
        template=family.template_name(recipe.prompt.template, tokenizer, config),
        aspect=recipe.image.aspect,
    )
    family.check(processing)
    _probe_processor(processing)
    return processing


def load_model(pin: BasePin, recipe: Recipe, *, training: bool = False) -> "PreTrainedModel":
    """The base model on its device, in eval mode, every parameter frozen.

    Args:
        pin: what `read_pin` returned.
        recipe: its `model` section says dtype, attention, quantization and device.
        training: switch the key-value cache off, as training needs it.

    Raises:
        ModelError: if weights are missing, damaged, or do not fit config or image processor.
        DependencyMissing: if the attention kernel, bitsandbytes or the device is not there.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    section = recipe.model
    device = choose_device(section.device)
    options: dict[str, Any] = {"attn_implementation": _checked_attention(section.attention, device)}
    if section.quantization != "none":
        options["quantization_config"] = _quantization(section.quantization, section.dtype, device)
    if device.type == "cuda":
        options["device_map"] = {"": device}
    try:
        with _quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                pin.path,
                dtype=section.dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "out of memory" in str(error):
            raise
        raise ModelError(
            "The base model's weights cannot be loaded", seen=f"{pin.path}: {error}", remedy="fetch the model again"
        ) from error
    model, report = loaded
    _check_report(report, pin)
    if device.type != "cuda":
        model = model.to(device)
    model.eval().requires_grad_(False)
    model.config.use_cache = not training
    _probe_model(model, load_processing(pin, recipe))
    return model


def choose_device(wanted: str) -> "torch.device":
    """The device of this process: with several processes each takes the GPU of its local rank.

    Raises:
        DependencyMissing: if a GPU is asked for and there is none.
    """
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = f"torch {torch.__version__} is built " + (
            f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        )
        raise DependencyMissing(
            "model.device is cuda, but there is no CUDA GPU that torch can use",
            seen=build,
            remedy="set model.device to auto or cpu, or run this on a node with a GPU and a CUDA build of torch",
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _checked_attention(kernel: str, device: "torch.device") -> str:
    if kernel != "flash_attention_2":
        return kernel
    from transformers.utils import is_flash_attn_2_available

    if device.type != "cuda" or not is_flash_attn_2_available():
        raise DependencyMissing(
            "model.attention is flash_attention_2, which cannot be used here",
            seen=f"device {device.type}, flash-attn {'found' if is_flash_attn_2_available() else 'not found'}",
            remedy="install flash-attn on a node with a CUDA GPU, or set model.attention to sdpa",
        )
    return kernel


def _quantization(bits: str, dtype: str, device: "torch.device") -> Any:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if device.type != "cuda":
        raise DependencyMissing(
            f"model.quantization {bits} needs a CUDA GPU",
            seen=f"device {device.type}",
            remedy="set model.quantization to none, or run this on a node with a GPU",
        )
    if find_spec("bitsandbytes") is None:
        raise DependencyMissing(
            f"model.quantization {bits} needs the package bitsandbytes",
            seen="not installed",
            remedy="pip install bitsandbytes, or set model.quantization to none",
        )
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of transformers' own among ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _image_processor_config(folder: Path) -> dict[str, Any]:
    """From `preprocessor_config.json`, or the part of `processor_config.json` that newer releases write."""
    own = folder / "preprocessor_config.json"
    if own.is_file():
        return read_config(own)
    config = read_config(folder / "processor_config.json").get("image_processor")
    if not isinstance(config, dict):
        raise ModelError(
            "The base model has no image processor config",
            seen=folder / "processor_config.json",
            remedy="save the model's processor into its folder with save_pretrained()",
        )
    return config


def _probe_processor(processing: Processing) -> None:
    """Encode a small picture: a processor that does not fit the model fails here, before any weights load."""
    from PIL import Image

    processing.encode("Probe.", Image.new("RGB", (40, 30)))


def _probe_model(model: "PreTrainedModel", processing: Processing) -> None:
    """Compare the number of image features with the number of image tokens in the prompt."""
    import torch
    from PIL import Image

    prompt = processing.encode("Probe.", Image.new("RGB", (40, 30)))
    batch = processing.family.collate_model_inputs([prompt.model_inputs])
    batch = {
        key: value.to(model.device, model.dtype if value.is_floating_point() else None) for key, value in batch.items()
    }
    with torch.inference_mode():
        features: Any = model.get_image_features(**batch)  # pyright: ignore[reportCallIssue]
    found = sum(part.shape[0] for part in features.pooler_output)
    wanted = prompt.input_ids.count(processing.family.image_token_id(processing))
    if found != wanted:
        raise ModelError(
            "The model makes another number of image features than the prompt has image tokens",
            seen=f"{found} features, {wanted} tokens",
            remedy="use the processor files that belong to the model",
        )


def _check_report(report: dict[str, Any], pin: BasePin) -> None:
    for key, what in (("missing_keys", "are missing"), ("mismatched_keys", "have another shape than the config says")):
        names = sorted(str(name) for name in report.get(key) or [])
        if names:
            raise ModelError(
                f"Weights of the base model {what}",
                seen=f"{pin.path}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
                remedy="fetch the model again",
            )
