"""Captions as predictions of lmms-eval and VLMEvalKit."""

import csv
import json

import pytest
import small_benchmarks
import tiny_workspace
from given_captions import give_captions

from opadpo.errors import MissingArtefact
from opadpo.progress import SilentProgress
from opadpo.steps.exporting import export_predictions
from opadpo.steps.sets import make_set

TEXT = 'Yes,\tsaid "she"\nand 是'


@pytest.fixture
def workspace(tiny_llava_folder, tmp_path, monkeypatch):
    files = small_benchmarks.make(tmp_path / "published", monkeypatch)
    made = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=1, heldout=2, evaluate={"files": files})
    make_set(made, "pope", progress=SilentProgress())
    give_captions(made, "base", lambda prompt: TEXT if "dog" in prompt.question else "No", prompt_set="pope")
    return made


def test_samples_of_lmms_eval(workspace):
    path, counts = export_predictions(workspace, "base", "pope", "lmms-eval")
    assert path == workspace.root / "exports" / "lmms-eval" / "base" / "samples_pope.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert counts == {"predictions": 6}
    assert [row["doc_id"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["target"] for row in rows] == ["yes", "no"] * 3
    assert rows[2]["filtered_resps"] == [TEXT]
    assert rows[2]["resps"] == [[TEXT]]
    assert rows[3]["input"] == "Is there a car in the image?"
    assert len({row["doc_hash"] for row in rows}) == 6
    assert rows[0]["prompt_hash"] == rows[2]["prompt_hash"] != rows[1]["prompt_hash"]


def test_table_of_vlmevalkit(workspace, tmp_path):
    path, _ = export_predictions(workspace, "base", "pope", "vlmevalkit", tmp_path / "mine.tsv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, dialect="excel-tab"))
    assert list(rows[0]) == ["index", "image_name", "question", "answer", "category", "prediction"]
    assert [row["category"] for row in rows] == ["random"] * 2 + ["popular"] * 2 + ["adversarial"] * 2
    assert [row["answer"] for row in rows] == ["Yes", "No"] * 3
    assert rows[4]["prediction"] == TEXT
    assert rows[1]["image_name"] == small_benchmarks.COCO_IMAGES[1]
    import pandas

    assert list(pandas.read_csv(path, sep="\t")["prediction"]) == [row["prediction"] for row in rows]


def test_own_sets_have_the_reference_as_their_answer(workspace):
    give_captions(workspace, "base", lambda prompt: "A cat.")
    path, counts = export_predictions(workspace, "base", "heldout", "lmms-eval")
    first = json.loads(path.read_text().splitlines()[0])
    assert counts == {"predictions": 2}
    assert first["filtered_resps"] == ["A cat."]
    assert first["target"]


def test_without_captions_the_command_is_named(workspace):
    with pytest.raises(MissingArtefact, match=r"opadpo caption \S+ --model opa --set pope"):
        export_predictions(workspace, "opa", "pope", "vlmevalkit")
