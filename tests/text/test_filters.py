"""The repetition filters, against the released ones and where ours are better on purpose."""

import json
from pathlib import Path

import pytest

from opadpo.text.filters import repeats_last_sentence, repeats_last_word

VECTORS = Path(__file__).parents[1] / "vectors" / "text_filters.json"
CASES = {case["note"]: case for case in json.loads(VECTORS.read_text())["cases"]}

INTENDED_DIFFERENCES = {
    "repeat, no final full stop: the LAST COMPLETE sentence is tested, the tail is ignored": (
        "a repetition is one without a final full stop, too"
    ),
    "ellipsis at the end": "an ellipsis is no repetition",
    "last sentence is a substring of an earlier, longer one": "sentences are compared whole",
}


@pytest.mark.parametrize("note", CASES)
def test_as_released(note):
    case = CASES[note]
    assert repeats_last_sentence(case["text"], as_released=True) is case["has_repeating_last_sentence"]
    assert repeats_last_word(case["text"]) is case["has_repeating_last_word"]


@pytest.mark.parametrize("note", CASES)
def test_ours_differs_only_where_intended(note):
    case = CASES[note]
    agrees = repeats_last_sentence(case["text"]) is case["has_repeating_last_sentence"]
    assert agrees is (note not in INTENDED_DIFFERENCES)


def test_every_difference_is_a_case():
    assert CASES.keys() >= INTENDED_DIFFERENCES.keys()


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("The tower is 3.5 m high. The wall is 3.5 m high.", False),
        ("The tower is 3.5 m high. The wall is low. The tower is 3.5 m high.", True),
        ("What a dog! It runs. What a dog!", True),
        ('He says "stop." She waits. He says "stop."', True),
        ("A man met Mr. Smith. A woman met Mr. Smith.", False),
        ("一只狗在跑。一只猫在睡。一只狗在跑。", True),
        ("A dog runs.\nA cat sleeps.\nA dog runs", True),
        ("A dog runs! A dog runs.", True),
        ("...", False),
        ("", False),
    ],
)
def test_sentences(text, repeats):
    assert repeats_last_sentence(text) is repeats


def test_empty_text_has_no_last_word():
    assert repeats_last_word(" ") is False
