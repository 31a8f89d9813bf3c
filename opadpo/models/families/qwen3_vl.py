"""Qwen3-VL (arXiv 2511.21631) as transformers holds it: the newest model that goes by the name of Qwen-VL.

Its tower hands features to three layers of the language model. Qwen3.5, which sees images too, is another
architecture (recurrent layers) and another family.
"""

from typing import ClassVar

from opadpo.models.families.qwen_vl import TURN, QwenVL


class Qwen3VL(QwenVL):
    """Qwen3-VL, dense (Instruct: the chat template of Thinking models begins the answer with a thought)."""

    name: ClassVar[str] = "qwen3_vl"
    templates: ClassVar[dict[str, str]] = {"qwen3": TURN}
    default_template: ClassVar[str] = "qwen3"
