"""Model families: everything that differs between them, one module each."""

from importlib import import_module
from typing import TYPE_CHECKING

from opadpo.errors import ModelError

if TYPE_CHECKING:
    from opadpo.models.families.base import Family

FAMILIES = {
    "llava": "opadpo.models.families.llava:Llava",
    "llava_next": "opadpo.models.families.llava_next:LlavaNext",
    "llava_onevision": "opadpo.models.families.llava_onevision:LlavaOnevision",
    "qwen2_vl": "opadpo.models.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "opadpo.models.families.qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "opadpo.models.families.qwen3_vl:Qwen3VL",
    "gemma3": "opadpo.models.families.gemma3:Gemma3",
}
"""`model_type` of a model's config -> the class that knows it."""


def family_for(model_type: str) -> "Family":
    """The family of a model.

    Raises:
        ModelError: if there is none; the message lists the known ones.
    """
    try:
        module, name = FAMILIES[model_type].split(":")
    except KeyError as error:
        raise ModelError(
            "This kind of model is not known",
            seen=f"model_type {model_type!r}",
            remedy=f"use a model of one of these types: {', '.join(sorted(FAMILIES))}; CONTRIBUTING.md tells how to"
            " add a family",
        ) from error
    return getattr(import_module(module), name)()
