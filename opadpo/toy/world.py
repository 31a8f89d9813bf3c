"""Scenes of the toy world and their pictures.

A scene holds two to four different things on a grid of 4 x 4 cells. Its picture is 64 x 64 RGB, so that one
cell is exactly one patch of the tiny vision tower. Colour, background, jitter and noise are nuisances:
nothing ever names them.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

SIZE = 64
"""Height and width of a picture, in pixels."""
GRID = 4
"""Cells per side."""
CELL = SIZE // GRID
"""Height and width of a cell, in pixels."""
ICON = 13
"""Height and width of an icon, in pixels."""
JITTER = CELL - ICON
"""An icon starts 0 to JITTER - 1 pixels from the upper left corner of its cell, so that it never leaves the
cell."""
NOISE = 14
"""Pixel noise is uniform over -NOISE .. NOISE, drawn for every pixel and channel."""

NOUNS = ("table", "tree", "house", "boat", "lamp", "car", "cup", "bird", "dog", "fish", "book", "ball")
"""Everything that can be in a scene."""
PLACES = ("top left", "top right", "bottom left", "bottom right")
"""Names of the four quadrants, in reading order."""
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (38, 92, 220),
    "yellow": (240, 205, 40),
    "violet": (150, 62, 190),
    "orange": (242, 130, 32),
}
"""Nuisance colours of the icons (RGB)."""
BACKGROUND = (96, 160)
"""Range of the mean grey of a background; every channel departs from it by at most 10."""


class SceneObject(BaseModel):
    """One thing in a scene."""

    model_config = ConfigDict(frozen=True)

    noun: str
    """What it is: one of `NOUNS`."""
    cell: int
    """Where it is: 0 to 15 in reading order."""
    jitter: tuple[int, int]
    """Offset of the icon in its cell, in pixels (down, right)."""
    colour: str
    """A key of `COLOURS`."""

    @property
    def place(self) -> str:
        """The quadrant that the cell lies in."""
        return place_of(self.cell)


class Scene(BaseModel):
    """What a picture shows; all that `render` needs."""

    model_config = ConfigDict(frozen=True)

    objects: tuple[SceneObject, ...]
    """In reading order of their cells."""
    background: tuple[int, int, int]
    """RGB."""
    noise_seed: int
    """Seed of the pixel noise."""

    def truth(self) -> dict[str, list[dict[str, str]]]:
        """What is true of the scene, ready for JSON: `{"objects": [{"noun": ..., "place": ...}, ...]}`."""
        return {"objects": [{"noun": thing.noun, "place": thing.place} for thing in self.objects]}


def place_of(cell: int) -> str:
    """The name of the quadrant that a cell (0 to 15, reading order) lies in."""
    row, column = divmod(cell, GRID)
    return PLACES[2 * (row // 2) + column // 2]


def sample_scene(rng: np.random.Generator, *, fewest: int = 2, most: int = 4) -> Scene:
    """Draw a scene with `fewest` to `most` different nouns in different cells."""
    count = int(rng.integers(fewest, most + 1))
    nouns = rng.choice(len(NOUNS), size=count, replace=False)
    cells = np.sort(rng.choice(GRID * GRID, size=count, replace=False))
    jitters = rng.integers(0, JITTER, size=(count, 2))
    colours = rng.choice(list(COLOURS), size=count)
    grey = int(rng.integers(BACKGROUND[0], BACKGROUND[1] + 1))
    red, green, blue = (grey + int(shift) for shift in rng.integers(-10, 11, size=3))
    objects = tuple(
        SceneObject(noun=NOUNS[noun], cell=int(cell), jitter=(int(down), int(right)), colour=str(colour))
        for noun, cell, (down, right), colour in zip(nouns, cells, jitters, colours, strict=True)
    )
    return Scene(objects=objects, background=(red, green, blue), noise_seed=int(rng.integers(2**31)))


def render(scene: Scene) -> Image.Image:
    """Draw a scene: 64 x 64 RGB. The same scene always gives the same pixels."""
    pixels = np.tile(np.array(scene.background, dtype=np.int16), (SIZE, SIZE, 1))
    for thing in scene.objects:
        row, column = divmod(thing.cell, GRID)
        top, left = row * CELL + thing.jitter[0], column * CELL + thing.jitter[1]
        pixels[top : top + ICON, left : left + ICON][ICONS[thing.noun]] = COLOURS[thing.colour]
    noise = np.random.default_rng(scene.noise_seed).integers(-NOISE, NOISE + 1, size=pixels.shape, dtype=np.int16)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def png_bytes(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


Mask = NDArray[np.bool_]

# Icons are sums of plain shapes on the pixel grid, in numpy and not by a drawing library, whose rounding
# changes between versions: the shipped model was trained on exactly these pixels.
_down, _right = np.mgrid[0:ICON, 0:ICON]


def _box(top: int, left: int, bottom: int, right: int) -> Mask:
    return (top <= _down) & (bottom >= _down) & (left <= _right) & (right >= _right)


def _disc(y: float, x: float, high: float, wide: float) -> Mask:
    return ((_down - y) / high) ** 2 + ((_right - x) / wide) ** 2 <= 1.0


def _rise(top: int, bottom: int, slope: float, x: float = 6.0) -> Mask:
    """A triangle with its tip up at (top, x), growing by `slope` pixels to each side per row."""
    return (top <= _down) & (bottom >= _down) & (np.abs(_right - x) <= (_down - top) * slope)


def _table() -> Mask:
    return _box(3, 0, 5, 12) | _box(6, 1, 12, 2) | _box(6, 10, 12, 11)


def _tree() -> Mask:
    return _rise(0, 4, 0.9) | _rise(3, 8, 1.0) | _box(9, 5, 12, 7)


def _house() -> Mask:
    return (_rise(0, 5, 1.2) | _box(6, 1, 12, 11)) & ~_box(8, 5, 12, 7)


def _boat() -> Mask:
    hull = (_down >= 8) & (_down <= 12) & (np.abs(_right - 6) <= 14 - _down)
    sail = (_down >= 0) & (_down <= 6) & (_right >= 7) & (_right - 7 <= _down * 0.8)
    return hull | sail | _box(0, 5, 7, 5)


def _lamp() -> Mask:
    shade = (_down >= 0) & (_down <= 5) & (np.abs(_right - 6) <= 2.5 + _down * 0.6)
    return shade | _box(6, 6, 11, 6) | _box(11, 3, 12, 9)


def _car() -> Mask:
    return _box(2, 3, 5, 9) | _box(6, 0, 9, 12) | _disc(10.5, 3, 2, 2) | _disc(10.5, 9, 2, 2)


def _cup() -> Mask:
    handle = _disc(5.5, 9, 3.6, 3.6) & ~_disc(5.5, 9, 2, 2) & (_right >= 9)
    return _box(1, 1, 10, 8) | handle | _box(12, 0, 12, 9)


def _bird() -> Mask:
    body = _disc(7, 5, 3, 5) | _disc(3, 10, 2.2, 2.2)
    return body | _box(3, 12, 3, 12) | _box(10, 4, 12, 4) | _box(10, 7, 12, 7)


def _dog() -> Mask:
    legs = _box(9, 1, 12, 2) | _box(9, 8, 12, 9)
    return _box(5, 1, 8, 9) | legs | _box(1, 8, 5, 12) | _box(0, 8, 0, 8) | _box(1, 0, 4, 0)


def _fish() -> Mask:
    tail = (_right >= 9) & (np.abs(_down - 6) <= (_right - 8) * 1.1)
    return (_disc(6, 4.5, 4, 5) | tail) & ~_box(5, 2, 5, 2)


def _book() -> Mask:
    return (_box(1, 0, 11, 12) & ~_box(1, 6, 11, 6)) & ~(
        _box(4, 2, 4, 4) | _box(7, 2, 7, 4) | _box(4, 8, 4, 10) | _box(7, 8, 7, 10)
    )


def _ball() -> Mask:
    return _disc(6, 6, 6.2, 6.2) & ~(np.abs(_down - _right) <= 0.5)


_DRAW: dict[str, Callable[[], Mask]] = {
    "table": _table,
    "tree": _tree,
    "house": _house,
    "boat": _boat,
    "lamp": _lamp,
    "car": _car,
    "cup": _cup,
    "bird": _bird,
    "dog": _dog,
    "fish": _fish,
    "book": _book,
    "ball": _ball,
}
ICONS: dict[str, Mask] = {noun: _DRAW[noun]() for noun in NOUNS}
"""The shape of every noun: (ICON, ICON) bool, true where the colour goes."""
