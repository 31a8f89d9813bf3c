"""Sentence boundaries with character offsets, for many scripts."""

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

_BULLET = r"[-*+\u2013\u2014\u2022\u2023\u25aa\u25e6]"
_NUMBER = r"\(?(?P<number>\d{1,3}|[A-Za-z]|[ivxIVX]{2,5})[.)]"
_MARKER = re.compile(rf"{_BULLET}|{_BULLET}?\s*(?:\*\*)?{_NUMBER}(?:\*\*)?")
"""A whole span that only marks an item of a list."""
_STARTS_WITH_NUMBER = re.compile(r"(?:\*\*)?\(?(\d{1,3})[.)](?:\*\*)?\s")
_ENDS_WITH_NUMBER = re.compile(r"\s(?:\*\*)?\(?(\d{1,3})[.)](?:\*\*)?\Z")
_OPEN_ABBREVIATION = re.compile(r"(?:\A|[\s(])(?:approx|ca|abt|min|max|est)\.\Z", re.IGNORECASE)
"""Abbreviations that say something about the number after them; the segmenter knows only those before names."""


class Span(NamedTuple):
    """Characters start:end of a text."""

    start: int
    end: int


@lru_cache(maxsize=4096)
def split_sentences(text: str, language: str = "en") -> tuple[Span, ...]:
    """Spans of the sentences of `text`, without the white space around them, in order.

    Every character that is not white space lies in exactly one span. Boundaries come from `sentencex`
    (abbreviations, decimals, quotes, CJK, Arabic, Devanagari); a line break always ends a sentence, as in lists. The
    marker of an item ("1.", "(b)", "-") belongs to the sentence that it introduces, and a piece without any letter or
    digit to the sentence before it.
    """
    spans: list[Span] = []
    for line_start, line in _lines(text):
        pieces = _joined(line, list(_pieces(line, language)))
        spans += [Span(line_start + start, line_start + end) for start, end in pieces]
    return tuple(spans)


def _pieces(line: str, language: str) -> Iterator[Span]:
    """What the segmenter takes for sentences, without white space around them."""
    # A compiled module without types.
    sentencex: Any = import_module("sentencex")
    for boundary in sentencex.get_sentence_boundaries(language, line):
        start, end = boundary["start_index"], boundary["end_index"]
        stripped = line[start:end].strip()
        if stripped:
            offset = start + line[start:end].index(stripped)
            yield Span(offset, offset + len(stripped))


def _joined(line: str, pieces: list[Span]) -> list[Span]:
    """The pieces of a line with those put together that are one sentence, and numbers moved to their items."""
    spans: list[Span] = []
    for piece in pieces:
        before = line[slice(*spans[-1])] if spans else ""
        here = line[slice(*piece)]
        moved = _moved_number(line[slice(*spans[0])], before, len(spans)) if spans else 0
        if moved:
            end = spans[-1].end - moved
            spans[-1] = Span(spans[-1].start, len(line[:end].rstrip()))
            spans.append(Span(end, piece.end))
        elif spans and (
            _MARKER.fullmatch(before)
            or not any(character.isalnum() for character in here)
            or (_OPEN_ABBREVIATION.search(before) and here[0].isdigit())
        ):
            spans[-1] = Span(spans[-1].start, piece.end)
        else:
            spans.append(piece)
    return spans


def _moved_number(first: str, before: str, item: int) -> int:
    """Characters at the end of a sentence that number the next item of a list within a line, else 0.

    In "1. A cat 2. A dog" the segmenter leaves the 2 with the cat.
    """
    start, end = _STARTS_WITH_NUMBER.match(first), _ENDS_WITH_NUMBER.search(before)
    if not start or not end or int(end[1]) > int(start[1]) + item or int(end[1]) <= int(start[1]):
        return 0
    return len(end[0].lstrip())


def _lines(text: str) -> list[tuple[int, str]]:
    """(offset, line) of each line of `text`."""
    lines, position = [], 0
    for line in text.splitlines(keepends=True):
        lines.append((position, line))
        position += len(line)
    return lines
