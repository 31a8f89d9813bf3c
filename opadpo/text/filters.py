"""Filters for degenerate responses: a model that got stuck repeats its last sentence or its last word."""

from opadpo.text.sentences import split_sentences

MAX_WORD_REPEATS = 30
"""A last word that has come more often than this before is a loop; as released."""

_END_MARKS = ".!?…。！？"
_CLOSING = "\"'”’»)]"


def repeats_last_sentence(text: str, *, as_released: bool = False) -> bool:
    """Whether the last sentence, word for word, is one that came before.

    If the text is cut within a sentence, the last complete sentence is tested as well as the cut one. With
    `as_released` it is the released code's test: the piece before the last full stop is a substring of what precedes
    it. That takes an ellipsis at the end, or a sentence contained in a longer one, for a repetition, splits decimals,
    does not know "!" and "?", and overlooks a repetition without a final full stop.
    """
    if as_released:
        pieces = text.split(".")
        return len(pieces) > 1 and pieces[-2].strip() in ".".join(pieces[:-2])
    sentences = [text[start:end] for start, end in split_sentences(text)]
    bare = [sentence.rstrip(_CLOSING + _END_MARKS).strip() for sentence in sentences]
    tested = [len(bare) - 1]
    if sentences and sentences[-1].rstrip(_CLOSING)[-1:] not in _END_MARKS:
        tested.append(len(bare) - 2)
    return any(bare[i] and bare[i] in bare[:i] for i in tested if i > 0)


def repeats_last_word(text: str) -> bool:
    """Whether the last word occurs more than 30 times before the last two words; as released."""
    words = text.split()
    return bool(words) and words[:-2].count(words[-1]) > MAX_WORD_REPEATS


FILTERS = {"repeated_last_sentence": repeats_last_sentence, "repeated_last_word": repeats_last_word}
"""Name in the recipe -> test of a generated response."""
