"""The expert against the people who checked it, from real revisions in a real store."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from opadpo import plots
from opadpo.records import Revision
from opadpo.review.store import ReviewStore
from opadpo.review.trust import Trust, checked_pairs, trust
from opadpo.text.revising import Addition, Decision, compose

RESPONSE = "A cat sits here. A red dog runs. The sky is green."
IMAGE, LANGUAGE = "image_recognition_error", "language_comprehension_error"
BLUE = Decision("edited", "A blue dog runs.", 2, IMAGE)
NAVY = Decision("edited", "A navy blue dog sleeps.", 3, LANGUAGE)
GONE = Decision("deleted", "", 1, IMAGE)
KEEP = Decision()


def revision(
    decisions: list[Decision], added: list[Addition] | None = None, parent: Revision | None = None, name: str = "r"
) -> Revision:
    sentences, text = compose(RESPONSE, decisions, added or [])
    return Revision.create(
        rollout_id=parent.rollout_id if parent else name,
        parent_revision_id=parent.revision_id if parent else None,
        author_kind="human" if parent else "expert",
        author="someone",
        sentences=sentences,
        text=text,
    )


def test_sentences_are_counted_by_what_became_of_them() -> None:
    expert = revision([KEEP, BLUE, GONE], [Addition(3, "It rains.")])
    person = revision([KEEP, NAVY, KEEP], [Addition(0, "Look.")], parent=expert)
    found = trust([(expert, person), (expert, revision([KEEP, BLUE, GONE], [Addition(3, "It rains.")], parent=expert))])
    assert (found.responses, found.untouched, found.sentences, found.accepted) == (2, 1, 6, 4)
    assert (found.added, found.added_accepted) == (2, 1)
    # "blue dog runs" -> "navy blue dog sleeps": one inserted, one replaced; nothing -> "The sky is green ."
    assert (found.words_changed, found.words) == (2 + 5, 6 + 5)
    assert found.edit_distance == 3.5
    assert found.scores["2"] == {"1": 0, "2": 1, "3": 1, "4": 0}
    assert found.scores["1"] == {"1": 1, "2": 0, "3": 0, "4": 1}
    assert found.error_types[IMAGE] == {"correct": 1, IMAGE: 2, LANGUAGE: 1}
    assert "67 % of 6 sentences accepted, 3.5 words changed" in found.text()
    assert "same score 4 of 6, same error type 4" in found.text()


def test_a_person_is_compared_with_the_revision_that_they_started_from(tmp_path: Path) -> None:
    first = revision([KEEP, BLUE, GONE])
    once = revision([KEEP, NAVY, GONE], parent=first)
    twice = revision([KEEP, BLUE, GONE], parent=once)
    later = revision([KEEP, KEEP, KEEP])
    unchecked = revision([KEEP, KEEP, GONE], name="other")
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        store.append([first, once, twice, later, unchecked])
        pairs = list(checked_pairs(store))
    assert pairs == [(first, twice)]
    assert trust(pairs).acceptance == 1


decision = st.sampled_from([KEEP, BLUE, NAVY, GONE])


@given(st.lists(st.tuples(*[st.tuples(decision, decision)] * 3), max_size=5))
def test_every_sentence_is_in_each_matrix_once(cases: list[tuple[tuple[Decision, Decision], ...]]) -> None:
    pairs = []
    for case in cases:
        expert = revision([ours for ours, _ in case])
        pairs.append((expert, revision([theirs for _, theirs in case], parent=expert)))
    found = trust(pairs)
    for matrix in (found.scores, found.error_types):
        assert sum(sum(row.values()) for row in matrix.values()) == found.sentences == 3 * len(cases)
    assert found.words_changed <= found.words
    assert found.accepted == sum(
        ours.revised == theirs.revised and ours.kind == theirs.kind for case in cases for ours, theirs in case
    )
    assert Trust.model_validate_json(found.model_dump_json()) == found


def test_the_figure_shows_every_count(tmp_path: Path) -> None:
    expert = revision([KEEP, BLUE, GONE])
    found = trust([(expert, revision([KEEP, NAVY, KEEP], parent=expert))])
    figure = plots.expert_trust(found.scores, found.error_types)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["score: the same in 1 of 3 sentences", "error type: the same in 1 of 3 sentences"]
    assert [len(axes.texts) for axes in figure.axes] == [16, 9]
    plots.save(figure, tmp_path / "trust.png")
    assert (tmp_path / "trust.png").stat().st_size > 10_000
