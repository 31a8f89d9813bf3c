"""Where a caption names the objects that a benchmark has found in it."""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Mark = Literal["hallucinated", "grounded"]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


class Piece(NamedTuple):
    """A stretch of a caption."""

    text: str
    """Its characters."""
    mark: Mark | None = None
    """What is known of the object that it names; None where it names none that was judged."""


def pieces(
    text: str, mentioned: Sequence[str], hallucinated: Collection[str], unjudged: Collection[str] = ()
) -> list[Piece]:
    """A caption cut into pieces with their marks; joined they are the caption.

    Args:
        text: the caption.
        mentioned: the objects that it names, in order, repeats included, in the singular; a word that is not found
            (a benchmark may read words in another way) is left unmarked.
        hallucinated: those of them that are not in the image.
        unjudged: those of them that are neither right nor wrong.
    """
    found = list(_WORD.finditer(text))
    words = [match[0].lower().replace("’", "'") for match in found]
    result: list[Piece] = []
    done = place = 0
    for noun in mentioned:
        wanted = tuple(_WORD.findall(noun.lower().replace("’", "'")))
        at = _find(words, wanted, place)
        if at is None:
            continue
        place = at + len(wanted)
        if noun in unjudged:
            continue
        start, end = found[at].start(), found[place - 1].end()
        result += [
            Piece(text[done:start]),
            Piece(text[start:end], "hallucinated" if noun in hallucinated else "grounded"),
        ]
        done = end
    return [piece for piece in (*result, Piece(text[done:])) if piece.text]


def _find(words: Sequence[str], wanted: tuple[str, ...], start: int) -> int | None:
    """The first place from `start` on where the words stand, the last of them in any number."""
    size = len(wanted)
    if not size:
        return None
    for place in range(start, len(words) - size + 1):
        if tuple(words[place : place + size - 1]) == wanted[:-1] and wanted[-1] in _forms(words[place + size - 1]):
            return place
    return None


@lru_cache(maxsize=100_000)
def _forms(word: str) -> tuple[str, ...]:
    """The word as it stands, then its singulars."""
    from lemminflect import getLemma

    return (word, *getLemma(word, upos="NOUN"))
