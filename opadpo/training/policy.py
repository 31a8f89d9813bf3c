"""The trained adapter (the policy) and the frozen one that it is compared with (the reference), in one base model."""

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from opadpo.errors import ModelError
from opadpo.files import atomic_write
from opadpo.hashing import derive_seed
from opadpo.models.adapters import CONFIG, WEIGHTS, attach, lora_config
from opadpo.models.base import BasePin
from opadpo.models.families.base import Family
from opadpo.recipe.training import LoraSection
from opadpo.training.sharding import shared_like, whole

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

POLICY = "default"
"""Name of the trained adapter inside the model."""

REFERENCE = "reference"
"""Name of the frozen copy of the adapter that training started from."""


def fresh_adapter(model: "PreTrainedModel", pin: BasePin, family: Family, lora: LoraSection, seed: int) -> "PeftModel":
    """The base with a new adapter that changes nothing yet; its random half depends on `seed` alone."""
    from peft import get_peft_model

    config = lora_config(pin, family, lora)
    config.base_model_name_or_path = None  # else peft warns that it is not the folder; `save_adapter` writes the id
    with torch.random.fork_rng(), _quiet_peft():
        torch.manual_seed(derive_seed(seed, "lora"))
        return get_peft_model(model, config, adapter_name=POLICY)  # pyright: ignore[reportReturnType]


def continued_adapter(
    model: "PreTrainedModel", folder: Path, family: Family, *, language_only: bool = True
) -> "PeftModel":
    """The base with two copies of a stored adapter: the policy, which training will replace, and the reference.

    With `language_only` the policy's modules in tower and projector stay as they are (as released). Both copies are
    held in float32, so that they compute the same until the first update.
    """
    with _quiet_peft():
        wrapped = attach(model, folder, POLICY, trainable=True)
        wrapped.load_adapter(str(folder), REFERENCE, is_trainable=False)
    wrapped.set_adapter(POLICY)
    if language_only:
        pattern = re.compile(family.lora_targets("language"))
        for name, module in wrapped.get_base_model().named_modules():
            if hasattr(module, "lora_A") and not pattern.fullmatch(name):
                module.requires_grad_(False)
    return wrapped


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a name that is going away; goes when peft asks by the new one.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


@contextmanager
def computing_as(model: "PeftModel", adapter: str | None) -> Iterator[None]:
    """Inside, the model computes with another adapter, or with none (the base), without gradients and dropout.

    peft changes `requires_grad` when it switches adapters; all flags are put back at once, and training mode at the
    end. (Sharded parameters take the flags over when they are first put together, which may be in here.)
    """
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training = model.training

    def put_flags_back() -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])

    model.eval()
    try:
        with torch.no_grad():
            if adapter is None:
                with model.disable_adapter():
                    put_flags_back()
                    yield
            else:
                model.set_adapter(adapter, inference_mode=True)
                put_flags_back()
                yield
    finally:
        model.set_adapter(POLICY)
        put_flags_back()
        model.train(training)


def model_dtype(model: "PeftModel") -> torch.dtype:
    """Data type of the base's weights."""
    return cast("PreTrainedModel", model.get_base_model()).dtype


def reference_name(model: "PeftModel") -> str | None:
    """The adapter that is the reference; None where the base is."""
    return REFERENCE if REFERENCE in model.peft_config else None


def policy_weights(model: "PeftModel") -> dict[str, torch.Tensor]:
    """The policy's weights in full, on the CPU. Every process must call it where they are sharded."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(model, adapter_name=POLICY, save_embedding_layers=False)
    return {name: whole(weight).detach().cpu().contiguous() for name, weight in sorted(weights.items())}


def save_adapter(model: "PeftModel", weights: dict[str, torch.Tensor], folder: Path, pin: BasePin) -> None:
    """Write the policy as a PEFT adapter: its weights, and config with the base's id and revision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes it for the owner alone
    config = model.peft_config[POLICY].to_dict()
    config |= {"base_model_name_or_path": pin.base, "revision": pin.revision, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    atomic_write(folder / CONFIG, json.dumps(plain, indent=2, sort_keys=True, default=str))


def load_policy(model: "PeftModel", folder: Path) -> None:
    """Put stored weights into the policy; everything else in the model stays as it is.

    Raises:
        ModelError: if the weights are of another adapter.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    places = get_peft_model_state_dict(model, adapter_name=POLICY, save_embedding_layers=False)
    weights = {
        name: shared_like(weight, places.get(name, weight)) for name, weight in load_file(folder / WEIGHTS).items()
    }
    result = set_peft_model_state_dict(model, weights, adapter_name=POLICY)
    missing = [key for key in result.missing_keys if "lora_" in key and f".{POLICY}." in key]
    if missing or result.unexpected_keys:
        raise ModelError(
            "A checkpoint does not fit the adapter that is being trained",
            seen=f"{folder}: {len(missing)} tensors missing, {len(result.unexpected_keys)} unexpected",
            remedy="delete that checkpoint; training starts from the one before it",
        )
