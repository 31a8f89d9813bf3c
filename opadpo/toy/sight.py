"""The expert's eyes: what a picture of the toy world shows, read from its pixels alone.

Every cell is compared with every icon at every jitter. For a shape m (0 or 1 per pixel) the best fit of a
cell's pixels by "background + contrast * m" has a closed form per channel, so colours need not be known; the
icon that explains most of the cell's variance wins, and a cell whose variance nothing explains is empty.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from opadpo.toy.world import CELL, GRID, ICON, ICONS, JITTER, NOUNS, SIZE, place_of

EXPLAINED = 0.28
"""Least share of a cell's variance that an icon must explain. In a PNG empty cells stay under 0.04 and icons
over 0.82; after JPEG at quality 85 it is 0.12 and 0.45."""
CONTRAST = 12.0
"""Least contrast of an icon, as root mean square over the channels (of 255): guards cells with next to no
variance."""


class Seen(NamedTuple):
    """One thing that was recognised."""

    noun: str
    cell: int
    explained: float
    """Share of the cell's variance that the icon explains, 0 to 1."""

    @property
    def place(self) -> str:
        """The quadrant that the cell lies in."""
        return place_of(self.cell)


def see(image: Image.Image) -> tuple[Seen, ...]:
    """What a picture shows, in reading order. Other sizes than 64 x 64 are resampled to it first."""
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    cells = pixels.reshape(GRID, CELL, GRID, CELL, 3).transpose(0, 2, 4, 1, 3).reshape(GRID * GRID, 3, CELL * CELL)
    cells = cells - cells.mean(axis=-1, keepdims=True)
    shapes = _shapes()
    energy = (shapes**2).sum(axis=-1)
    overlap = cells @ shapes.T
    explained = (overlap**2).sum(axis=1) / energy
    share = explained / np.maximum((cells**2).sum(axis=(1, 2)), 1e-9)[:, None]
    contrast = np.sqrt(explained / energy / 3)
    seen: list[Seen] = []
    for cell in range(GRID * GRID):
        best = int(explained[cell].argmax())
        if share[cell, best] >= EXPLAINED and contrast[cell, best] >= CONTRAST:
            seen.append(Seen(NOUNS[best // JITTER**2], cell, float(share[cell, best])))
    return tuple(seen)


def truth_of(image: Image.Image) -> dict[str, list[dict[str, str]]]:
    """What a picture shows, in the form of `opadpo.toy.world.Scene.truth`."""
    return {"objects": [{"noun": thing.noun, "place": thing.place} for thing in see(image)]}


@cache
def _shapes() -> NDArray[np.float64]:
    """Every icon at every jitter, minus its mean: (nouns * jitters, CELL * CELL)."""
    shapes = np.zeros((len(NOUNS), JITTER, JITTER, CELL, CELL))
    for index, noun in enumerate(NOUNS):
        for down in range(JITTER):
            for right in range(JITTER):
                shapes[index, down, right, down : down + ICON, right : right + ICON] = ICONS[noun]
    flat = shapes.reshape(-1, CELL * CELL)
    return flat - flat.mean(axis=-1, keepdims=True)
