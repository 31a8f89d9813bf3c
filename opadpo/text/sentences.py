"""Sentence boundaries with character offsets, for many scripts."""

import re
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

_MARKER = re.compile(r"[-*\u2022]|\(?(\d{1,3}|[A-Za-z])[.)]")


class Span(NamedTuple):
    """Characters start:end of a text."""

    start: int
    end: int


@lru_cache(maxsize=4096)
def split_sentences(text: str, language: str = "en") -> tuple[Span, ...]:
    """Spans of the sentences of `text`, without the white space around them, in order.

    Every character that is not white space lies in exactly one span. Boundaries come from `sentencex`
    (abbreviations, decimals, quotes, CJK); a line break always ends a sentence, as in lists.
    """
    # A compiled module without types.
    sentencex: Any = import_module("sentencex")
    spans: list[Span] = []
    for line_start, line in _lines(text):
        for boundary in sentencex.get_sentence_boundaries(language, line):
            start, end = boundary["start_index"], boundary["end_index"]
            piece = line[start:end]
            stripped = piece.strip()
            if not stripped:
                continue
            offset = line_start + start + piece.index(stripped)
            if spans and spans[-1].start >= line_start and _MARKER.fullmatch(text, *spans[-1]):
                # A list marker belongs to the sentence that it introduces.
                spans[-1] = Span(spans[-1].start, offset + len(stripped))
            else:
                spans.append(Span(offset, offset + len(stripped)))
    return tuple(spans)


def _lines(text: str) -> list[tuple[int, str]]:
    """(offset, line) of each line of `text`."""
    lines, position = [], 0
    for line in text.splitlines(keepends=True):
        lines.append((position, line))
        position += len(line)
    return lines
