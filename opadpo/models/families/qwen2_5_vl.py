"""Qwen2.5-VL (arXiv 2502.13923) as transformers holds it."""

from typing import ClassVar

from opadpo.models.families.qwen_vl import HELPFUL, TURN, QwenVL


class Qwen25VL(QwenVL):
    """Qwen2.5-VL."""

    name: ClassVar[str] = "qwen2_5_vl"
    templates: ClassVar[dict[str, str]] = {"qwen": HELPFUL + TURN, "plain": TURN}
    default_template: ClassVar[str] = "qwen"
