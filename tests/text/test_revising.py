import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opadpo.records import assemble
from opadpo.text.revising import Addition, Decision, compose, core_span
from opadpo.text.sentences import split_sentences

KEEP, DROP = Decision(), Decision("deleted", score=1, error_type="image_recognition_error")


def edit(text: str) -> Decision:
    return Decision("edited", text, 2, "image_recognition_error")


@st.composite
def revisions(draw: st.DrawFn) -> tuple[str, list[Decision], list[Addition]]:
    pieces = draw(st.lists(st.sampled_from(["A cat sits.", "Dogs run!", "- item", "猫。", "Is it so?"]), max_size=6))
    gap = st.sampled_from([" ", "  ", "\n", "\n\n", "", "\u2028"])
    response = "".join(draw(gap) + piece for piece in pieces) + draw(gap)
    choice = st.sampled_from([KEEP, KEEP, DROP, DROP, edit("Something else.")])
    decisions = [draw(choice) for _ in split_sentences(response)]
    after = st.integers(0, len(decisions))
    additions = draw(st.lists(st.builds(Addition, after, st.sampled_from(["New.", " More! ", "新。"])), max_size=3))
    return response, decisions, additions


@given(revisions())
def test_text_is_what_the_records_assemble_to_and_spans_never_overlap(
    case: tuple[str, list[Decision], list[Addition]],
) -> None:
    response, decisions, additions = case
    records, text = compose(response, decisions, additions)
    assert text == assemble(response, records)
    assert all(a.end <= b.start for a, b in pairwise(records))
    assert len(records) == len(decisions) + len(additions)
    own = [r for r in records if r.kind != "added"]
    assert [r.index for r in own] == list(range(len(own)))
    assert [core_span(r) for r in own] == list(split_sentences(response))


@given(revisions())
def test_kept_sentences_stay_in_order_and_new_ones_are_where_they_belong(
    case: tuple[str, list[Decision], list[Addition]],
) -> None:
    response, decisions, additions = case
    _, text = compose(response, decisions, additions)
    expected: list[str] = []
    for position in range(len(decisions) + 1):
        expected += [a.text.strip() for a in additions if a.after == position]
        if position < len(decisions) and decisions[position].kind != "deleted":
            span = split_sentences(response)[position]
            expected.append(decisions[position].revised or response[span.start : span.end])
    assert "".join(text.split()) == "".join("".join(expected).split())


@pytest.mark.slow
@given(revisions())
def test_white_space_is_never_made_longer(case: tuple[str, list[Decision], list[Addition]]) -> None:
    response, decisions, additions = case
    _, text = compose(response, decisions, additions)
    there = set(re.findall(r"\s+", response)) | {" "}
    assert set(re.findall(r"\s+", text)) <= there
    if decisions and not additions and all(d.kind == "deleted" for d in decisions):
        assert text == ""


@given(st.text())
def test_keeping_everything_gives_the_response_back(response: str) -> None:
    records, text = compose(response, [KEEP] * len(split_sentences(response)))
    assert text == response
    assert all(r.kind == "kept" for r in records)


@pytest.mark.parametrize(
    ("response", "decisions", "expected"),
    [
        ("Aa. Bb. Cc.", [KEEP, DROP, KEEP], "Aa. Cc."),
        ("Aa. Bb. Cc.", [DROP, KEEP, KEEP], "Bb. Cc."),
        ("Aa. Bb. Cc.", [KEEP, KEEP, DROP], "Aa. Bb."),
        ("Aa. Bb. Cc.", [DROP, DROP, DROP], ""),
        (" Aa. Bb. ", [KEEP, DROP], " Aa. "),
        ("Aa.\nBb. Cc.", [KEEP, DROP, KEEP], "Aa.\nCc."),
        ("Aa. Bb.\nCc.", [KEEP, DROP, KEEP], "Aa.\nCc."),
        ("Aa.\nBb. Cc. Dd.", [KEEP, DROP, DROP, KEEP], "Aa.\nDd."),
        ("- a\n- b\n- c\n", [KEEP, DROP, KEEP], "- a\n- c\n"),
        ("- a\n- b\n- c\n", [KEEP, KEEP, DROP], "- a\n- b\n"),
        ("猫。狗。鸟。", [KEEP, DROP, KEEP], "猫。鸟。"),
    ],
)
def test_what_a_deletion_leaves(response: str, decisions: list[Decision], expected: str) -> None:
    assert compose(response, decisions)[1] == expected


@pytest.mark.parametrize(
    ("response", "decisions", "additions", "expected"),
    [
        ("Aa. Bb.", [KEEP, KEEP], [Addition(1, "New.")], "Aa. New. Bb."),
        ("Aa. Bb.", [KEEP, KEEP], [Addition(0, "New.")], "New. Aa. Bb."),
        ("Aa. Bb.", [KEEP, KEEP], [Addition(2, "New."), Addition(2, "More.")], "Aa. Bb. New. More."),
        ("Aa. Bb.", [DROP, KEEP], [Addition(0, "New."), Addition(1, "More.")], "New. More. Bb."),
        ("Aa. Bb.", [KEEP, DROP], [Addition(2, "New.")], "Aa. New."),
        ("Aa. Bb.", [DROP, DROP], [Addition(0, "New."), Addition(2, "More.")], "New. More."),
        ("Aa.\n\nBb.", [KEEP, KEEP], [Addition(1, "New.")], "Aa. New.\n\nBb."),
        ("猫。狗。", [KEEP, KEEP], [Addition(1, "新。")], "猫。新。狗。"),
        ("", [], [Addition(0, "New.")], "New."),
    ],
)
def test_where_an_added_sentence_goes(
    response: str, decisions: list[Decision], additions: list[Addition], expected: str
) -> None:
    assert compose(response, decisions, additions)[1] == expected


def test_a_rewriting_of_most_words_is_flagged() -> None:
    response = "A cup stands at the top. A dog sits at the left."
    records, _ = compose(response, [edit("A bird stands at the top."), edit("Nothing of it.")], minimal_share=0.6)
    assert [r.not_minimal for r in records] == [False, True]


@pytest.mark.parametrize(
    ("decisions", "additions"),
    [
        ([KEEP], []),
        ([KEEP, edit(" ")], []),
        ([KEEP, edit("Bb.")], []),
        ([KEEP, Decision("edited", "Cc.", 4)], []),
        ([KEEP, KEEP], [Addition(3, "New.")]),
        ([KEEP, KEEP], [Addition(1, " ")]),
    ],
)
def test_impossible_decisions_are_refused(decisions: list[Decision], additions: list[Addition]) -> None:
    with pytest.raises(ValueError, match=r"decisions|sentence|cannot add|score"):
        compose("Aa. Bb.", decisions, additions)
