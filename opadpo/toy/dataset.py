"""Rows of the toy world for the data preparation step, and a parquet file as RLAIF-V publishes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from opadpo.toy.captions import QUESTION, own_caption, reference_caption
from opadpo.toy.world import Scene, png_bytes, render, sample_scene

_TRAIN, _HELD_OUT = 0, 1
_ROW_GROUP = 500


def rows(seed: int, images: int, held_out: int) -> Iterator[dict[str, Any]]:
    """Yield `images` rows for training, then `held_out` rows for evaluation.

    A row depends on the seed, its split and its position only: asking for more rows never changes those
    before.

    Yields:
        image (bytes of a PNG), question, reference (true, complete, in the references' style), rejected
        (None), source ("toy"), split ("train" or "heldout"), extra ({"truth": ...}, see `Scene.truth`).
    """
    for split, stream, count in (("train", _TRAIN, images), ("heldout", _HELD_OUT, held_out)):
        for index in range(count):
            scene, rng = _draw(seed, stream, index)
            yield {
                "image": png_bytes(render(scene)),
                "question": QUESTION,
                "reference": reference_caption(scene, rng),
                "rejected": None,
                "source": "toy",
                "split": split,
                "extra": {"truth": scene.truth()},
            }


def write_rlaifv_parquet(path: Path, seed: int, n: int) -> None:
    """Write `n` toy rows as RLAIF-V publishes its own.

    Columns: ds_name, image {bytes, path}, question, chosen (the reference), rejected (a caption with the
    language prior), origin_dataset ("toy-2", "toy-3" or "toy-4" by number of things), origin_split (JSON),
    idx, image_path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [
            ("ds_name", text),
            ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
            ("question", text),
            ("chosen", text),
            ("rejected", text),
            ("origin_dataset", text),
            ("origin_split", text),
            ("idx", pa.int64()),
            ("image_path", text),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, n, _ROW_GROUP):
            chunk = [_rlaifv_row(seed, index) for index in range(start, min(start + _ROW_GROUP, n))]
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))


def _rlaifv_row(seed: int, index: int) -> dict[str, Any]:
    scene, rng = _draw(seed, _TRAIN, index)
    name = f"toy_{seed}_{index:06d}.png"
    return {
        "ds_name": "toy",
        "image": {"bytes": png_bytes(render(scene)), "path": name},
        "question": QUESTION,
        "chosen": reference_caption(scene, rng),
        "rejected": own_caption(scene, rng),
        "origin_dataset": f"toy-{len(scene.objects)}",
        "origin_split": json.dumps({"model": "toy-base", "type": "detailed_description"}),
        "idx": index,
        "image_path": name,
    }


def _draw(seed: int, stream: int, index: int) -> tuple[Scene, np.random.Generator]:
    """A scene, and the generator that goes on to draw its texts."""
    rng = np.random.default_rng([seed, stream, index])
    return sample_scene(rng), rng
