"""From rows to tokens and weights: what is trained on is exactly what was sampled, and nothing is cut."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from opadpo.errors import DataError
from opadpo.models.base import read_pin
from opadpo.models.loading import load_processing
from opadpo.progress import SilentProgress
from opadpo.records import PreferenceExample
from opadpo.training.collate import Collator, ExampleStream, Visit, row_tokens
from opadpo.training.examples import (
    Preparation,
    Prompts,
    Response,
    TrainingExample,
    context_length,
    prepare_examples,
)
from opadpo.training.logps import Sequences
from opadpo.training.opadpo import image_mask, mask_seeds, opadpo_names

RESPONSES = ("standard", "revised", "generated")


@pytest.fixture(scope="module")
def workspace(trainable):
    return trainable.open()


@pytest.fixture(scope="module")
def processing(workspace):
    return load_processing(read_pin(workspace), workspace.recipe)


@pytest.fixture(scope="module")
def rows(workspace):
    return [dict(row) for row in Dataset.load_from_disk(str(workspace.dataset("opadpo")))]


def prepare(workspace, processing, rows, **fields):
    options = {"context": context_length(processing), "score_weights": True, "image_weights": True} | fields
    preparation = Preparation(Prompts(processing), workspace.prompts, RESPONSES, **options)
    return prepare_examples(rows, preparation, SilentProgress(), total=len(rows))


def test_ids_and_weights(workspace, processing, rows):
    examples, left_out = prepare(workspace, processing, rows)
    assert not left_out
    for row, example in zip(rows, examples, strict=True):
        record = PreferenceExample.model_validate(row)
        generated, revised = example.responses["generated"], example.responses["revised"]
        assert generated.ids.tolist() == record.generated_token_ids
        assert processing.family.decode(processing, revised.ids.tolist()) == record.revised
        assert revised.ids[-1] == example.responses["standard"].ids[-1] == processing.tokenizer.eos_token_id
        assert example.prompt_length > processing.family.image_token_count(
            processing, processing.encode(record.question, _image(example)).model_inputs
        )
        assert example.responses["standard"].image.tolist() == [1.0] * len(example.responses["standard"].ids)
        if record.revised == record.generated:
            assert not generated.score.any()
            assert not revised.score.any()
        else:
            heavy = record.generated_spans[0].score_weight
            assert set(generated.score[:-1].tolist()) == {heavy, 1.0}
            assert generated.score[-1] == 0  # the end of the generated response has no weight, as released
            assert revised.score[-1] == revised.score[-2]
            assert revised.image[0] == 3.0


def _image(example):
    from opadpo.images import open_rgb

    return open_rgb(example.image)


def test_weights_can_be_off(workspace, processing, rows):
    examples, _ = prepare(workspace, processing, rows, score_weights=False, image_weights=False)
    for row, example in zip(rows, examples, strict=True):
        same = row["revised"] == row["generated"]
        for name in ("generated", "revised"):
            assert set(example.responses[name].score.tolist()) == {0.0 if same else 1.0}
            assert set(example.responses[name].image.tolist()) == {1.0}


def test_too_long_rows_are_listed_and_never_cut(workspace, processing, rows):
    long = {**rows[0], "revised": "There is a dog. " * 200, "revised_spans": []}
    examples, left_out = prepare(workspace, processing, [long, *rows[1:3]])
    assert len(examples) == 2
    assert [item.reason for item in left_out] == ["longer_than_the_context"]
    assert "the model takes 512" in left_out[0].detail
    medium = long | {"revised": "There is a dog. " * 8}
    examples, left_out = prepare(workspace, processing, [medium, rows[1]], longest=30)
    assert len(examples) == 1
    assert [(item.example_id, item.reason) for item in left_out] == [(rows[0]["example_id"], "longer_than_pad_to")]
    with pytest.raises(DataError, match=r"nothing to train on(.|\n)*rollout\.max_new_tokens"):
        prepare(workspace, processing, rows, context=20)
    with pytest.raises(DataError, match=r"longer_than_pad_to(.|\n)*train\.opadpo\.pad_to"):
        prepare(workspace, processing, rows, longest=1)
    with pytest.raises(DataError, match="an empty data set"):
        prepare(workspace, processing, [])


def test_a_lacking_reference(workspace, processing, rows):
    lacking = [{**rows[0], "standard": ""}, rows[1]]
    _, left_out = prepare(workspace, processing, lacking)
    assert [item.reason for item in left_out] == ["no_standard_response"]
    examples, _ = prepare(workspace, processing, lacking, may_lack=frozenset({"standard"}))
    assert len(examples[0].responses["standard"].ids) == 0


def test_ids_of_another_tokenizer_are_refused(workspace, processing, rows):
    with pytest.raises(DataError, match="do not spell"):
        prepare(workspace, processing, [{**rows[0], "generated_token_ids": [5, 6, 7, 2]}])


def pixels_of(batch):
    assert isinstance(batch.sequences, Sequences)
    return batch.sequences.model_inputs["pixel_values"]


def test_a_batch(workspace, processing, rows):
    examples, _ = prepare(workspace, processing, rows)
    section = workspace.recipe.train.opadpo
    collator = Collator(
        examples,
        Prompts(processing),
        opadpo_names(section),
        mask=image_mask(section, processing),
        mask_seed=mask_seeds(section, 0),
    )
    batch = collator([Visit(3, 0), Visit(0, 1)])
    assert batch.indexes.tolist() == [3, 0]
    pixels = pixels_of(batch).view(5, 2, 3, 32, 32)
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])
    assert torch.equal(pixels[3], pixels[4])
    changed = (pixels[0] != pixels[3]).any(1).float().mean((1, 2))
    np.testing.assert_allclose(changed, 0.3, atol=0.01)
    for name in RESPONSES:
        lengths = [len(examples[i].responses[name].ids) for i in (3, 0)]
        assert batch.masks[name].sum(1).tolist() == lengths
    assert torch.equal(batch.weights["generated_score"] > 0, batch.weights["generated_score"].bool())
    assert not (batch.weights["revised_image"].bool() & ~batch.masks["revised"]).any()
    alone = pixels_of(collator([Visit(0, 1)]))
    assert torch.equal(alone[3], pixels[3][1])  # the mask depends on example and epoch, not on the batch
    other_epoch = pixels_of(collator([Visit(0, 2)]))
    assert not torch.equal(alone[3], other_epoch[3])
    never = section.model_copy(update={"masking": section.masking.model_copy(update={"resample": "never"})})
    assert mask_seeds(never, 0)("e", 1) == mask_seeds(never, 0)("e", 2) != mask_seeds(never, 1)("e", 1)


def test_only_what_the_loss_needs_is_computed(trainable):
    section = trainable.open().recipe.train.opadpo
    assert opadpo_names(section) == (*RESPONSES, "standard_masked", "revised_masked")
    plain = section.model_copy(update={"loss": section.loss.plain()})
    assert opadpo_names(plain) == ("revised", "generated")


def test_the_stream_visits_every_example_once_per_epoch():
    def stream(updates, seed):
        return ExampleStream([1] * 10, updates, seed, update=5, size=5)

    visits = stream(7, 3).visits
    assert [v.epoch for v in visits] == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    for epoch in range(3):
        assert sorted(v.example for v in visits if v.epoch == epoch) == list(range(10))
    assert [v.example for v in visits[:10]] != [v.example for v in visits[10:20]]
    assert visits == stream(7, 3).visits != stream(7, 4).visits
    assert stream(4, 3).visits == visits[:20]


LENGTHS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def test_the_longest_come_first_within_an_update():
    plain = ExampleStream([1] * 10, 9, 3, update=4, size=4)
    grouped = ExampleStream(LENGTHS, 9, 3, update=4, size=2)
    assert (plain.accumulation, grouped.accumulation, len(grouped)) == (1, 2, 18)
    for first in range(0, 36, 4):
        visits = grouped.visits[first : first + 4]
        assert sorted(visits) == sorted(plain.visits[first : first + 4])
        of = [LENGTHS[visit.example] for visit in visits]
        assert of == sorted(of, reverse=True)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    updates=st.integers(1, 4),
    each=st.integers(1, 6),
    processes=st.integers(1, 3),
    tokens=st.integers(1, 150),
)
def test_a_token_budget_changes_neither_updates_nor_turns(lengths, updates, each, processes, tokens):
    update = each * processes
    plain = ExampleStream(lengths, updates, 3, update=update, size=each)
    stream = ExampleStream(lengths, updates, 3, update=update, size=each, processes=processes, tokens=tokens)
    turns = stream.accumulation * processes
    assert len(stream) == updates * turns
    for number in range(updates):
        batches = stream.batches[number * turns :][:turns]
        dealt = [visit for batch in batches for visit in batch]
        assert sorted(dealt) == sorted(plain.visits[number * update :][:update])
        assert all(batches)
        held = [sum(lengths[visit.example] for visit in batch) for batch in batches]
        assert held == sorted(held, reverse=True)
        assert all(total <= tokens or len(batch) == 1 for total, batch in zip(held, batches, strict=True))
    total = sum(lengths[visit.example] for visit in stream.visits)
    assert stream.accumulation >= total / (updates * processes * max(tokens, max(lengths)))


def test_tokens_of_packed_rows():
    weights = np.ones(3, np.float32)
    response = Response(np.arange(3, dtype=np.int32), weights, weights)
    example = TrainingExample(
        "a", "?", Path("a.png"), 10, dict.fromkeys(("standard", "revised", "generated"), response)
    )
    assert row_tokens(example, ["standard", "revised"]) == 10 + 6
    assert row_tokens(example, [*RESPONSES, "standard_masked"]) == 10 + 9 + 10 + 3
