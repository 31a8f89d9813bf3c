"""Which rows go where, as properties over arbitrary data."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.records import Split
from opadpo.steps.subsets import Candidate, Selection, Wanted, select, without_duplicates

SOURCES = ("COCO", "VQAv2", "LCS-558K", "TextVQA")

tables = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 4), st.sampled_from(SOURCES)), min_size=1, max_size=150)
wishes = st.builds(Wanted, st.integers(1, 4), st.integers(1, 25), st.integers(0, 20))


def rows_of(table: list[tuple[int, int, str]]) -> list[Candidate]:
    """Rows with the image, question and origin given by numbers; position in the table is position in the data."""
    return [
        Candidate(i, f"row {i}", bytes([image]), bytes([question]), f"{image} {origin}".encode(), origin)
        for i, (image, question, origin) in enumerate(table)
    ]


def contents(selection: Selection) -> list[tuple[str, bytes, bytes, str]]:
    """What was chosen, in order, without where it stood."""
    return [(name, r.image, r.question, r.source) for name, _, rows in selection.named() for r in rows]


@pytest.mark.slow
@given(table=tables, wanted=wishes, seed=st.integers(0, 3))
def test_subsets_are_disjoint_and_share_no_image_with_the_heldout_part(table, wanted, seed) -> None:
    rows, _ = without_duplicates(rows_of(table))
    selection = select(rows, wanted, seed)
    chosen = [row.position for row in selection.all()]
    assert len(chosen) == len(set(chosen))
    assert len(selection.train) == wanted.subsets
    assert all(len(subset) <= wanted.subset_size for subset in selection.train)
    assert len(selection.heldout) <= wanted.heldout_size
    heldout = {row.image for row in selection.heldout}
    assert heldout.isdisjoint(row.image for subset in selection.train for row in subset)
    assert any(selection.train), "held-out rows must leave something to train on"


@pytest.mark.slow
@given(table=tables, wanted=wishes, seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_data_and_the_seed_and_not_on_the_order(table, wanted, seed, shuffle) -> None:
    shuffled = list(table)
    shuffle.shuffle(shuffled)
    first, second = (select(without_duplicates(rows_of(t))[0], wanted, seed) for t in (table, shuffled))
    assert contents(first) == contents(second)


def test_another_seed_gives_another_choice() -> None:
    rows = rows_of([(image, 0, "COCO") for image in range(200)])
    wanted = Wanted(2, 20, 10)
    assert contents(select(rows, wanted, 0)) != contents(select(rows, wanted, 1))


@pytest.mark.slow
@settings(max_examples=40)
@given(
    shares=st.lists(st.integers(20, 400), min_size=1, max_size=5),
    subsets=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_every_subset_has_the_proportions_of_the_whole(shares: list[int], subsets: int, seed: int) -> None:
    table = [(f"origin-{s}", f"{s}.{n}") for s, count in enumerate(shares) for n in range(count)]
    rows = [Candidate(i, "", name.encode(), b"q", b"", origin) for i, (origin, name) in enumerate(table)]
    total = len(rows)
    wanted = Wanted(subsets, total // (2 * subsets), total // 5)
    selection = select(rows, wanted, seed)
    for subset in (*selection.train, selection.heldout):
        found = Counter(row.source for row in subset)
        for stratum, count in enumerate(shares):
            assert abs(found[f"origin-{stratum}"] - len(subset) * count / total) <= 2


def test_too_few_rows_are_shared_in_proportion() -> None:
    rows = rows_of([(image, question, "COCO") for image in range(100) for question in range(1)])
    selection = select(rows, Wanted(4, 100, 100), 0)
    assert [len(subset) for subset in selection.train] == [20, 20, 20, 20]
    assert len(selection.heldout) == 20


def test_one_image_is_never_held_out_from_its_own_training() -> None:
    rows = rows_of([(7, question, "COCO") for question in range(100)])
    selection = select(rows, Wanted(1, 10, 10), 0)
    assert len(selection.train[0]) == 10
    assert selection.heldout == []


def test_duplicates_leave_one_row_whatever_the_order() -> None:
    table = [(1, 1, "COCO"), (1, 1, "VQAv2"), (1, 2, "COCO"), (1, 1, "COCO")]
    for order in range(6):
        shuffled = random.Random(order).sample(table, k=len(table))
        rows, pairs = without_duplicates(rows_of(shuffled))
        assert Counter((r.question, r.source) for r in rows) == {(b"\1", "COCO"): 1, (b"\2", "COCO"): 1}
        assert len(pairs) == 2
        assert all(stays in rows and goes not in rows for goes, stays in pairs)


def test_rows_stay_in_the_split_that_the_source_gives_them() -> None:
    rows = [
        Candidate(i, "", bytes([i]), b"q", b"", "toy", split="heldout" if i % 3 == 0 else "train") for i in range(90)
    ]
    selection = select(rows, Wanted(2, 20, 25), 5)
    assert [len(s) for s in selection.train] == [20, 20]
    assert len(selection.heldout) == 25
    assert all(row.split == split for _, split, subset in selection.named() for row in subset)


def test_an_image_in_both_splits_of_the_source_is_held_out() -> None:
    table: list[tuple[int, bytes, Split]] = [
        (1, b"a", "train"),
        (1, b"b", "heldout"),
        (2, b"a", "train"),
        (3, b"c", "heldout"),
        (3, b"c", "train"),
    ]
    rows = [Candidate(i, "", bytes([n]), q, b"", "toy", split=s) for i, (n, q, s) in enumerate(table)]
    kept, pairs = without_duplicates(rows)
    assert [goes.position for goes, _ in pairs] == [4]
    selection = select(kept, Wanted(1, 10, 10), 0)
    assert [row.position for row in selection.train[0]] == [2]
    assert sorted(row.position for row in selection.heldout) == [1, 3]
