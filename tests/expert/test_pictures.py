"""What the expert sees of every kind of image file: the right picture, or a failure with its reason."""

import asyncio
import base64
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from PIL import Image
from servers import ChatServer, chat_server

from opadpo.expert.reviser import Reviser, Task
from opadpo.hashing import bytes_digest
from opadpo.llm.asking import Asker
from opadpo.llm.client import ChatClient
from opadpo.llm.requests import Failure, Picture
from opadpo.llm.store import RequestStore
from opadpo.recipe.endpoints import EndpointSection
from opadpo.recipe.sections import ReviseSection
from opadpo.records import Revision

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture(scope="module")
def server():
    with chat_server() as running:
        yield running


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(halves().rotate(90, expand=True), "JPEG", exif=exif, quality=95)


def see_through() -> bytes:
    image = halves().quantize(4)
    corner = image.getpixel((0, 0))
    return encoded(image, "PNG", transparency=corner)


def sixteen_bit() -> bytes:
    grey = np.asarray(halves().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT" + b"never read"


def revise(server: ChatServer, folder: Path, data: bytes | None, name: str = "image.bin") -> Revision | Failure:
    path = folder / name
    if data is not None:
        path.write_bytes(data)
    section = ReviseSection(
        endpoint=EndpointSection(base_url=server.url, model="m", api_key_required=False), image_max_side=256
    )
    picture = Picture(path, bytes_digest(data or b""), section.image_max_side)

    async def work() -> Revision | Failure:
        with RequestStore.open(folder / "requests.db") as store:
            async with ChatClient(section.endpoint, max_retries=0) as client:
                return await Reviser(section, Asker(store, client)).revise(Task("r", "What?", "", "A cat.", picture))

    return asyncio.run(work())


def seen(server: ChatServer) -> Image.Image:
    """The image of the last request."""
    parts = server.bodies[-1]["messages"][1]["content"]
    uri = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    kind, data = re.fullmatch(r"data:image/(png|jpeg|webp);base64,(.*)", uri).groups()  # type: ignore[union-attr]
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (image.format or "").lower() == kind
    return image.convert("RGB")


GREY = tuple([Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))] * 3 for colour in (RED, BLUE))
FRAMES = [halves(), halves().rotate(180)]
FILES = {
    "plain JPEG": (encoded(halves(), "JPEG", quality=95), RED, BLUE),
    "CMYK JPEG": (encoded(halves().convert("CMYK"), "JPEG", quality=95), RED, BLUE),
    "16-bit PNG": (sixteen_bit(), *GREY),
    "animated GIF": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), RED, BLUE),
    "animated WebP": (
        encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), RED, BLUE,
    ),
    "turned by EXIF": (turned(), RED, BLUE),
    "palette with transparency": (see_through(), (255, 255, 255), BLUE),
    "TIFF": (encoded(halves(), "TIFF"), RED, BLUE),
    "one pixel high": (encoded(halves(60, 1), "PNG"), RED, BLUE),
    "large": (encoded(halves(1200, 800), "PNG"), RED, BLUE),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_the_expert_sees_the_right_picture(server: ChatServer, tmp_path: Path, kind: str) -> None:
    data, left, right = FILES[kind]
    assert isinstance(revise(server, tmp_path, data), Revision)
    image = seen(server)
    assert image.width > image.height
    assert max(image.size) <= 256
    pixels = np.asarray(image).astype(int)
    for column, colour in ((image.width // 8, left), (-image.width // 8, right)):
        assert np.abs(pixels[image.height // 2, column] - np.array(colour)).max() < 14


BROKEN = {
    "missing": (None, r"cannot be read: No such file or directory \(image\.bin\)"),
    "empty": (b"", r"is empty \(0 bytes\)"),
    "no image": (b"<html>404</html>", r"is not a readable image \(16 bytes"),
    "truncated": (encoded(halves(), "JPEG")[:-40], r"cannot be decoded"),
    "bomb": (bomb(), r"too large: .*"),
    "ribbon": (encoded(halves(2000, 1), "PNG"), r"too elongated: 2000 x 1 pixels"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_an_unusable_image_is_a_failed_row_that_names_the_reason(server: ChatServer, tmp_path: Path, kind: str) -> None:
    data, reason = BROKEN[kind]
    asked = len(server.bodies)
    failure = revise(server, tmp_path, data)
    assert isinstance(failure, Failure)
    assert failure.kind == "image"
    assert re.match(f"image {reason}", failure.reason)
    assert len(server.bodies) == asked
    assert isinstance(revise(server, tmp_path, encoded(halves(), "PNG"), "mended.png"), Revision)


@pytest.mark.slow
def test_servers_read_the_request_as_the_sdk_types_it(server: ChatServer, tmp_path: Path) -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
    from pydantic import TypeAdapter

    revise(server, tmp_path, encoded(halves(), "PNG"))
    TypeAdapter(CompletionCreateParamsNonStreaming).validate_python(server.bodies[-1])
    assert servers.numbered(server.bodies[-1]) == ["A cat."]
