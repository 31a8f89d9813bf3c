"""What counts where several people reviewed a record, and how far they agree."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opadpo.records import Revision
from opadpo.review.agreement import Agreement, agreement, coincidences, ordinal_alpha
from opadpo.review.store import ReviewStore
from opadpo.review.verdicts import Verdict, review_counts, verdicts
from opadpo.text.revising import Decision, compose

RESPONSE = "A cat. A dog. A cow."
KEEP, WORSE, WORST = (Decision(),), (Decision("edited", "A pig.", score=3),), (Decision("edited", "A pig.", score=1),)


def made(author: str, first: tuple[Decision, ...] = KEEP, parent: Revision | None = None, **fields: Any) -> Revision:
    sentences, text = compose(RESPONSE, [*first, Decision(), Decision("deleted", score=1)])
    values: dict[str, Any] = {"rollout_id": "r-1", "author_kind": "human", **fields}
    parent_id = parent.revision_id if parent else None
    return Revision.create(author=author, sentences=sentences, text=text, parent_revision_id=parent_id, **values)


EXPERT = made("gpt", author_kind="expert")


def verdict(store: ReviewStore, *added: Revision, by: tuple[str, ...] = ()) -> Verdict | None:
    store.append([EXPERT, *added])
    return verdicts(store, by).get("r-1")


def test_one_review_is_the_sole_one_and_its_author_may_change_it(opener: Callable[[], ReviewStore]) -> None:
    with opener() as store:
        assert verdict(store) is None
        first = made("ann", WORSE, EXPERT)
        assert verdict(store, first) == Verdict("sole", first.revision_id, "done", ["ann"])
        second = made("ann", KEEP, first, status="rejected", note="blurred")
        assert verdict(store, second) == Verdict("sole", second.revision_id, "rejected", ["ann"])
        store.undo("ann")
        assert verdict(store) == Verdict("sole", first.revision_id, "done", ["ann"])
        store.undo("ann")
        assert verdict(store) is None


def test_people_who_looked_on_their_own_must_agree(opener: Callable[[], ReviewStore]) -> None:
    with opener() as store:
        ann, ben = made("ann", WORSE, EXPERT, note="a pig"), made("ben", WORSE, EXPERT)
        assert verdict(store, ann, ben) == Verdict("agreed", ben.revision_id, "done", ["ann", "ben"])
        cid = made("cid", WORST, EXPERT)
        assert verdict(store, cid) == Verdict("disagreed", None, None, ["ann", "ben", "cid"])
        assert review_counts(store) == {"reviewed": 1, "rejected": 0, "flagged": 0, "unresolved": 1}
        settled = made("ben", WORST, cid)
        assert verdict(store, settled) == Verdict("adjudicated", settled.revision_id, "done", ["ben"])
        assert verdict(store, by=("ann",)) == Verdict("adjudicated", ann.revision_id, "done", ["ann"])
        assert review_counts(store)["unresolved"] == 0
        assert (
            list(verdicts(store, among=["r-1"]))
            == list(verdicts(store, among=[f"r-{i}" for i in range(600)]))
            == ["r-1"]
        )
        assert verdicts(store, among=["r-2"]) == {}


@pytest.fixture
def store(tmp_path):
    with ReviewStore.open(tmp_path / "reviews.db") as opened:
        yield opened


def test_accepting_and_rejecting_is_no_agreement(store):
    found = verdict(store, made("ann", WORSE, EXPERT), made("ben", WORSE, EXPERT, status="rejected", note="blurred"))
    assert found == Verdict("disagreed", None, None, ["ann", "ben"])


def test_rejections_agree_whatever_their_texts(store):
    found = verdict(store, *(made(n, w, EXPERT, status="rejected", note=n) for n, w in [("ann", KEEP), ("ben", WORSE)]))
    assert found is not None
    assert (found.how, found.status) == ("agreed", "rejected")


def test_a_flag_stands_until_somebody_decides_on_top_of_it(store):
    flag = made("ann", KEEP, EXPERT, status="flagged", note="a cow?")
    found = verdict(store, flag, by=("ann",))
    assert found == Verdict("sole", flag.revision_id, "flagged", ["ann"])
    assert review_counts(store)["flagged"] == 1
    accepted = made("ben", KEEP, flag)
    assert verdict(store, accepted, by=("ann",)) == Verdict("adjudicated", accepted.revision_id, "done", ["ben"])


def test_a_new_expert_revision_is_no_review(store):
    ann = made("ann", WORSE, EXPERT)
    assert verdict(store, ann, made("gpt-2", author_kind="expert")) == Verdict("sole", ann.revision_id, "done", ["ann"])


def test_alpha_of_the_published_example():
    # Four observers, twelve units, missing values: Krippendorff 2011; 0.815 is the value given there for ranks.
    units = [
        [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4], [1, 1, 2, 1],
        [2, 2, 2, 2], [5, 5, 5], [1, 1],
    ]  # fmt: skip
    assert ordinal_alpha(coincidences(units)) == pytest.approx(0.815, abs=5e-4)


units_of_scores = st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=4), min_size=1, max_size=20)


@given(units_of_scores)
def test_alpha_is_one_only_where_all_agree(units):
    alpha = ordinal_alpha(coincidences(units))
    agree = all(len(set(given_scores)) == 1 for given_scores in units)
    if alpha is None:
        assert len({score for given_scores in units for score in given_scores}) == 1
    else:
        assert (alpha == pytest.approx(1)) == agree
        assert alpha <= 1 + 1e-9


@pytest.mark.slow
def test_agreement_is_of_those_who_did_not_see_each_other(store):
    assert agreement(store) is None
    ann = made("ann", WORSE, EXPERT)
    verdict(store, ann, made("ben", KEEP, ann))
    assert agreement(store) is None
    verdict(store, made("cid", WORST, EXPERT))
    found = agreement(store)
    assert isinstance(found, Agreement)
    assert (found.records, found.sentences, found.equal_scores) == (1, 3, pytest.approx(2 / 3))
    assert found.alpha == ordinal_alpha(coincidences([[3, 1], [4, 4], [1, 1]]))
    assert found.text().startswith("people who reviewed the same 1 records on their own gave 67 % of 3 sentences")
