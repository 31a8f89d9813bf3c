"""Token weights from sentence reviews, laid on tokens by character span.

A sentence's score weighs its tokens in the revised pair (on both sides), its error type in the image pair. Spans are
characters of the text that was really said or written; nothing is tokenized apart, so that a token sequence is never
changed by its weights (the released code tokenizes sentence by sentence).

The generated response is trained on exactly the ids that were sampled, which need not be how the tokenizer would spell
the text: its character spans come from decoding those ids. The standard and the revised text are encoded, and the
encoder's offsets are used.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from opadpo.errors import DataError, ModelError
from opadpo.records import SentenceReview, WeightSpan, assembled_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCORE_WEIGHTS = {1: 2.5, 2: 2.0, 3: 1.5, 4: 1.0}
"""Weight of a sentence by its score, 1 (very wrong) to 4 (right); as released."""

ERROR_WEIGHTS = {"image_recognition_error": 3.0, "language_comprehension_error": 1.0, "correct": 1.0}
"""Weight of a sentence in the image pair by its error type; as released."""

Offset = tuple[int, int]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_WINDOW = 8


class WeightedSpan(NamedTuple):
    """Weights of the characters start:end of a text."""

    start: int
    end: int
    score_weight: float
    image_weight: float


class TokenWeights(NamedTuple):
    """Weights of a token sequence, one entry per token."""

    score: list[float]
    image: list[float]


def score_weight(score: float | str | None) -> float:
    """The weight of a score 1 to 4, given as a number or as its digits; 1.0 for anything else, as released.

    (The released code takes "2" for anything else, too: a bug.)
    """
    try:
        number = float(score) if score is not None else math.nan
    except (TypeError, ValueError):
        return 1.0
    return SCORE_WEIGHTS.get(int(number), 1.0) if number.is_integer() else 1.0


def image_weight(error_type: str | None) -> float:
    """The weight of an error type in the image pair, whatever its capitals, spaces and hyphens; else 1.0."""
    if not isinstance(error_type, str):
        return 1.0
    return ERROR_WEIGHTS.get("_".join(error_type.lower().replace("-", " ").replace("_", " ").split()), 1.0)


def review_spans(response: str, sentences: list[SentenceReview]) -> tuple[list[WeightedSpan], list[WeightedSpan]]:
    """(spans of the response, spans of the revised text) of reviewed sentences.

    A deleted sentence has a span in the response only, an added one in the revised text only, with weight 1.
    Separators and sentences that nobody reviewed have none; `lay_weights` says what they get.

    Raises:
        ValueError: if the sentences do not fit the response (`opadpo.records.assemble`).
    """
    generated = [
        WeightedSpan(s.start, s.end, score_weight(s.score), image_weight(s.error_type))
        for s in sorted(sentences, key=lambda s: s.start)
        if s.kind != "added"
    ]
    revised: list[WeightedSpan] = []
    position = 0
    for text, sentence in assembled_pieces(response, sentences):
        end = position + len(text)
        if sentence is not None:
            added = sentence.kind == "added"
            score = 1.0 if added else score_weight(sentence.score)
            image = 1.0 if added else image_weight(sentence.error_type)
            revised.append(WeightedSpan(position, end, score, image))
        position = end
    return generated, revised


def encode_with_offsets(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, add_special_tokens: bool = False
) -> tuple[list[int], list[Offset]]:
    """Token ids of `text` and the characters that each covers. No end-of-sequence token is added by default.

    Raises:
        ModelError: if the tokenizer has no offsets.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            "This tokenizer does not say which characters a token covers, so sentence weights cannot be laid on tokens",
            seen=type(tokenizer).__name__,
            remedy="load the fast tokenizer (AutoTokenizer with use_fast=True; it needs tokenizer.json, which"
            " `tokenizer.save_pretrained` of a fast tokenizer writes)",
        )
    encoding = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    return list(encoding["input_ids"]), [(int(start), int(end)) for start, end in encoding["offset_mapping"]]


def decode_offsets(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int], text: str | None = None) -> list[Offset]:
    """The characters that each of the sampled `ids` covers in the text that they decode to, special tokens removed.

    The ids need not be canonical. Where a character's bytes are spread over several tokens, each of them covers it. A
    special token covers nothing: (n, n) with n characters before it. With `text`, the offsets are in `text`, which
    may lack white space at either end of what the ids decode to.

    Raises:
        DataError: if the ids do not decode to `text`.
    """
    ids = list(ids)

    def decode(some: list[int]) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    decoded = decode(ids)
    joined, known = _known_characters(decode, ids, _WINDOW)
    if joined != decoded:  # a decoder that looks further back than the window
        _, known = _known_characters(decode, ids, len(ids))
    text = decoded if text is None else text
    if decoded.strip() != text.strip():
        raise DataError(
            "The stored token ids do not spell the stored response",
            seen=f"ids decode to {decoded[:80]!r}, response {text[:80]!r}",
            remedy="sample the rollouts again with this model's tokenizer",
        )
    shift = _leading_space(decoded) - _leading_space(text)
    offsets: list[Offset] = []
    before = 0
    for count, incomplete in known:
        ends = (before - shift, count + incomplete - shift)
        start, end = (min(max(position, 0), len(text)) for position in ends)
        offsets.append((start, end))
        before = count
    return offsets


def _known_characters(
    decode: Callable[[list[int]], str], ids: list[int], window: int
) -> tuple[str, list[tuple[int, bool]]]:
    """The text, and after each token: how many characters are complete, and whether one more has begun.

    Decodes only a window of the ids at a time, always together with the tokens before it, because decoders treat the
    first token of a text differently.
    """
    known: list[tuple[int, bool]] = []
    text = context = piece = ""
    anchor = middle = complete = 0
    for end in range(1, len(ids) + 1):
        piece = decode(ids[anchor:end])
        settled = piece.rstrip(_REPLACEMENT)
        # A byte-fallback decoder takes a whole run of bytes back when its last character is cut: never go back.
        complete = max(complete, len(text) + len(settled) - len(context))
        known.append((complete, settled != piece))
        if settled == piece and end - middle >= window:
            text += piece[len(context) :]
            anchor, middle = middle, end
            context = piece = decode(ids[anchor:middle])
    return text + piece[len(context) :], known


def _leading_space(text: str) -> int:
    return len(text) - len(text.lstrip())


def lay_weights(
    offsets: Sequence[Offset],
    spans: Iterable[WeightedSpan | WeightSpan],
    default: float = 1.0,
    *,
    text: str | None = None,
    unmentioned: Literal["default", "later"] = "default",
    eos: Literal["zero", "previous"] | None = None,
) -> TokenWeights:
    """Weights of tokens with these character `offsets`.

    A token takes the weights of the span that it shares most characters with (the later one if two are equal). White
    space between sentences, which `text` is needed to recognise, belongs to the later sentence, after the last one to
    the last, as released; so does a token without characters. Other text that no span mentions weighs `default`, or
    with `unmentioned="later"` is treated like white space, as released.

    `eos` says that the last token is the end-of-sequence token, and what it weighs: "zero", as released for the
    generated response (it still counts in the means); "previous", as released for the revised one: like the token
    before it, 1 if that weighs 0.

    Raises:
        DataError: if spans overlap.
    """
    ordered = sorted(spans, key=lambda span: (span.start, span.end))
    for first, second in pairwise(ordered):
        if second.start < first.end:
            raise DataError(
                "Weighted spans overlap",
                seen=f"characters {first.start}:{first.end} and {second.start}:{second.end}",
                remedy="build the data set again from its revisions",
            )
    weights = TokenWeights([], [])
    for start, end in offsets:
        span = _covering(start, end, ordered)
        blank = start == end or (text is not None and not text[start:end].strip())
        if span is None and ordered and (blank or unmentioned == "later"):
            span = next((s for s in ordered if s.start >= start), ordered[-1])
        weights.score.append(default if span is None else span.score_weight)
        weights.image.append(default if span is None else span.image_weight)
    if eos is not None and weights.score:
        for values in weights:
            values[-1] = 0.0 if eos == "zero" else (values[-2] if len(values) > 1 else 0.0) or 1.0
    return weights


def _covering(start: int, end: int, spans: list[WeightedSpan | WeightSpan]) -> WeightedSpan | WeightSpan | None:
    best, best_overlap = None, 0
    for span in spans:
        shared = min(end, span.end) - max(start, span.start)
        overlap = int(span.start <= start < span.end) if start == end else shared
        if overlap > 0 and overlap >= best_overlap:
            best, best_overlap = span, overlap
    return best
