"""Small input data for the tests of `prepare`."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from opadpo.workspace import Workspace

ORIGINS = ("COCO", "COCO", "COCO", "VQAv2")
"""Three of four rows are from COCO."""


def image_bytes(number: int, kind: str = "PNG", side: int = 24, mode: str = "RGB", **options: Any) -> bytes:
    """A noisy picture; every number gives another one."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def rlaifv_rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Rows in the shape of RLAIF-V, each with an image of its own; `changes` replaces values in all of them."""
    return [
        {
            "ds_name": "test",
            "image": {"bytes": image_bytes(index), "path": f"{index}.png"},
            "question": f"What is in picture {index}?",
            "chosen": f"Noise number {index}.",
            "rejected": f"A cat in picture {index}.",
            "origin_dataset": ORIGINS[index % len(ORIGINS)],
            "origin_split": json.dumps({"type": "detailed_description"}),
            "idx": index,
            "image_path": f"{index}.png",
            **changes,
        }
        for index in range(count)
    ]


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], row_group_size: int = 16) -> Path:
    """Write rows as Parquet, in row groups of a few rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path, row_group_size=row_group_size)
    return path


def make_workspace(folder: Path, base: Path, source: Mapping[str, Any], **prepare: Any) -> Workspace:
    """A workspace with this data source; by default 2 x 20 rows and 8 held out."""
    sizes = {"subsets": 2, "subset_size": 20, "heldout_size": 8, **prepare}
    recipe = {
        "model": {"base": str(base)},
        "prepare": {"source": dict(source), **sizes},
        "train": {"opa": {"responses": ["revised"]}, "opadpo": {"loss": {"standard_pair_coef": 0}}},
    }
    return Workspace.create(folder, json.dumps(recipe))
