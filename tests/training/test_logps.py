"""Log-probs of responses do not depend on how sequences are put together."""

import pytest
import tiny_llava
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.training.logps import pad_sequences, response_logps, token_logps


@pytest.fixture(scope="module")
def model():
    return tiny_llava.make_model(tiny_llava.make_tokenizer()).double()


def sequences(prompts, responses, pixels, **options):
    return pad_sequences(prompts, responses, {"pixel_values": pixels}, pad_token_id=0, **options)


PROMPT = [1, *[3] * tiny_llava.IMAGE_TOKENS, 40, 41]


def test_tensors_of_a_batch():
    batch = pad_sequences([[1, 7], [1, 8, 9]], [[4, 5, 2], [6]], {}, pad_token_id=0)
    more = [0] * 11  # up to a multiple of the vector's width
    assert batch.input_ids.tolist() == [[1, 7, 4, 5, 2, *more], [1, 8, 9, 6, 0, *more]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, *more], [1, 1, 1, 1, 0, *more]]
    assert batch.scored.long().tolist() == [[0, 1, 1, 1, 0, *more], [0, 0, 1, 0, 0, *more]]
    assert batch.targets.tolist() == [4, 5, 2, 6]
    assert batch.response_mask.long().tolist() == [[1, 1, 1], [1, 0, 0]]
    left = pad_sequences([[1, 7], [1, 8, 9]], [[4, 5, 2], [6]], {}, pad_token_id=0, padding_side="left")
    assert left.input_ids.tolist() == [[*more, 1, 7, 4, 5, 2], [*more, 0, 1, 8, 9, 6]]
    assert left.scored.long().tolist() == [[*more, 0, 1, 1, 1, 0], [*more, 0, 0, 0, 1, 0]]
    assert left.targets.tolist() == batch.targets.tolist()


def test_a_response_without_tokens_scores_nothing():
    batch = pad_sequences([[1, 7], [1, 7]], [[], [4]], {}, pad_token_id=0)
    assert batch.response_mask.tolist() == [[False], [True]]
    assert batch.scored.sum() == 1


@settings(max_examples=8)
@given(
    responses=st.lists(st.lists(st.integers(4, 200), min_size=1, max_size=9), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    seed=st.integers(0, 1000),
)
def test_a_batch_gives_what_each_sequence_gives_alone(model, responses, side, seed):
    generator = torch.Generator().manual_seed(seed)
    side_length = tiny_llava.IMAGE_SIDE
    shape = (len(responses), 3, side_length, side_length)
    pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = response_logps(model, sequences([PROMPT] * len(responses), responses, pixels, padding_side=side))
        for row, response in enumerate(responses):
            ids = torch.tensor([PROMPT + response])
            logits = model(input_ids=ids, pixel_values=pixels[row : row + 1], use_cache=False).logits[0]
            wanted = logits[len(PROMPT) - 1 : -1].log_softmax(-1).gather(-1, ids[0, len(PROMPT) :, None])[:, 0]
            torch.testing.assert_close(
                together[row, : len(response)], wanted, atol=2e-5, rtol=0
            )  # norms are in float32
            assert not together[row, len(response) :].any()


def test_chunks_change_neither_values_nor_gradients():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 31, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 31, (23,), generator=generator)
    results = []
    for chunk in (100, 5):
        leaf = logits.clone().requires_grad_()
        values = token_logps(leaf, targets, chunk)
        (values * torch.arange(23)).sum().backward()
        results.append((values.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-12, rtol=0)


def test_half_precision_logits_are_normalised_in_float32():
    logits = torch.randn(5, 1000).bfloat16()
    values = token_logps(logits, torch.arange(5))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, logits.float().log_softmax(-1)[range(5), range(5)])
