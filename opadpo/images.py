"""Images as they come from outside: checked before they are stored, and read again as upright RGB.

Every decoder but those of `FORMATS` stays shut, and no pixel is decoded before the header's size has been compared
with the limit.
"""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from opadpo.errors import DataError

_DECODERS = (JpegImageFile, PngImageFile, WebPImageFile, GifImageFile, BmpImageFile, TiffImageFile)

FORMATS = tuple(str(decoder.format) for decoder in _DECODERS)
"""Formats that are read; the rest (PostScript, for one, would start another program) is refused."""

_KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats that browsers and expert servers take as they are -> extension; the others are stored as PNG.
MPO is what Pillow calls a JPEG file with a second picture behind the first."""

MAX_ASPECT = 199
"""Longer side over shorter. Some models refuse 200; others scale the shorter side to theirs, so that a ribbon of pixels
would take gigabytes."""

_ORIENTATION = 0x0112
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")

# The limit of this module is the recipe's, checked in `_open`; Pillow's own warning below its hard limit (about 179
# million pixels, an error) would only repeat it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageProblem(Exception):
    """Why one image cannot be used; it becomes the reason of a dropped row."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that has been decoded without error, in the form in which it is stored."""

    data: bytes
    """The original bytes, or a PNG (upright, RGB) where `changed` says why."""
    extension: str
    """File name extension of `data`, without the dot: jpg, png or webp."""
    width: int
    """Pixels, upright."""
    height: int
    """Pixels, upright."""
    changed: str | None = None
    """Why the image was encoded again, losslessly; None if the bytes are the original ones."""


def check_header(data: bytes, max_pixels: int) -> None:
    """Check format and size without decoding pixels: a thousand times faster than `load_image`.

    Raises:
        ImageProblem: if this is no image, one with more pixels than `max_pixels`, or a ribbon (`MAX_ASPECT`).
    """
    with _open(data, max_pixels):
        pass


def load_image(data: bytes, max_pixels: int) -> CheckedImage:
    """Decode an image completely and give back what is to be stored.

    The original bytes are kept unless the image is turned by its EXIF orientation, animated (the first frame is
    taken), has other pixels than 8-bit grey or RGB (CMYK, palette, 16-bit, transparency: laid on white), or is in a
    format that browsers do not show. It is then encoded again as PNG, which loses nothing.

    Args:
        data: the file's bytes.
        max_pixels: largest width x height; the side is limited to twice its square root as well, because models
            pad images to squares.

    Raises:
        ImageProblem: if this is no image, too large, a ribbon (`MAX_ASPECT`), truncated or damaged.
    """
    with _open(data, max_pixels) as image:
        kept = _KEPT.get(image.format or "")
        try:
            if image.format == "PNG":
                # Pillow's decoder is content when it has the last pixel; this reads to the end and checks every sum.
                Image.open(io.BytesIO(data), formats=("PNG",)).verify()
            changed = _reason_to_encode_again(image, data, kept)
            if changed is None:
                image.load()
                return CheckedImage(data, kept or "", image.width, image.height)
            profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
            upright = _upright_rgb(image)
        except ImageProblem:
            raise
        except Exception as error:  # decoders of damaged files raise almost anything; the row gets the reason
            raise ImageProblem(f"cannot be decoded: {_one_line(error)}") from error
    buffer = io.BytesIO()
    upright.save(buffer, format="PNG", icc_profile=profile)
    return CheckedImage(buffer.getvalue(), "png", upright.width, upright.height, changed)


def open_rgb(path: Path | str) -> Image.Image:
    """Read an image file as upright 8-bit RGB; the file is closed again.

    Raises:
        DataError: if it is not there or cannot be decoded.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _upright_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ImageProblem) as error:
        raise DataError(
            "An image cannot be read",
            seen=f"{path}: {_one_line(error)}",
            remedy="restore the file; if it belongs to a workspace, delete the workspace's prompts/ folder and run"
            " `opadpo prepare` again",
        ) from error


def data_uri(image: Image.Image, side: int) -> str:
    """An RGB image, scaled down to `side` pixels on its longer side, as a JPEG in a data URI."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageProblem("is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageProblem(f"too large: {_one_line(error)}") from error
    except Exception as error:  # headers of damaged files raise almost anything; the row gets the reason
        raise ImageProblem(f"is not a readable image ({len(data)} bytes; {', '.join(FORMATS)} are read)") from error
    width, height = image.size
    if width * height > max_pixels or max(width, height) ** 2 > 4 * max_pixels:
        image.close()
        raise ImageProblem(f"too large: {width} x {height} pixels, image.max_pixels is {max_pixels}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        image.close()
        raise ImageProblem(f"too elongated: {width} x {height} pixels, the sides may differ {MAX_ASPECT} times")
    return image


def _reason_to_encode_again(image: Image.Image, data: bytes, kept: str | None) -> str | None:
    """Why the original bytes cannot be stored as they are; None if they can."""
    if image.format != "MPO" and getattr(image, "is_animated", False):
        return "animated: first frame"
    if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        return "turned by its EXIF orientation"
    if image.has_transparency_data:
        return "transparency: laid on white"
    if image.mode not in ("L", "RGB"):
        return f"pixel mode {image.mode}"
    if data.startswith(_PNG_SIGNATURE) and data[_PNG_BIT_DEPTH] == 16:
        return "16 bits per channel"
    return None if kept else f"format {image.format}"


def _upright_rgb(image: Image.Image) -> Image.Image:
    """The first frame, turned upright, as 8-bit RGB."""
    if getattr(image, "is_animated", False):
        image.seek(0)
    image.load()
    if image.mode in (*_SIXTEEN_BIT_MODES, "I", "F"):
        image = _eight_bit(image)
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return upright.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; `convert` would clip it."""
    wide = image.convert("I") if image.mode != "F" else image
    low, high = wide.getextrema()
    if image.mode == "F" or not 0 <= low <= high <= 0xFFFF:  # type: ignore[operator]  # one band: two numbers
        raise ImageProblem(f"pixels of mode {image.mode} between {low} and {high} have no defined brightness")
    return wide.point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
