"""CHAIR on a small made-up split of COCO."""

import json
from pathlib import Path

import pytest

from opadpo.errors import DataError, MissingArtefact
from opadpo.evaluation.chair import CategoryReader, chair_figures, load_truth, score
from opadpo.evaluation.coco_words import CATEGORY_WORDS
from opadpo.evaluation.figures import total

TRUTH = {1: frozenset({"person", "dog", "frisbee"}), 2: frozenset({"pizza", "dining table"})}


def test_there_are_cocos_80_categories_and_a_word_has_one() -> None:
    assert len(CATEGORY_WORDS) == 80
    words = [word for name, others in CATEGORY_WORDS.items() for word in (name, *others)]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    ("text", "categories"),
    [
        ("Two men eat hot dogs.", ["person", "hot dog"]),
        ("A dog beside a hot-dog stand", ["dog", "hot dog"]),
        ("Knives, buses and mice on the shelves", ["knife", "bus", "mouse"]),
        ("A clock tower by the train tracks", []),
        ("A teddy bear, a polar bear and a bear", ["teddy bear", "bear", "bear"]),
        ("Skis lean on a couch; his skis are red.", ["skis", "couch", "skis"]),
        ("", []),
    ],
)
def test_phrases_are_read_longest_first(text: str, categories: list[str]) -> None:
    assert [category for _, category in CategoryReader().read(text)] == categories


def test_mentions_are_counted_as_in_the_paper() -> None:
    result = score([(1, "A man, a puppy and two cats. A cat!"), (2, "A pizza.")], TRUTH)
    assert result.items[0].hallucinated == (("cat", "cat"), ("cat", "cat"))
    assert result.items[0].missed == ("frisbee",)
    assert result.metrics == pytest.approx({"chair_i": 40.0, "chair_s": 50.0, "recall": 60.0, "length": 5.5})
    assert result.metrics == chair_figures(total(item.counts() for item in result.items))


def test_the_truth_is_instances_and_what_people_name(tmp_path: Path) -> None:
    boxes = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 18}],
    }
    (tmp_path / "instances_val2014.json").write_text(json.dumps(boxes))
    texts = {"annotations": [{"image_id": 1, "caption": "A puppy with a frisbee"}]}
    (tmp_path / "captions_val2014.json").write_text(json.dumps(texts))
    assert load_truth(tmp_path) == {1: {"dog", "frisbee"}, 2: set()}

    (tmp_path / "captions_val2014.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_truth(tmp_path)
    (tmp_path / "captions_val2014.json").unlink()
    with pytest.raises(MissingArtefact, match=r"captions_val2014\.json"):
        load_truth(tmp_path)


@pytest.mark.parametrize(
    ("rows", "told"), [([], "0 captions"), ([(1, ""), (1, "")], "1 captioned"), ([(9, "")], r"\[9\]")]
)
def test_captions_of_other_images_are_refused(rows: list[tuple[int, str]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        score(rows, TRUTH)
