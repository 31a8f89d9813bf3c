"""The data sets that training reads: which rows, with which weights."""

import json
from datetime import UTC, datetime

import pytest
import trainable_workspace
from datasets import Dataset

from opadpo.errors import DataError, MissingArtefact
from opadpo.progress import SilentProgress
from opadpo.recipe.sections import BuildSection
from opadpo.records import PreferenceExample, Revision, Rollout, SentenceReview, assemble
from opadpo.review.store import ReviewStore
from opadpo.steps.build import build, weight_spans
from opadpo.tables import read_records, write_records
from opadpo.workspace import Workspace


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return trainable_workspace.base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def workspace(tmp_path, base):
    return trainable_workspace.make(tmp_path / "ws", base, examples=6)


def examples(workspace, stage):
    rows = Dataset.load_from_disk(str(workspace.dataset(stage)))
    return [PreferenceExample.model_validate(row) for row in rows]


def dropped(workspace, stage):
    lines = (workspace.dataset(stage) / "dropped.jsonl").read_text().splitlines()
    return {row["rollout_id"]: row["reason"] for row in map(json.loads, lines)}


def append(workspace, rollout, **fields):
    made = trainable_workspace.revision(rollout, **fields)
    with ReviewStore.open(workspace.reviews_db) as store:
        store.append([made])
    return made


def test_rows_carry_what_was_sampled_and_its_weights(workspace):
    result = build(workspace, progress=SilentProgress())
    assert result.status == "done"
    assert result.counts["opa/rows"] == result.counts["opadpo/rows"] == 6
    rollouts = {r.rollout_id: r for r in read_records(workspace.rollouts, Rollout)}
    for row in examples(workspace, "opadpo"):
        rollout = rollouts[row.rollout_id]
        assert row.generated_token_ids == rollout.response_token_ids
        assert row.generated == rollout.response
        assert (workspace.prompts / row.image).is_file()
        assert row.standard.startswith("There is a")
        assert not row.human_verified
        first, second = row.generated_spans
        assert rollout.response[second.start : second.end].startswith("A ")
        assert (second.score_weight, second.image_weight) == (1.0, 1.0)
        if row.revised == row.generated:
            assert (first.score_weight, first.image_weight) == (1.0, 1.0)
        else:
            assert first.score_weight in (2.5, 2.0, 1.5)
            assert first.image_weight == 3.0
            assert row.revised[row.revised_spans[0].start : row.revised_spans[0].end].startswith("A tree stands")
    again = build(workspace, progress=SilentProgress())
    assert again.status == "up_to_date"
    assert again.counts == result.counts


def test_spans_of_deleted_and_added_sentences():
    response = "A dog. A cat. A cow."
    sentences = [
        SentenceReview(index=0, kind="kept", start=0, end=6, original="A dog.", revised="A dog.", score=4),
        SentenceReview(
            index=1, kind="deleted", start=6, end=13, original=" A cat.", revised="", score=1,
            error_type="language_comprehension_error",
        ),
        SentenceReview(index=1, kind="added", start=13, end=13, original="", revised=" A hen."),
        SentenceReview(
            index=2, kind="edited", start=14, end=20, original="A cow.", revised="A pig.", score=3,
            error_type="image_recognition_error",
        ),
    ]  # fmt: skip
    generated, revised = weight_spans(response, sentences, BuildSection())
    text = assemble(response, sentences)
    assert text == "A dog. A hen. A pig."
    laid = [(response[s.start : s.end], s.score_weight, s.image_weight) for s in generated]
    assert laid == [("A dog.", 1.0, 1.0), (" A cat.", 2.5, 1.0), ("A cow.", 1.5, 3.0)]
    laid = [(text[s.start : s.end], s.score_weight, s.image_weight) for s in revised]
    assert laid == [("A dog.", 1.0, 1.0), (" A hen.", 1.0, 1.0), ("A pig.", 1.5, 3.0)]
    section = BuildSection(score_weights={1: 9.0, 2: 1.0, 3: 0.5, 4: 0.25})
    assert [s.score_weight for s in weight_spans(response, sentences, section)[0]] == [0.25, 9.0, 0.5]


@pytest.mark.slow
def test_every_row_that_is_left_out_has_its_reason(workspace):
    rollouts = read_records(workspace.rollouts, Rollout)
    append(workspace, rollouts[0], author_kind="human", status="rejected", note="blurred")
    append(workspace, rollouts[1], author_kind="human", status="flagged")
    append(workspace, rollouts[2], status="failed", note="refused")
    accepted = append(workspace, rollouts[3], author_kind="human")
    with ReviewStore.open(workspace.reviews_db) as store:
        whole = rollouts[4].response
        deleted = SentenceReview(index=0, kind="deleted", start=0, end=len(whole), original=whole, revised="", score=1)
        store.append(
            [
                Revision.create(
                    rollout_id=rollouts[4].rollout_id, author_kind="human", author="me", sentences=[deleted], text=""
                ),
                Revision.create(
                    rollout_id=rollouts[5].rollout_id,
                    author_kind="human",
                    author="me",
                    sentences=[
                        SentenceReview(index=0, kind="kept", start=0, end=3, original="xyz", revised="xyz", score=4)
                    ],
                    text="xyz",
                    created_at=datetime.now(UTC),
                ),
            ]
        )
    result = build(workspace, progress=SilentProgress())
    reasons = dropped(workspace, "opa")
    assert [reasons.get(r.rollout_id) for r in rollouts] == [
        "rejected_revision", "flagged_revision", "failed_revision", None, "empty_revision", "sentences_do_not_fit",
    ]  # fmt: skip
    assert result.dropped["opa: rejected_revision"] == 1
    (row,) = examples(workspace, "opa")
    assert row.revision_id == accepted.revision_id
    assert row.human_verified
    assert result.counts["opa/human_verified"] == 1


@pytest.mark.slow
def test_a_text_that_its_sentences_do_not_make_is_left_out(tmp_path, base):
    workspace = trainable_workspace.make(tmp_path / "ws", base, examples=2)
    rollout = read_records(workspace.rollouts, Rollout)[0]
    with ReviewStore.open(workspace.reviews_db) as store:
        current = store.current(rollout.rollout_id)
        assert current is not None
        other = {**current.model_dump(exclude={"revision_id", "created_at"}), "text": current.text + " A fish."}
        store.append([Revision.create(**other)])
    build(workspace, progress=SilentProgress())
    assert dropped(workspace, "opa") == {rollout.rollout_id: "sentences_do_not_fit"}


def test_human_only_takes_nothing_that_nobody_has_verified(tmp_path, base):
    workspace = trainable_workspace.make(tmp_path / "ws", base, ["build.revisions=human_only"], examples=3)
    with pytest.raises(DataError, match="3 no_human_revision"):
        build(workspace, progress=SilentProgress())
    assert not workspace.dataset("opa").exists()
    rollouts = read_records(workspace.rollouts, Rollout)
    append(workspace, rollouts[1], author_kind="human")
    build(workspace, progress=SilentProgress())
    assert [row.rollout_id for row in examples(workspace, "opadpo")] == [rollouts[1].rollout_id]


@pytest.mark.slow
def test_what_several_people_decided(tmp_path, base):
    workspace = trainable_workspace.make(tmp_path / "ws", base, examples=5)
    rollouts = read_records(workspace.rollouts, Rollout)

    def add(place, author, number, parent=None, **fields):
        fields |= {"author_kind": "human", "author": author}
        fields["parent_revision_id"] = parent.revision_id if parent else None
        made = trainable_workspace.revision(rollouts[place], number, **fields)
        with ReviewStore.open(workspace.reviews_db) as store:
            store.append([made])
        return made

    add(0, "ann", 0)
    add(0, "ben", 1)
    add(1, "ann", 0)
    agreed = add(1, "ben", 0)
    settled = add(2, "ben", 1, add(2, "ann", 0))
    add(3, "ann", 0, status="flagged", note="a cow?")
    result = build(workspace, progress=SilentProgress())
    rows = {row.rollout_id: row for row in examples(workspace, "opadpo")}
    chosen = {place: rows[rollouts[place].rollout_id] for place in (1, 2, 4)}
    assert len(rows) == 3
    assert [chosen[1].revision_id, chosen[2].revision_id] == [agreed.revision_id, settled.revision_id]
    assert [chosen[place].human_verified for place in (1, 2, 4)] == [True, True, False]
    lines = [json.loads(line) for line in (workspace.dataset("opa") / "dropped.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["detail"]) for line in lines] == [
        ("humans_disagree", "ann, ben"), ("flagged_revision", "a cow?"),
    ]  # fmt: skip
    assert [warning.partition(":")[0] for warning in result.warnings] == [
        "records left out because their reviewers disagree", "flagged records left out",
    ]  # fmt: skip
    again = build(workspace, progress=SilentProgress())
    assert (again.status, again.warnings) == ("up_to_date", result.warnings)

    by_ann = Workspace.open(workspace.root, [*workspace.overrides, "build.adjudicators=[ann]"])
    assert build(by_ann, progress=SilentProgress()).counts["opa/rows"] == 4


@pytest.mark.slow
def test_a_review_and_taking_it_back_make_the_data_sets_again(workspace):
    rollout = read_records(workspace.rollouts, Rollout)[0]
    before = [row.revision_id for row in examples_after_build(workspace)]
    append(workspace, rollout, author_kind="human", author="ann", status="rejected", note="blurred")
    assert len(examples_after_build(workspace)) == 5
    assert dropped(workspace, "opadpo") == {rollout.rollout_id: "rejected_revision"}
    with ReviewStore.open(workspace.reviews_db) as store:
        store.undo("ann")
    assert [row.revision_id for row in examples_after_build(workspace)] == before


def examples_after_build(workspace):
    assert build(workspace, progress=SilentProgress()).status == "done"
    return examples(workspace, "opadpo")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "reasons"),
    [
        (None, ["repeated_last_sentence", "repeated_last_word"]),
        ("repeated_last_word", ["repeated_last_word"]),
        ("", []),
    ],
)
def test_the_filters_that_the_recipe_names_drop_degenerate_responses(tmp_path, base, filters, reasons):
    overrides = [] if filters is None else [f"build.filters=[{filters}]"]
    workspace = trainable_workspace.make(tmp_path / "ws", base, overrides, examples=3)
    rollouts = read_records(workspace.rollouts, Rollout)
    for place, more in enumerate([" It runs. A cat. It runs.", " A cat" + " cat" * 32]):
        rollouts[place] = rollouts[place].model_copy(update={"response": rollouts[place].response + more})
        append(workspace, rollouts[place])
    write_records(workspace.rollouts / "part-00000.parquet", rollouts, Rollout)
    build(workspace, progress=SilentProgress())
    assert list(dropped(workspace, "opa").values()) == reasons
    assert len(examples(workspace, "opa")) == 3 - len(reasons)


@pytest.mark.slow
def test_a_missing_reference_matters_only_where_it_is_used(tmp_path, base):
    from opadpo.records import Prompt
    from opadpo.steps import plans

    overrides = ["train.opa.responses=[revised]"]
    workspace = trainable_workspace.make(tmp_path / "ws", base, overrides, examples=3)
    prompts = read_records(workspace.prompts, Prompt)
    prompts[0] = prompts[0].model_copy(update={"reference": " "})
    write_records(workspace.prompts / "prompts.parquet", prompts, Prompt)
    result = build(workspace, progress=SilentProgress())
    assert result.counts["opa/rows"] == 3
    assert result.counts["opadpo/rows"] == 2
    assert list(dropped(workspace, "opadpo").values()) == ["no_reference"]
    assert plans.dataset(workspace, "opa", "x").settings["needs_reference"] is False


def test_what_is_needed_first_is_named(tmp_path, base):
    workspace = trainable_workspace.make(tmp_path / "ws", base, examples=2)
    workspace.reviews_db.unlink()
    with pytest.raises(MissingArtefact, match="opadpo revise"):
        build(workspace, progress=SilentProgress())
    with ReviewStore.open(workspace.reviews_db):
        pass
    with pytest.raises(MissingArtefact, match="opadpo revise"):
        build(workspace, progress=SilentProgress())
