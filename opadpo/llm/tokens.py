"""How many tokens a request will have: estimates, made without a tokenizer and without the network."""

import json
import math
import re
from typing import NamedTuple

from opadpo.llm.requests import ChatRequest, Picture

_MESSAGE_TOKENS = 4
"""What the frame of a message costs."""
_CHARACTERS_PER_TOKEN = 4.0
_LETTERS_PER_TOKEN = 2.5
"""Of alphabets other than the Latin one."""
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_OTHER = re.compile(r"[^\x00-\u024f]")


class Tiles(NamedTuple):
    """A picture is scaled into a square of 2048 pixels, then to 768 on the shorter side, and cut into tiles of 512."""

    base: int
    """Tokens of any picture; all of them where the server looks with low detail."""
    tile: int
    """Tokens of each tile."""

    def tokens(self, width: int, height: int, *, low: bool) -> int:
        """Tokens of a picture of that many pixels."""
        if low:
            return self.base
        fit = min(1.0, 2048 / max(width, height))
        fit *= min(1.0, 768 / (min(width, height) * fit))
        # Rounded first: what is 512 pixels in exact arithmetic must not become two tiles.
        across, down = (math.ceil(round(side * fit, 3) / 512) for side in (width, height))
        return self.base + self.tile * across * down


class Patches(NamedTuple):
    """A picture is cut into patches of 32 pixels, after scaling it so that there are at most 1536."""

    factor: float
    """Tokens of each patch."""

    def tokens(self, width: int, height: int, *, low: bool) -> int:
        """Tokens of a picture of that many pixels; detail makes no difference."""
        del low
        across, down = math.ceil(width / 32), math.ceil(height / 32)
        if across * down > 1536:
            shrink = math.sqrt(1536 * 32**2 / (width * height))
            wide, high = width * shrink / 32, height * shrink / 32
            shrink *= min(math.floor(wide) / wide, math.floor(high) / high)
            across, down = (math.ceil(round(side * shrink / 32, 3)) for side in (width, height))
        return math.ceil(min(across * down, 1536) * self.factor)


IMAGE_RULES: dict[str, Tiles | Patches] = {
    "": Tiles(85, 170),
    "gpt-4o-mini": Tiles(2833, 5667),
    "gpt-4.1-mini": Patches(1.62),
    "gpt-4.1-nano": Patches(2.46),
    "gpt-5": Tiles(70, 140),
    "gpt-5-mini": Patches(1.62),
    "gpt-5-nano": Patches(2.46),
    "o1": Tiles(75, 150),
    "o3": Tiles(75, 150),
    "o4-mini": Patches(1.72),
}
"""By the beginning of the model's name, the longest first: https://platform.openai.com/docs/guides/images-vision
(as of 2026-03). Models of other providers are counted like GPT-4o."""


def text_tokens(text: str) -> int:
    """About how many tokens a text has: four characters each in Latin script, about one for an ideograph."""
    if text.isascii():
        return math.ceil(len(text) / _CHARACTERS_PER_TOKEN)
    ideographs = len(_IDEOGRAPHS.findall(text))
    other = len(_OTHER.findall(text)) - ideographs
    latin = len(text) - ideographs - other
    return math.ceil(latin / _CHARACTERS_PER_TOKEN + other / _LETTERS_PER_TOKEN + ideographs)


def image_tokens(picture: Picture, model: str) -> int:
    """Tokens of a picture by the provider's published rule; `auto` counts as high detail.

    Raises:
        ImageProblem: if the file is missing or is no usable image.
    """
    rule = IMAGE_RULES[max((name for name in IMAGE_RULES if model.startswith(name)), key=len)]
    return rule.tokens(*picture.size(), low=picture.detail == "low")


def prompt_tokens(request: ChatRequest) -> int:
    """About how many tokens a request has before its answer.

    Raises:
        ImageProblem: if one of its images is missing or not usable.
    """
    return _with_images(request, [text_tokens(message.text) for message in request.messages])


def most_prompt_tokens(request: ChatRequest) -> int:
    """More tokens than a request can have before its answer: no tokenizer makes more of a text than it has bytes.

    Raises:
        ImageProblem: if one of its images is missing or not usable.
    """
    return _with_images(request, [len(message.text.encode()) for message in request.messages])


def answer_tokens(request: ChatRequest) -> int:
    """About how many tokens its answer will have; the longest allowed where the request does not say."""
    return min(request.expected_tokens or request.max_tokens, request.max_tokens)


def _with_images(request: ChatRequest, texts: list[int]) -> int:
    pictures = [message.picture for message in request.messages if message.picture is not None]
    images = sum(image_tokens(picture, request.model) for picture in pictures)
    schema = text_tokens(json.dumps(request.schema)) if request.schema is not None else 0
    return sum(texts) + _MESSAGE_TOKENS * len(texts) + images + schema
