"""POPE's figures equal the released script's where it gives any; clean reading is the default."""

import json
from pathlib import Path

import pytest

from opadpo.errors import DataError, MissingArtefact
from opadpo.evaluation.answers import read_answer
from opadpo.evaluation.figures import total
from opadpo.evaluation.pope import pope_figures, read_questions, score

RECORDED = json.loads((Path(__file__).parents[1] / "vectors" / "pope.json").read_text(encoding="utf-8"))


def test_as_released_reads_and_counts_as_the_script_does() -> None:
    answers = [row["answer"] for row in RECORDED["answers"]]
    result = score(answers, [row["label"] for row in RECORDED["answers"]], as_released=True)
    assert [item.predicted for item in result.items] == [row["predicted"] for row in RECORDED["answers"]]
    for name in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
        assert result.metrics[name] == pytest.approx(100 * RECORDED["totals"][name], rel=1e-12)


def test_where_the_script_divides_by_zero_the_figure_is_zero() -> None:
    case = RECORDED["extra"][0]
    metrics = score(case["answers"], case["labels"], as_released=True).metrics
    assert (metrics["accuracy"], metrics["precision"], metrics["recall"], metrics["f1"]) == (50.0, 0.0, 0.0, 0.0)


def test_answers_that_the_script_would_cut_away_are_asked_for() -> None:
    case = RECORDED["extra"][1]
    with pytest.raises(DataError, match="3 answers, 5 labels"):
        score(case["answers"], case["labels"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes.", "yes"),
        ("no!", "no"),
        ("NO", "no"),
        ("  No\n", "no"),
        ("Nope, none here", "no"),
        ("There isn't a dog.", "no"),
        ("There isn’t a dog.", "no"),
        ("It cannot be seen", "no"),
        ("Yes, there is no doubt: a dog.", "yes"),
        ("No, yes", "no"),
        ("是", "yes"),
        ("", None),
        ("A dog.", None),
        ("A dog. There is no cat.", None),
        ("Nothing", None),
        ("I'm sorry, I cannot tell whether there is a dog.", None),
        ("I can’t reliably say", None),
        ("Not sure.", None),
        ("I don't know if there is no dog", None),
        ("Not visible", "no"),
        ("No, I cannot say more.", "no"),
    ],
)
def test_clean_reading(text: str, said: str | None) -> None:
    assert read_answer(text) == said


def test_no_answer_is_wrong_but_neither_yes_nor_no() -> None:
    metrics = score(["", "Yes"], ["no", "yes"]).metrics
    assert metrics == {
        "accuracy": 50.0,
        "precision": 100.0,
        "recall": 100.0,
        "f1": 100.0,
        "yes_ratio": 50.0,
        "answered": 50.0,
        "false_yes": 0.0,
    }


def test_a_strange_label_is_refused() -> None:
    with pytest.raises(DataError, match="maybe"):
        score(["Yes"], ["maybe"])


def test_categories_have_figures_of_their_own_and_all_are_pooled() -> None:
    result = score(["Yes", "Yes", "No"], ["yes", "no", "no"], categories=["random", "random", "popular"])
    assert result.metrics["accuracy"] == pytest.approx(200 / 3)
    assert (result.metrics["random/false_yes"], result.metrics["popular/false_yes"]) == (100.0, 0.0)
    assert result.metrics["false_yes"] == 50.0
    assert not any(name.startswith("adversarial/") for name in result.metrics)
    assert pope_figures(total(item.counts() for item in result.items)) == result.metrics


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"question_id": 1, "image": "a.jpg", "text": "A?", "label": "yes"}\n' * 2, "comes twice"),
        ('{"question_id": 1, "image": "a.jpg", "te', "JSONDecodeError"),
        ('{"question_id": 1, "image": "a.jpg", "text": "A?"}\n', "label"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "coco_pope_random.json"
    with pytest.raises(MissingArtefact, match=r"coco_pope_random\.json"):
        read_questions(path, "random")
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_questions(path, "random")
