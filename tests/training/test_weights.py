"""Weights are laid on tokens by character, for any tokenization."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from opadpo.errors import DataError, ModelError
from opadpo.records import SentenceReview, assemble
from opadpo.training.weights import (
    WeightedSpan,
    decode_offsets,
    encode_with_offsets,
    image_weight,
    lay_weights,
    review_spans,
    score_weight,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sentence_alignment.json").read_text())
CASES = {case["name"]: case for case in VECTORS["cases"]}
GENERATED, REVISED = "original_generate_response", "AI_pseudo_response"
BOS, EOS, SPACE = 1, 2, 29871

INTENDED_DIFFERENCES = {
    "a03_string_scores": 'a score "3" counts as 3; the released code takes it for unknown (weight 1.0)',
    "a04_capital_error_type": "'Image_recognition_error' and 'image recognition error' count as what they mean",
    "a07_mismatch": (
        "the generated response is what the model said, not the report's copies; the sentence that the report"
        " misquotes is unmentioned (weight 1.0) and stays in the revised text"
    ),
    "a09_first_deleted": "the improved answer keeps its first token when its first sentence is deleted",
    "a10_gap_and_tail": (
        "a sentence that the report passes over stays in the revised text and weighs 1.0 on both sides; the released"
        " code drops it there and gives it the later sentence's weight"
    ),
    "a11_paragraphs": "no stray token 29871 on the improved side: texts are never tokenized in pieces",
    "a12_failed_batch": "a broken section of one report costs that section, not the weights of the whole batch",
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(VECTORS["tokenizer"])),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def field(section: dict, name: str) -> Any:
    return section.get(name, section.get(name.replace("_", " ")))


def spans_of_report(response: str, report: dict) -> tuple[list[WeightedSpan], str, list[WeightedSpan]]:
    """Generated spans, revised text and its spans: what the expert's room makes of a report, in small."""
    generated: list[WeightedSpan] = []
    revised_spans: list[WeightedSpan] = []
    revised, position = "", 0
    for section in report.values():
        if not isinstance(section, dict):
            continue
        copied, rewritten = field(section, "copied_content"), field(section, "rewritten_content").strip()
        if copied is None:
            revised += " "
            revised_spans.append(WeightedSpan(len(revised), len(revised) + len(rewritten), 1.0, 1.0))
            revised += rewritten
            continue
        start = response.find(copied, position)
        if start < 0:
            continue
        weights = score_weight(field(section, "score")), image_weight(field(section, "error_type"))
        generated.append(WeightedSpan(start, start + len(copied), *weights))
        revised += response[position:start]
        position = start + len(copied)
        if rewritten:
            revised_spans.append(WeightedSpan(len(revised), len(revised) + len(rewritten), *weights))
            revised += rewritten
        else:
            position += response[position : position + 1] == " "
    return generated, revised + response[position:], revised_spans


def weigh(tokenizer, text: str, spans: list[WeightedSpan], eos, **options):
    ids, offsets = encode_with_offsets(tokenizer, text, add_special_tokens=True)
    offsets = [*offsets, (len(text), len(text))]
    weights = lay_weights(offsets, spans, text=text, eos=eos, **options)
    return [*ids, EOS], weights.score, weights.image


def both_sides(tokenizer, instance: dict, **options) -> dict[str, tuple]:
    response = instance[GENERATED]
    generated, revised, revised_spans = spans_of_report(response, instance["AI_json_report"])
    return {
        GENERATED: weigh(tokenizer, response, generated, "zero", **options),
        REVISED: weigh(tokenizer, revised, revised_spans, "previous", **options),
    }


def released(official: dict, side: str) -> tuple:
    one = official[side]
    return one["token_ids"], one["score_weights"], one["image_weights"]


def runs(tokenizer, ids, scores, images) -> list[list]:
    """Merged [text, score weight, image weight], as the vectors show them."""
    merged: list[list] = []
    for token, score, image in zip(tokenizer.convert_ids_to_tokens(ids), scores, images, strict=True):
        if merged and merged[-1][1:] == [score, image]:
            merged[-1][0] += " " + token
        else:
            merged.append([token, score, image])
    return merged


@pytest.mark.parametrize("name", sorted(CASES.keys() - INTENDED_DIFFERENCES.keys()))
def test_equals_the_released_code(tokenizer, name):
    for instance, official in zip(CASES[name]["instances"], CASES[name]["official"], strict=True):
        ours = both_sides(tokenizer, instance)
        for side in (GENERATED, REVISED):
            assert ours[side] == released(official, side)


def first(name: str) -> tuple[dict, dict]:
    return CASES[name]["instances"][0], CASES[name]["official"][0]


def test_every_difference_is_a_case():
    assert CASES.keys() >= INTENDED_DIFFERENCES.keys()


def test_a03_scores_in_quotes_count(tokenizer):
    instance, official = first("a03_string_scores")
    ours = both_sides(tokenizer, instance)
    assert [score for _, score, _ in runs(tokenizer, *ours[GENERATED])] == [1.0, 1.5, 2.5, 0.0]
    assert [score for _, score, _ in runs(tokenizer, *ours[REVISED])] == [1.0, 1.5, 2.5]
    for side in (GENERATED, REVISED):
        ids, _, images = released(official, side)
        assert (ours[side][0], ours[side][2]) == (ids, images)


def test_a04_error_types_count_however_they_are_spelled(tokenizer):
    instance, official = first("a04_capital_error_type")
    ours = both_sides(tokenizer, instance)
    assert [image for _, _, image in runs(tokenizer, *ours[REVISED])] == [1.0, 3.0]
    for side in (GENERATED, REVISED):
        assert ours[side][:2] == released(official, side)[:2]


def test_a07_a_misquoted_sentence_changes_nothing_that_was_said(tokenizer):
    ours = both_sides(tokenizer, first("a07_mismatch")[0])
    assert runs(tokenizer, *ours[GENERATED]) == [
        ["<s> A red bus waits at the stop . Two dogs sit near the bench .", 1.0, 1.0],
        ["The sky is grey .", 1.5, 1.0],
        ["</s>", 0.0, 0.0],
    ]
    assert runs(tokenizer, *ours[REVISED]) == [
        ["<s> A red bus waits at the stop . Two dogs sit near the bench .", 1.0, 1.0],
        ["The sky is blue . </s>", 1.5, 1.0],
    ]


def test_a09_the_first_token_stays_when_the_first_sentence_goes(tokenizer):
    instance, official = first("a09_first_deleted")
    ours = both_sides(tokenizer, instance)
    assert ours[GENERATED] == released(official, GENERATED)
    ids, scores, images = released(official, REVISED)
    assert ours[REVISED] == ([BOS, *ids], [scores[0], *scores], [images[0], *images])


def test_a10_unmentioned_sentences(tokenizer):
    instance, official = first("a10_gap_and_tail")
    ours = both_sides(tokenizer, instance)
    expected = [
        ["<s> A red bus waits at the stop . Two dogs sit near the bench .", 1.0, 1.0],
        ["The sky is grey .", 2.0, 3.0],
        ["The man is old .", 1.0, 1.0],
        ["</s>", 0.0, 0.0],
    ]
    assert runs(tokenizer, *ours[GENERATED]) == expected
    assert "Two dogs" in runs(tokenizer, *ours[REVISED])[0][0]
    as_released = both_sides(tokenizer, instance, unmentioned="later")
    assert as_released[GENERATED] == released(official, GENERATED)


def test_a11_only_the_stray_token_differs(tokenizer):
    instance, official = first("a11_paragraphs")
    ours = both_sides(tokenizer, instance)
    assert ours[GENERATED] == released(official, GENERATED)
    entries = zip(*released(official, REVISED), strict=True)
    without = [entry for entry in entries if entry[0] != SPACE]
    assert list(zip(*ours[REVISED], strict=True)) == without


def test_a12_a_broken_section_leaves_the_batch_its_weights(tokenizer):
    good, broken = (both_sides(tokenizer, instance) for instance in CASES["a12_failed_batch"]["instances"])
    scores = [[score for _, score, _ in runs(tokenizer, *good[side])] for side in (GENERATED, REVISED)]
    assert scores == [[2.0, 2.5, 0.0], [2.0, 2.5]]
    assert set(broken[REVISED][1]) == {1.0}


# Decoding of sampled ids, against exact byte arithmetic.

PIECES = ["the", " the", " dog", "dogs", ". ", "é", " 犬", "o", "g\n", "中文"]


def byte_level() -> tuple[PreTrainedTokenizerFast, dict[bytes, int]]:
    """A byte-level vocabulary with pieces that end within a character, and its ids by bytes."""
    to_char = {byte: char for char, byte in bytes_by_char().items()}
    pieces = [bytes([b]) for b in range(256)] + [p.encode() for p in PIECES] + [" a中".encode()[:3], "中é".encode()[2:]]
    vocab = {"".join(to_char[b] for b in piece): i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    return wrapped, {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def bytes_by_char() -> dict[str, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def byte_fallback() -> tuple[PreTrainedTokenizerFast, dict[bytes, int]]:
    """A sentencepiece-like vocabulary: whole-character pieces with ▁ for the space, bytes for everything else."""
    names = [f"<0x{b:02X}>" for b in range(256)] + [p.replace(" ", "▁") for p in PIECES]
    backend = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    by_bytes = {bytes([b]): b for b in range(256)} | {p.encode(): 256 + i for i, p in enumerate(PIECES)}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"), by_bytes


TOKENIZERS = {"byte_level": byte_level(), "byte_fallback": byte_fallback()}


def spell(text: str, by_bytes: dict[bytes, int], rng: random.Random) -> tuple[list[int], list[tuple[int, int]]]:
    """A random spelling of `text` and the characters that each token touches."""
    data = text.encode()
    char_at = [i for i, char in enumerate(text) for _ in char.encode()]
    ids, offsets, position = [], [], 0
    while position < len(data):
        fitting = [piece for piece in by_bytes if data.startswith(piece, position)]
        piece = rng.choice(fitting)
        ids.append(by_bytes[piece])
        end = position + len(piece)
        offsets.append((char_at[position], char_at[end - 1] + 1))
        position = end
    return ids, offsets


texts = st.lists(st.sampled_from([*PIECES, "a中é", "\n\n", " ", "x", "🦊", "."]), max_size=25).map("".join)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(text=texts, seed=st.integers(0, 1000), finished=st.booleans())
def test_sampled_ids_cover_the_characters_that_their_bytes_spell(kind, text, seed, finished):
    tokenizer, by_bytes = TOKENIZERS[kind]
    ids, offsets = spell(text, by_bytes, random.Random(seed))
    if finished:
        ids.append(tokenizer.get_vocab()["</s>"])
        offsets.append((len(text), len(text)))
    stripped = kind == "byte_fallback" and text.startswith(" ")
    expected = [(max(a - stripped, 0), b - stripped) for a, b in offsets]
    assert decode_offsets(tokenizer, ids) == expected
    clean = text.strip()
    lead = len(text) - len(text.lstrip())
    trimmed = [tuple(min(max(c - lead, 0), len(clean)) for c in pair) for pair in offsets]
    assert decode_offsets(tokenizer, ids, clean) == trimmed


def test_a_response_cut_within_a_character_still_has_offsets():
    tokenizer, by_bytes = TOKENIZERS["byte_level"]
    ids = [by_bytes[b"o"], *(by_bytes[bytes([b])] for b in "🦊".encode()[:3])]
    assert decode_offsets(tokenizer, ids) == [(0, 1), (1, 2), (1, 2), (1, 2)]


def test_ids_of_another_text_are_refused():
    tokenizer, by_bytes = TOKENIZERS["byte_level"]
    with pytest.raises(DataError, match="do not spell"):
        decode_offsets(tokenizer, [by_bytes[b"the"]], "dog")


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow[\s\S]*fast tokenizer"):
        encode_with_offsets(Slow(), "text")  # pyright: ignore[reportArgumentType]


# Laying weights.


def test_a_token_goes_with_the_sentence_that_it_shares_most_with():
    spans = [WeightedSpan(0, 4, 2.5, 3.0), WeightedSpan(6, 10, 1.5, 1.0)]
    text = "One.\n\nTwo."
    offsets = [(0, 3), (3, 6), (4, 6), (3, 9), (9, 10), (10, 10)]
    weights = lay_weights(offsets, spans, text=text)
    assert weights.score == [2.5, 2.5, 1.5, 1.5, 1.5, 1.5]
    assert weights.image == [3.0, 3.0, 1.0, 1.0, 1.0, 1.0]


def test_text_that_no_span_mentions():
    spans = [WeightedSpan(4, 8, 2.0, 3.0)]
    offsets = [(0, 3), (4, 8), (9, 12)]
    assert lay_weights(offsets, spans, 0.5, text="abc defg hij").score == [0.5, 2.0, 0.5]
    assert lay_weights(offsets, spans, text="abc defg hij", unmentioned="later").score == [2.0, 2.0, 2.0]
    assert lay_weights(offsets, []).score == [1.0, 1.0, 1.0]


def test_end_of_sequence():
    spans = [WeightedSpan(0, 3, 2.0, 3.0)]
    offsets = [(0, 3), (3, 3)]
    assert lay_weights(offsets, spans, eos="zero") == ([2.0, 0.0], [3.0, 0.0])
    assert lay_weights(offsets, spans, eos="previous") == ([2.0, 2.0], [3.0, 3.0])
    silent = [WeightedSpan(0, 3, 0.0, 0.0)]
    assert lay_weights(offsets, silent, eos="previous").score == [0.0, 1.0]
    assert lay_weights([(0, 0)], [], eos="previous").score == [1.0]


def test_overlapping_spans_are_refused():
    with pytest.raises(DataError, match=r"0:4 and 3:6"):
        lay_weights([(0, 1)], [WeightedSpan(3, 6, 1, 1), WeightedSpan(0, 4, 1, 1)])


@pytest.mark.parametrize(
    ("score", "weight"),
    [(1, 2.5), (2, 2.0), (3, 1.5), (4, 1.0), ("1", 2.5), (" 2 ", 2.0), ("3.0", 1.5), (None, 1.0), (5, 1.0),
     (0, 1.0), (2.5, 1.0), ("good", 1.0), ("nan", 1.0)],
)  # fmt: skip
def test_score_weights(score, weight):
    assert score_weight(score) == weight


@pytest.mark.parametrize(
    ("error_type", "weight"),
    [("image_recognition_error", 3.0), ("Image_recognition_error", 3.0), ("image recognition-error", 3.0),
     ("language_comprehension_error", 1.0), ("correct", 1.0), ("", 1.0), (None, 1.0)],
)  # fmt: skip
def test_image_weights(error_type, weight):
    assert image_weight(error_type) == weight


def test_kept_edited_deleted_and_added_sentences():
    response = "A bus waits. Two dogs sit. The sky is grey. Nobody saw this."
    error = "image_recognition_error"
    sentences = [
        SentenceReview(index=0, kind="kept", start=0, end=12, original="A bus waits.", revised="A bus waits.", score=4),
        SentenceReview(
            index=1, kind="edited", start=13, end=26, original="Two dogs sit.", revised="One dog sits.", score=2,
            error_type=error,
        ),
        SentenceReview(
            index=2, kind="deleted", start=26, end=43, original=" The sky is grey.", revised="", score=1,
            error_type=error,
        ),
        SentenceReview(index=2, kind="added", start=43, end=43, original="", revised=" A man holds a cup.",
                       error_type=error),
    ]  # fmt: skip
    generated, revised = review_spans(response, sentences)
    text = assemble(response, sentences)
    assert text == "A bus waits. One dog sits. A man holds a cup. Nobody saw this."
    assert [(response[s.start : s.end], *s[2:]) for s in generated] == [
        ("A bus waits.", 1.0, 1.0),
        ("Two dogs sit.", 2.0, 3.0),
        (" The sky is grey.", 2.5, 3.0),
    ]
    assert [(text[s.start : s.end], *s[2:]) for s in revised] == [
        ("A bus waits.", 1.0, 1.0),
        ("One dog sits.", 2.0, 3.0),
        (" A man holds a cup.", 1.0, 1.0),
    ]
