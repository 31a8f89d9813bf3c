"""An expert over HTTP that knows the sample photographs of scikit-image by sight, for notebook 7 and its tests."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from servers import ChatServer, answer, chat_server, numbered, verdict

SHOWN = {
    "astronaut.png": "woman in a space suit",
    "brick.png": "brick wall",
    "camera.png": "man behind a camera",
    "chelsea.png": "cat",
    "clock_motion.png": "clock",
    "coffee.png": "cup of coffee",
    "coins.png": "row of old coins",
    "grass.png": "meadow",
    "horse.png": "horse",
    "motorcycle_left.png": "motorcycle",
    "retina.jpg": "picture of an eye",
    "rocket.jpg": "rocket",
}
"""Photograph -> what it shows."""

_SIDE = 12


def _look(image: Image.Image) -> Any:
    """A photograph at a glance, whatever its size."""
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)), dtype=np.float32)


@cache
def _known() -> dict[str, Any]:
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return {name: _look(Image.open(folder / name)) for name in SHOWN}


def _image_of(body: dict[str, Any]) -> Image.Image:
    parts = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def correct(_server: ChatServer, body: dict[str, Any]) -> str:
    """The first sentence gets what the photograph shows; every other one is made up and goes."""
    seen = _look(_image_of(body))
    name = min(_known(), key=lambda each: float(np.abs(_known()[each] - seen).mean()))
    shown = SHOWN[name]
    verdicts = []
    for index, sentence in enumerate(numbered(body), 1):
        if index == 1:
            fields = {"action": "rewrite", "score": 2, "revised": f"There is a {shown} in the middle."}
            reason = f"It shows a {shown}."
        else:
            fields = {"action": "delete", "score": 1, "revised": ""}
            reason = "Nothing of the kind is there."
        words = sentence.rstrip(".").split()
        thing = words[3] if words[:3] == ["There", "is", "a"] and len(words) > 3 else words[min(1, len(words) - 1)]
        objects = [f"{thing} -> {shown if index == 1 else 'nothing'}"]
        fields |= {"error_type": "image_recognition_error", "objects": objects, "reason": reason}
        verdicts.append(verdict(index, **fields))
    return answer(*verdicts)


@contextmanager
def photograph_expert() -> Iterator[str]:
    """The address of the running expert."""
    with chat_server() as server:
        server.behave = correct
        server.models = ["photograph-expert"]
        yield server.url
