import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from opadpo.toy.sight import see, truth_of
from opadpo.toy.world import Scene, png_bytes, render, sample_scene


def scenes(count: int, seed: int) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(count)]


def recovered(pictures: list[Scene], change: Callable[[Image.Image], Image.Image]) -> float:
    return sum(truth_of(change(render(scene))) == scene.truth() for scene in pictures) / len(pictures)


def through_png(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(png_bytes(image)))


def through_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return Image.open(buffer)


def through_128(image: Image.Image) -> Image.Image:
    return image.resize((128, 128)).resize((64, 64))


@pytest.mark.slow
def test_recovers_scenes_from_their_pixels():
    assert recovered(scenes(500, seed=3), through_png) >= 0.995


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [through_jpeg, through_128, lambda image: image.resize((336, 336)), lambda image: image.resize((48, 48))],
    ids=["jpeg", "up-and-down", "large", "small"],
)
def test_survives_what_clients_do_to_pictures(change: Callable[[Image.Image], Image.Image]):
    assert recovered(scenes(200, seed=4), change) >= 0.99


def test_says_which_cell():
    for scene in scenes(50, seed=5):
        assert [(seen.noun, seen.cell) for seen in see(render(scene))] == [
            (thing.noun, thing.cell) for thing in scene.objects
        ]


def test_sees_nothing_where_nothing_is():
    empty = Scene(objects=(), background=(130, 120, 125), noise_seed=1)
    assert see(render(empty)) == ()
    assert see(Image.new("L", (64, 64), 90)) == ()
