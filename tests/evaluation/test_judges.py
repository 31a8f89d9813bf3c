"""What judges are told and how their answers are read; a judgement that cannot be read is none."""

import json

import pytest

from opadpo.errors import DataError, MissingArtefact, UserError
from opadpo.evaluation import llava_bench, mmhal
from opadpo.evaluation.figures import total


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ('{"reason": "fine", "rating": 4}', 4),
        ('```json\n{"rating": "5", "reason": ""}\n```', 5),
        ("The answer is vague.\nRating: 3, not informative, no hallucination", 3),
        ("**Rating:** 0", 0),
        ("Rating: 6\n\nAs said, rating: 6.", 6),
        ("Rating: 2. On second thoughts rating: 4", None),
        ("Rating: 7", None),
        ("Rating: 3.5", None),
        ('{"reason": "fine", "rating": 4.5}', None),
        ('{"reason": "fine", "rating": true}', None),
        ('{"reason": "no rating"}', None),
        ("I cannot judge this.", None),
        ("", None),
    ],
)
def test_ratings(text, rating):
    found = mmhal.read_rating(text)
    assert (found.rating if found else None) == rating


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("8 7\nAssistant 1 is better.", (8, 7)),
        ("\n 8.5, 7", (8.5, 7)),
        ("9/10 6/10", (9, 6)),
        ("8", None),
        ("8 7 6", None),
        ("11 3", None),
        ("0 3", None),
        ("Both are good.\n8 7", None),
        ("", None),
    ],
)
def test_pairs_of_scores(text, scores):
    assert llava_bench.read_scores(text) == scores


def test_figures_of_ratings():
    sums = total(
        [
            mmhal.counts(mmhal.Rating(6, ""), "attribute"),
            mmhal.counts(mmhal.Rating(2, ""), "attribute"),
            mmhal.counts(mmhal.Rating(3, ""), "counting"),
            mmhal.counts(mmhal.Rating(0, ""), "counting"),
        ]
    )
    assert mmhal.figures(sums) == {
        "score": 2.75,
        "hallucination": 50.0,
        "attribute/score": 4.0,
        "attribute/hallucination": 50.0,
        "counting/score": 1.5,
        "counting/hallucination": 50.0,
    }


def test_figures_of_scores_are_a_share_of_the_reference_s():
    sums = total(
        [
            llava_bench.counts(llava_bench.Scores(8, 6.5), "conv"),
            llava_bench.counts(llava_bench.Scores(10, 9), "detail"),
        ]
    )
    found = llava_bench.figures(sums)
    assert found == pytest.approx({"relative": 100 * 15.5 / 18, "conv/relative": 81.25, "detail/relative": 90.0})


KNOWN = {"content": ["Dog", "Hat"], "truth": "Two {dogs}."}


def test_the_authors_instructions_are_filled_in_their_order(tmp_path):
    path = tmp_path / "template.txt"
    path.write_text("Content {}\nQuestion {}\nTruth {}\nAnswer {}\nend")
    (message,) = mmhal.messages(KNOWN, "How many?", "One {} dog.", mmhal.read_template(str(path)))
    assert message.text == "Content Dog, Hat\nQuestion How many?\nTruth Two {dogs}.\nAnswer One {} dog.\nend"
    path.write_text("{} {}")
    with pytest.raises(UserError, match="four places"):
        mmhal.read_template(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        mmhal.read_template(str(tmp_path / "none.txt"))


def test_our_instructions_hold_everything():
    system, asked = mmhal.messages(KNOWN, "How many?", " ", None)
    assert system.role == "system"
    assert all(f"\n{rating}: " in system.text for rating in range(7))
    for part in ("Dog, Hat", "How many?", "Two {dogs}.", "the model said nothing"):
        assert part in asked.text


def test_the_reference_stands_first():
    known = {"context": ["A dog.", "A hat."], "role": "Assistant", "rule": "Score both.", "reference": "One dog."}
    _, asked = llava_bench.messages(known, "How many?", "Two dogs.")
    assert asked.text == (
        "[Context]\nA dog.\nA hat.\n\n[Question]\nHow many?\n\n[Assistant 1]\nOne dog.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nTwo dogs.\n\n[End of Assistant 2]\n\n[System]\nScore both.\n\n"
    )


def test_files_that_are_not_what_they_should_be(tmp_path):
    path = tmp_path / "response_template.json"
    with pytest.raises(MissingArtefact, match="MMHal-Bench is missing"):
        mmhal.read_questions(path)
    path.write_text(json.dumps([{"question": "?"}]))
    with pytest.raises(DataError, match="cannot be read"):
        mmhal.read_questions(path)
    files = [tmp_path / name for name in ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl", "rule.json")]
    with pytest.raises(MissingArtefact, match="LLaVA-Bench is missing"):
        llava_bench.read_questions(*files)
    for file in files:
        file.write_text("{}")
    files[0].write_text('{"question_id": 0, "image": "001.jpg", "category": "poem", "text": "?"}')
    with pytest.raises(DataError, match="do not belong together"):
        llava_bench.read_questions(*files)
