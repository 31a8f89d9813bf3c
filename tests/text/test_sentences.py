import pytest
from hypothesis import given
from hypothesis import strategies as st

from opadpo.text.sentences import split_sentences


def sentences(text: str) -> list[str]:
    return [text[span.start : span.end] for span in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat sits. A dog runs!", ["A cat sits.", "A dog runs!"]),
        ("Dr. Smith of the U.S. Army waves. He smiles.", ["Dr. Smith of the U.S. Army waves.", "He smiles."]),
        ("It costs 3.5 dollars. It is 1.2 m tall.", ["It costs 3.5 dollars.", "It is 1.2 m tall."]),
        ('He says "Stop. Now." Then he leaves.', ['He says "Stop. Now."', "Then he leaves."]),
        ("It shows:\n1. A cat.\n2. A dog\n- a bird", ["It shows:", "1. A cat.", "2. A dog", "- a bird"]),
        (
            "Mr. J. Smith Jr. left. He is 1.9 m tall, i.e. tall.",
            ["Mr. J. Smith Jr. left.", "He is 1.9 m tall, i.e. tall."],
        ),
        ("It has approx. 3.5 metres. It costs $1,000.25.", ["It has approx. 3.5 metres.", "It costs $1,000.25."]),
        ("1. A red car 2. A dog 3. A cat. It sleeps.", ["1. A red car", "2. A dog", "3. A cat.", "It sleeps."]),
        ("II. A cat\n(b) a dog.\n**3.** A bird. It sings", ["II. A cat", "(b) a dog.", "**3.** A bird.", "It sings"]),
        (
            "They say \u201cStop.\u201d \u00abHalt!\u00bb he adds.",
            ["They say \u201cStop.\u201d", "\u00abHalt!\u00bb he adds."],
        ),
        ("He left. 😀 Then", ["He left.", "😀 Then"]),
        ("It rests. 😀", ["It rests. 😀"]),
        ("यह एक बिल्ली है। वह सो रही है। क्या यह कुत्ता है?", ["यह एक बिल्ली है।", "वह सो रही है।", "क्या यह कुत्ता है?"]),
        (
            "A sign reads 停车。It is red. 旁边有狗。यह है। End.",
            ["A sign reads 停车。", "It is red.", "旁边有狗。", "यह है।", "End."],
        ),
        ("  One.\n\n Two. \n", ["One.", "Two."]),
        ("图片中有一只猫。它在睡觉！旁边有狗吗？", ["图片中有一只猫。", "它在睡觉！", "旁边有狗吗？"]),
        ("هذا كلب. هل ترى القط؟ نعم!", ["هذا كلب.", "هل ترى القط؟", "نعم!"]),
        ("no full stop at all", ["no full stop at all"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_boundaries(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.one_of(st.text(), st.text(alphabet='ab.!?" \n\r\u2028。é12-*(). ')))
def test_every_visible_character_lies_in_exactly_one_span(text: str) -> None:
    spans = split_sentences(text)
    covered = [position for span in spans for position in range(span.start, span.end)]
    assert covered == sorted(set(covered))
    assert all(text[i].isspace() for i in set(range(len(text))) - set(covered))
    assert all(text[s.start : s.end].strip() == text[s.start : s.end] != "" for s in spans)


def test_one_sentence_of_three_thousand_words_is_one_span() -> None:
    text = "word " * 2999 + "end."
    assert sentences(text) == [text]
