"""Adapters with random weights, as `opadpo train` leaves them."""

import torch
from peft import get_peft_model

from opadpo.models.adapters import adapter_digest, lora_config
from opadpo.models.base import read_pin
from opadpo.models.families import family_for
from opadpo.models.loading import load_model
from opadpo.recipe.training import LoraSection
from opadpo.steps import plans
from opadpo.workspace import Workspace


def add_adapter(workspace: Workspace, name: str, seed: int) -> None:
    """A random adapter, as `train` would leave it."""
    pin = read_pin(workspace)
    config = lora_config(pin, family_for("llava"), LoraSection(rank=4, alpha=8))
    adapted = get_peft_model(load_model(pin, workspace.recipe), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.3)
    plan = plans.adapter(workspace, *plans.variant("opadpo", name, None))
    with workspace.writing(plan) as writer:
        adapted.save_pretrained(str(writer.folder))
        writer.finish({}, content=adapter_digest(writer.folder))
