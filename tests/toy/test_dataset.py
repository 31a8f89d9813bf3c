import io
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from opadpo.toy.chair import score
from opadpo.toy.dataset import rows, write_rlaifv_parquet
from opadpo.toy.sight import truth_of


def test_rows_are_true_split_and_disjoint():
    made = list(rows(7, images=30, held_out=10))
    assert [row["split"] for row in made] == ["train"] * 30 + ["heldout"] * 10
    assert len({row["image"] for row in made}) == 40
    for row in made:
        assert truth_of(Image.open(io.BytesIO(row["image"]))) == row["extra"]["truth"]
    metrics = score([row["reference"] for row in made], [row["extra"]["truth"] for row in made]).metrics
    assert (metrics.chair_s, metrics.coverage) == (0.0, 100.0)


def test_a_row_does_not_depend_on_how_many_are_asked_for():
    assert list(islice(rows(7, images=50, held_out=0), 10)) == list(rows(7, images=10, held_out=0))
    assert list(rows(7, images=2, held_out=3))[2:] == list(rows(7, images=0, held_out=3))
    assert next(rows(8, images=1, held_out=0))["image"] != next(rows(7, images=1, held_out=0))["image"]


def test_parquet_has_the_published_columns_and_readable_images(tmp_path: Path):
    path = tmp_path / "toy.parquet"
    write_rlaifv_parquet(path, seed=1, n=12)
    table = pq.read_table(path)
    assert table.column_names == [
        "ds_name",
        "image",
        "question",
        "chosen",
        "rejected",
        "origin_dataset",
        "origin_split",
        "idx",
        "image_path",
    ]
    records = table.to_pylist()
    assert [record["idx"] for record in records] == list(range(12))
    truths = [truth_of(Image.open(io.BytesIO(record["image"]["bytes"]))) for record in records]
    assert score([record["chosen"] for record in records], truths).metrics.coverage == 100.0
    assert {record["origin_dataset"] for record in records} <= {"toy-2", "toy-3", "toy-4"}
