from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from opadpo.text.worddiff import Change, changed_share, edit_distance, tokens, word_diff, words

MIXED = st.one_of(st.text(max_size=40), st.text(alphabet="ab c.,'’猫狗。 é\u0301\u200d👍🏽\n", max_size=40))
ITEMS = st.lists(st.sampled_from("abc"), max_size=12)


@given(MIXED, MIXED)
def test_both_versions_can_be_read_off_the_difference(first: str, second: str) -> None:
    changes = word_diff(first, second)
    assert "".join(c.text for c in changes if c.op != "insert") == first
    assert "".join(c.text for c in changes if c.op != "delete") == second
    assert all(c.text for c in changes)
    assert all(a.op != b.op for a, b in pairwise(changes))
    assert (first == second) == all(c.op == "equal" for c in changes)


@given(MIXED)
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_a_swap_of_one_word_leaves_the_rest_alone() -> None:
    assert word_diff("There is a cup, at the top.", "There is a book, at the top.") == [
        Change("equal", "There is a "),
        Change("delete", "cup"),
        Change("insert", "book"),
        Change("equal", ", at the top."),
    ]


def test_chinese_differs_by_character() -> None:
    assert word_diff("图中有一只猫。", "图中有一只狗。") == [
        Change("equal", "图中有一只"),
        Change("delete", "猫"),
        Change("insert", "狗"),
        Change("equal", "。"),
    ]


def test_a_phrase_replaced_by_another_reads_as_one_change() -> None:
    assert [c.op for c in word_diff("the big red dog", "the tiny cat")] == ["equal", "delete", "insert"]


def test_marks_stay_with_their_letters_and_apostrophes_inside_words() -> None:
    text = "It isn't e\u0301te\u0301, हिन्दी 👍🏽."
    assert words(text) == (
        "It",
        "isn't",
        "e\u0301te\u0301",
        ",",
        "हिन्दी",
        "👍🏽",
        ".",
    )


@given(ITEMS, ITEMS)
def test_edit_distance_is_levenshtein(first: list[str], second: list[str]) -> None:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        previous, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    assert edit_distance(first, second) == row[-1]


def test_changed_share() -> None:
    assert changed_share("A cup at the top", "A cup at the top") == 0
    assert changed_share("A cup at the top", "A book at the top") == 0.2
    assert changed_share("A cup", "Some other thing entirely") == 1
    assert changed_share("", "") == 0
