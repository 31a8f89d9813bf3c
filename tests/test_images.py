"""Images from outside: what is kept, what is encoded again, and what is refused with which reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from opadpo.errors import DataError
from opadpo.images import ImageProblem, check_header, load_image, open_rgb

LIMIT = 1_000_000


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Smooth colours, a different one in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), 128 + 0 * x]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("image", "kind", "extension"),
    [
        (picture(), "JPEG", "jpg"),
        (picture().convert("L"), "JPEG", "jpg"),
        (picture(), "PNG", "png"),
        (picture(), "WEBP", "webp"),
    ],
)
def test_plain_images_keep_their_bytes(image: Image.Image, kind: str, extension: str) -> None:
    data = encoded(image, kind)
    checked = load_image(data, LIMIT)
    assert checked.data is data
    assert (checked.extension, checked.changed, checked.width, checked.height) == (extension, None, 40, 24)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_image_turned_by_exif_is_stored_upright_without_loss(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    checked = load_image(encoded(picture(), "PNG", exif=exif), LIMIT)
    # EXIF orientations by their definition: what has to be done to see the picture upright.
    upright = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a[::-1, ::-1].transpose(1, 0, 2), 0),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    assert checked.extension == "png"
    assert checked.changed is not None
    np.testing.assert_array_equal(decoded(checked.data), upright(np.asarray(picture())))
    assert load_image(checked.data, LIMIT).changed is None


def test_cmyk_becomes_rgb_of_the_same_colours() -> None:
    checked = load_image(encoded(picture().convert("CMYK"), "JPEG", quality=95), LIMIT)
    pixels = decoded(checked.data).astype(int)
    assert checked.extension == "png"
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels - np.asarray(picture(), dtype=int)).mean() < 6


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    checked = load_image(encoded(Image.fromarray(grey * 257), "PNG"), LIMIT)
    np.testing.assert_array_equal(decoded(checked.data), np.repeat(grey[..., None], 3, axis=-1))


def test_sixteen_bit_colour_is_stored_with_eight() -> None:
    rows = np.full((3, 5, 3), 0x80FF, dtype=">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 5, 3, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    checked = load_image(b"\x89PNG\r\n\x1a\n" + body, LIMIT)
    assert checked.changed == "16 bits per channel"
    assert decoded(checked.data).shape == (3, 5, 3)
    assert decoded(checked.data).max() == 0x80


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageProblem, match="no defined brightness"):
        load_image(encoded(picture().convert("F"), "TIFF"), LIMIT)


def test_transparent_pixels_become_white_and_opaque_ones_stay() -> None:
    layer = np.dstack([np.asarray(picture()), np.full((24, 40), 255, np.uint8)])
    layer[:10, :, 3] = 0
    result = decoded(load_image(encoded(Image.fromarray(layer), "PNG"), LIMIT).data)
    assert (result[:10] == 255).all()
    np.testing.assert_array_equal(result[10:], layer[10:, :, :3])


def test_of_an_animation_the_first_frame_is_kept() -> None:
    frames = [picture().convert("P"), picture().rotate(180).convert("P")]
    checked = load_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), LIMIT)
    assert checked.changed == "animated: first frame"
    np.testing.assert_array_equal(decoded(checked.data), np.asarray(frames[0].convert("RGB")))


def test_formats_that_browsers_do_not_show_become_png() -> None:
    checked = load_image(encoded(picture(), "TIFF"), LIMIT)
    assert checked.extension == "png"
    np.testing.assert_array_equal(decoded(checked.data), np.asarray(picture()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@given(share=st.floats(0.0, 0.97))
def test_a_truncated_image_is_refused(kind: str, share: float) -> None:
    data = encoded(picture(90, 70), kind)
    with pytest.raises(ImageProblem) as caught:
        load_image(data[: int(len(data) * share)], LIMIT)
    assert caught.value.reason


@given(data=st.binary(max_size=200), kind=st.sampled_from(["", "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
def test_damaged_bytes_never_raise_anything_but_a_problem(data: bytes, kind: str) -> None:
    damaged = bytearray(encoded(picture(), kind) if kind else b"")
    middle = len(damaged) // 3
    damaged[middle : middle + len(data)] = data
    try:
        checked = load_image(bytes(damaged), LIMIT)
    except ImageProblem:
        pass
    else:
        assert decoded(checked.data).size


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_its_pixels_are_decoded() -> None:
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    start_of_idat = struct.pack(">I", 9) + b"IDAT" + b"never read"
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + start_of_idat
    for check in (check_header, load_image):
        with pytest.raises(ImageProblem, match=r"13000 x 13000 pixels, image.max_pixels is 100000000"):
            check(bomb, 100_000_000)


def test_the_limit_is_exact_and_counts_the_square_that_models_pad_to() -> None:
    data = encoded(picture(100, 50), "PNG")
    assert load_image(data, 5000).changed is None
    with pytest.raises(ImageProblem, match="too large"):
        load_image(data, 4999)
    ribbon = encoded(Image.new("RGB", (300, 2)), "PNG")
    with pytest.raises(ImageProblem, match="too large: 300 x 2"):
        load_image(ribbon, 5000)


@pytest.mark.parametrize("size", [(199, 1), (1, 199), (1, 1), (398, 2)])
def test_thin_images_are_kept_up_to_a_limit(size: tuple[int, int]) -> None:
    checked = load_image(encoded(Image.new("RGB", size, "red"), "PNG"), LIMIT)
    assert (checked.width, checked.height, checked.changed) == (*size, None)
    width, height = (side if side < 3 else side + 2 for side in size)
    wider = Image.new("RGB", (width, height), "red")
    if max(size) > 3:
        for check in (check_header, load_image):
            with pytest.raises(ImageProblem, match=r"too elongated: .* pixels, the sides may differ 199 times"):
                check(encoded(wider, "PNG"), LIMIT)


def test_a_palette_with_a_transparent_colour_shows_white_there() -> None:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((3, 1), 1)
    checked = load_image(encoded(image, "PNG", transparency=1), LIMIT)
    assert checked.changed == "transparency: laid on white"
    assert decoded(checked.data)[1, 3].tolist() == [255, 255, 255]
    assert decoded(checked.data)[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>"]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageProblem, match=r"is empty|is not a readable image"):
        check_header(data, LIMIT)


def test_open_rgb_gives_upright_rgb_and_a_clear_error(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded(picture(), "JPEG", exif=exif))
    image = open_rgb(path)
    assert (image.mode, image.size) == ("RGB", (24, 40))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"turned\.jpg"):
        open_rgb(path)
    with pytest.raises(DataError, match=r"missing\.png"):
        open_rgb(tmp_path / "missing.png")
