"""What is asked of a model and what comes back: an answer, or a failure with its reason."""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opadpo.hashing import bytes_digest, digest
from opadpo.images import ImageProblem, check_header, load_image
from opadpo.records import Usage

_MIME = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""What servers take, by Pillow's name of the format."""
_JPEG_QUALITY = 95
_SMALL_PIXELS = 256 * 256
"""Scaled images up to this size go as PNG: lossless, and no larger than a photograph's JPEG."""

FailureKind = Literal[
    "empty_response",
    "image",
    "connection",
    "timeout",
    "rate_limit",
    "server_error",
    "bad_request",
    "malformed_reply",
    "refusal",
    "content_filter",
    "length",
    "unusable_answer",
]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a request: a stored file, scaled down when it is sent."""

    path: Path
    """The file."""
    image_id: str
    """SHA-256 of the file: together with `max_side` it stands for the picture in a request's key."""
    max_side: int
    """Pixels on the longer side; larger images are scaled down, none is scaled up."""
    max_pixels: int = 100_000_000
    """Larger images are refused unopened."""
    detail: Literal["auto", "low", "high"] = "auto"
    """How closely the server is asked to look."""
    square: tuple[int, int, int] | None = None
    """Pad the picture to a square with this colour (red, green, blue) before anything else; None leaves it as it is."""
    stored: bool = False
    """True if the file was checked when it was stored: as long as it still has its id it is not decoded once more."""

    def data_uri(self) -> str:
        """The picture as a data URI: the file's own bytes, or scaled down as JPEG (small ones as PNG).

        Raises:
            ImageProblem: if the file is missing or is no usable image.
        """
        data = self._read()
        if self.stored and bytes_digest(data) == self.image_id:
            check_header(data, self.max_pixels)
        else:
            data = load_image(data, self.max_pixels).data
        if self.square is not None:
            data = _squared(data, self.square)
        width, height, kind = _header(data)
        if max(width, height) > self.max_side:
            data, kind = _scaled(data, self.max_side)
        return f"data:{_MIME[kind]};base64,{base64.b64encode(data).decode('ascii')}"

    @property
    def identity(self) -> list[str | int]:
        """What stands for the picture in a request's key."""
        return [
            self.image_id,
            self.max_side,
            *([self.detail] if self.detail != "auto" else []),
            *(["square", *self.square] if self.square is not None else []),
        ]

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as it is sent; only the header is read.

        Raises:
            ImageProblem: as `data_uri`.
        """
        data = self._read()
        check_header(data, self.max_pixels)
        width, height, _ = _header(data)
        if self.square is not None:
            width = height = max(width, height)
        factor = min(1.0, self.max_side / max(width, height))
        return max(1, round(width * factor)), max(1, round(height * factor))

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ImageProblem(f"cannot be read: {error.strerror or error} ({self.path.name})") from error


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    text: str
    """What."""
    picture: Picture | None = None
    """Sent before the text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Says that a sample of the model itself is wanted: the rest of its decoding, and the token ids if possible."""

    top_k: int
    """Among the k most probable tokens; 0 switches this off."""
    top_p: float
    """Among the smallest set of tokens with this probability."""
    seed: int
    """Seed of this request, below 2**31; servers honour it as far as they can."""


@dataclass(frozen=True)
class ChatRequest:
    """A request for one chat completion; its `key` is the same for the same content."""

    model: str
    """The model's name in the recipe; a server that knows it by another name is asked under that."""
    messages: tuple[Message, ...]
    """The conversation."""
    schema: dict[str, Any] | None = None
    """JSON schema that the answer has to satisfy, where the server honours it."""
    schema_name: str = "answer"
    """Name of the schema in the request."""
    temperature: float | None = None
    """Sampling temperature; None for the server's default."""
    max_tokens: int = 4096
    """Longest answer."""
    expected_tokens: int | None = None
    """Likely length of the answer, for estimates; None if there is no telling."""
    sample: Sample | None = None
    """Set where the model itself is sampled: an answer that was cut, or is empty, is an answer then."""

    @cached_property
    def key(self) -> str:
        """Digest of everything that can change the answer; no image is opened for it.

        `max_tokens` changes no whole answer, so that a larger one asks only those again that were cut. A sample that
        is cut is whole.
        """
        messages = [[m.role, m.text, m.picture.identity if m.picture else None] for m in self.messages]
        sample = self.sample
        decoding = [self.max_tokens, sample.top_k, sample.top_p, sample.seed] if sample else []
        return digest([self.model, messages, self.schema, self.temperature, decoding])


class Outcome(BaseModel):
    """What every request ends in."""

    model_config = ConfigDict(frozen=True)

    model: str = ""
    """The model as the server reports it; empty if it did not."""
    usage: Usage = Field(default_factory=Usage)
    """What the request cost, retries included."""


class Answer(Outcome):
    """A model's answer."""

    text: str
    """The message's content."""
    finish_reason: str = "stop"
    """As the server reports it."""
    token_ids: list[int] | None = None
    """Of a sample: the ids of the answer, where the server tells them."""
    left_out: list[str] = Field(default_factory=list)
    """Of a sample: settings that the server does not know and was asked without."""


class Failure(Outcome):
    """Why there is no usable answer."""

    kind: FailureKind
    """For counting."""
    reason: str
    """For people: one line."""
    retryable: bool
    """True if the same request may succeed later."""


def _header(data: bytes) -> tuple[int, int, str]:
    """(width, height, format) of an image that is known to be one."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.width, image.height, image.format or ""


def _squared(data: bytes, colour: tuple[int, int, int]) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        side = max(image.size)
        square = Image.new("RGB", (side, side), colour)
        square.paste(image.convert("RGB"), ((side - image.width) // 2, (side - image.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _scaled(data: bytes, max_side: int) -> tuple[bytes, str]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
        small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small.width * small.height <= _SMALL_PIXELS:
        small.save(buffer, format="PNG")
        return buffer.getvalue(), "PNG"
    small.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), "JPEG"
