"""Qwen2-VL (arXiv 2409.12191) as transformers holds it."""

from typing import ClassVar

from opadpo.models.families.qwen_vl import HELPFUL, TURN, QwenVL


class Qwen2VL(QwenVL):
    """Qwen2-VL."""

    name: ClassVar[str] = "qwen2_vl"
    templates: ClassVar[dict[str, str]] = {"qwen": HELPFUL + TURN, "plain": TURN}
    default_template: ClassVar[str] = "qwen"
