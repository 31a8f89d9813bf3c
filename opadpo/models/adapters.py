"""LoRA adapters: new, checked, attached, taken off again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.damage import how_to_remake
from opadpo.errors import ModelError
from opadpo.hashing import digest, file_digest
from opadpo.models.base import BasePin
from opadpo.models.families.base import Family
from opadpo.recipe.training import LoraSection
from opadpo.workspace import MANIFEST_FILE

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch.nn import Module
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


def lora_config(pin: BasePin, family: Family, lora: LoraSection) -> "LoraConfig":
    """The peft config of a new adapter; it names the base and its revision, which `check_fits` reads."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  # peft divides it; any number will do
        lora_dropout=lora.dropout,
        target_modules=family.lora_targets(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=pin.base,
        revision=pin.revision,
    )


def adapter_digest(folder: Path) -> str:
    """SHA-256 (64 hex digits) of an adapter's weights and config: its `adapter_hash`.

    Raises:
        ModelError: if the folder is not a safetensors adapter.
    """
    return digest([file_digest(_weights(folder)), read_adapter_config(folder)])


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter's `adapter_config.json`.

    Raises:
        ModelError: if it is missing, damaged, or not of a LoRA adapter.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            "The adapter's config cannot be read", seen=f"{path}: {error}", remedy=_again(folder)
        ) from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ModelError("This is not a LoRA adapter", seen=path, remedy=_again(folder))
    return config


def check_fits(
    folder: Path,
    pin: BasePin,
    *,
    family: Family | None = None,
    lora: LoraSection | None = None,
    model: "PreTrainedModel | None" = None,
) -> None:
    """Check that an adapter belongs to a base model, and to the recipe's settings if `family` and `lora` are given.

    With `model` every tensor is compared with the layer that it goes to; only the file's header is read.

    Raises:
        ModelError: naming what does not fit.
    """
    config = read_adapter_config(folder)
    seen = (str(config.get("base_model_name_or_path")), str(config.get("revision")))
    if seen != (pin.base, pin.revision):
        raise ModelError(
            "The adapter was trained on another base model",
            seen=f"adapter of {seen[0]}@{seen[1]}, base {pin.name}",
            remedy="use the recipe and base that the adapter was trained with, or train it again",
        )
    if family is not None and lora is not None:
        wanted = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": family.lora_targets(lora.targets)}
        for key, value in wanted.items():
            if config.get(key) != value:
                raise ModelError(
                    f"The adapter's {key} is not the recipe's",
                    seen=f"adapter {config.get(key)}, recipe {value}",
                    remedy="set the recipe's lora section as the adapter has it, or train the adapter again",
                )
    shapes = _shapes(folder)
    if model is not None:
        _check_shapes(shapes, int(config["r"]), model)


def attach(model: "PreTrainedModel | PeftModel", folder: Path, name: str, trainable: bool = False) -> "PeftModel":
    """Put an adapter on a model and make it the active one; a second one goes beside the first.

    A frozen adapter keeps its place in the base's data type, a trainable one is held in float32.

    Raises:
        ModelError: if its weights do not belong to this model.
    """
    from peft import PeftModel

    base = model.get_base_model() if isinstance(model, PeftModel) else model
    _check_shapes(_shapes(folder), int(read_adapter_config(folder)["r"]), base)
    options: dict[str, Any] = {"is_trainable": trainable, "autocast_adapter_dtype": trainable}
    if isinstance(model, PeftModel):
        model.load_adapter(str(folder), adapter_name=name, **options)
        model.set_adapter(name, inference_mode=not trainable)
        return model
    return PeftModel.from_pretrained(model, str(folder), adapter_name=name, **options)


def detach(model: "PeftModel") -> "PreTrainedModel":
    """Take every adapter off; the base's weights are as before, bit for bit."""
    return model.unload()  # pyright: ignore[reportCallIssue]


_AGAIN = "train the adapter again, or point at a folder that save_pretrained() of peft wrote"


def _again(folder: Path) -> str:
    """How to get a sound adapter: one of a workspace counts as made as long as it has its manifest."""
    return how_to_remake(folder) if (folder / MANIFEST_FILE).is_file() else _AGAIN


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if not path.is_file():
        pickle = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            "The adapter's weights are a pickle, which can run code when loaded, and are refused"
            if pickle
            else "The adapter has no weights",
            seen=folder,
            remedy="save it again with save_pretrained(..., safe_serialization=True)" if pickle else _again(folder),
        )
    return path


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the header of the weights."""
    from safetensors import SafetensorError, safe_open

    path = _weights(folder)
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError("The adapter's weights are damaged", seen=f"{path}: {error}", remedy=_again(folder)) from error


def _check_shapes(shapes: dict[str, tuple[int, ...]], rank: int, model: "Module") -> None:
    modules = dict(model.named_modules())
    for name, shape in shapes.items():
        owner, _, part = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        layer = modules.get(owner)
        layer = getattr(layer, "base_layer", layer)
        if layer is None or part not in ("lora_A", "lora_B"):
            raise ModelError("The adapter has a layer that the base model lacks", seen=name, remedy=_AGAIN)
        wanted = (rank, layer.in_features) if part == "lora_A" else (layer.out_features, rank)
        if shape != wanted:
            raise ModelError(
                "A layer of the adapter has another shape than the base model needs",
                seen=f"{name}: {shape}, needed {wanted}",
                remedy=_AGAIN,
            )
