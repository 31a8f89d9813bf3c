"""Records: content ids, consistency rules, parquet round trips, assembling a revised text."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from opadpo.errors import WorkspaceError
from opadpo.records import (
    Caption,
    PreferenceExample,
    Prompt,
    Revision,
    Rollout,
    Sampling,
    SentenceReview,
    WeightSpan,
    assemble,
)
from opadpo.tables import read_records, write_records

SAMPLING = Sampling(temperature=1.0, top_k=30, top_p=0.95, max_new_tokens=8)


def prompt(**changes) -> Prompt:
    fields = {
        "image_id": "a" * 64,
        "question": "What is there?",
        "image_file": "images/aa/x.png",
        "reference": "A cat.",
        "source": "coco",
        "split": "train",
        "subset": "train-0",
    }
    return Prompt.create(**{**fields, **changes})


def rollout(**changes) -> Rollout:
    fields = {
        "prompt_id": prompt().prompt_id,
        "response": "A dog. A cat.",
        "response_token_ids": [5, 6, 2],
        "model": "toy@1",
        "adapter": "base",
        "adapter_hash": "",
        "template": "toy",
        "image_aspect": "pad",
        "sampling": SAMPLING,
        "finish_reason": "stop",
        "sample_index": 0,
        "seed": 7,
    }
    return Rollout.create(**{**fields, **changes})


def sentence(**changes) -> SentenceReview:
    fields = {"index": 0, "kind": "kept", "start": 0, "end": 6, "original": "A dog.", "revised": "A dog.", "score": 4}
    return SentenceReview(**{**fields, **changes})


def test_ids_depend_on_content_and_only_on_it():
    assert prompt().prompt_id == prompt(reference="Another answer.").prompt_id
    assert prompt().prompt_id != prompt(question="Why?").prompt_id
    assert rollout().rollout_id == rollout().rollout_id
    assert rollout().rollout_id != rollout(response_token_ids=[5, 6, 6]).rollout_id
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    make = {"rollout_id": "r-1", "author_kind": "human", "author": "Ada", "sentences": [], "text": ""}
    assert (
        Revision.create(created_at=moment, **make).revision_id == Revision.create(created_at=moment, **make).revision_id
    )
    assert Revision.create(created_at=moment, **make).revision_id != Revision.create(**make).revision_id


def test_records_are_frozen_and_refuse_unknown_fields():
    with pytest.raises(ValidationError):
        prompt().question = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        prompt(colour="red")


@pytest.mark.parametrize(
    "changes",
    [
        {"score": 3},
        {"score": None},
        {"score": 5},
        {"revised": "A cat."},
        {"kind": "edited"},
        {"kind": "deleted", "score": 1},
        {"kind": "edited", "score": 2, "revised": ""},
        {"kind": "added", "score": 2, "original": "", "end": 0},
        {"kind": "added", "score": None, "original": "A dog."},
        {"start": 9},
    ],
)
def test_inconsistent_sentence_reviews_are_refused(changes):
    with pytest.raises(ValidationError):
        sentence(**changes)


def test_assemble_replaces_spans_and_keeps_everything_else():
    response = "A dog.  A cat.\nA cup."
    reviews = [
        sentence(),
        sentence(index=1, kind="edited", start=8, end=14, original="A cat.", revised="A fox.", score=2),
        sentence(index=1, kind="added", start=14, end=14, original="", revised=" A bee.", score=None),
        sentence(index=2, kind="deleted", start=14, end=21, original="\nA cup.", revised="", score=1),
    ]
    assert assemble(response, reviews) == "A dog.  A fox. A bee."
    with pytest.raises(ValueError, match=r"not 'A dog\.'"):
        assemble("B dog.", [sentence()])
    with pytest.raises(ValueError, match="overlaps"):
        assemble("A dog.", [sentence(), sentence(index=1, start=3, end=6, original="og.", revised="og.")])


@given(st.lists(st.integers(0, 2**40), max_size=30), st.text(max_size=60), st.dictionaries(st.text(), st.integers()))
def test_parquet_gives_every_record_back(tmp_path_factory, ids, text, extra):
    folder = tmp_path_factory.mktemp("tables")
    caption_fields = {k: getattr(rollout(), k) for k in Caption.model_fields if k in Rollout.model_fields}
    caption_fields |= {"response_token_ids": ids, "response": text}
    example = PreferenceExample.create(
        prompt_id="p", rollout_id="r", revision_id="v", question=text, image="i", standard="s", revised=text,
        generated="g",
        generated_token_ids=ids, generated_finished=True, revised_spans=[], human_verified=False,
        generated_spans=[WeightSpan(start=0, end=1, score_weight=2.5, image_weight=3.0)],
    )  # fmt: skip
    for record in (
        prompt(extra=extra, reference=text),
        rollout(response_token_ids=ids, response=text),
        Caption(prompt_set="heldout", **caption_fields),
        example,
        Revision.create(rollout_id="r", author_kind="expert", author="m", sentences=[sentence()], text=text),
    ):
        write_records(folder / "x.parquet", [record], type(record))
        assert read_records(folder / "x.parquet", type(record)) == [record]


def test_folders_are_read_in_name_order_and_damage_is_told(tmp_path):
    for name, index in (("part-1", 1), ("part-0", 0)):
        write_records(tmp_path / f"{name}.parquet", [rollout(sample_index=index)], Rollout)
    write_records(tmp_path / "part-2.parquet", [], Rollout)
    assert [r.sample_index for r in read_records(tmp_path, Rollout)] == [0, 1]
    (tmp_path / "part-3.parquet").write_bytes(b"not parquet")
    with pytest.raises(WorkspaceError, match=r"part-3.parquet"):
        read_records(tmp_path, Rollout)


def test_an_example_of_the_same_texts_has_the_same_id_in_every_run():
    fields = {
        "prompt_id": "p", "rollout_id": "r", "question": "q", "image": "i", "standard": "s", "revised": "a",
        "generated": "g", "generated_token_ids": [1], "generated_finished": True, "generated_spans": [],
        "revised_spans": [], "human_verified": False,
    }  # fmt: skip
    made = [
        Revision.create(
            rollout_id="r", author_kind="expert", author="m", sentences=[sentence()], text="a",
            created_at=datetime(2026, 1, day, tzinfo=UTC),
        ).revision_id
        for day in (1, 2)
    ]  # fmt: skip
    first, second = (PreferenceExample.create(revision_id=revision, **fields) for revision in made)
    assert first.revision_id != second.revision_id
    assert first.example_id == second.example_id
    assert PreferenceExample.create(revision_id="v", **{**fields, "revised": "b"}).example_id != first.example_id
