"""Word-level differences of two texts: for people to see, and to measure how much was changed."""

import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal, NamedTuple

Op = Literal["equal", "delete", "insert"]

# Scripts written without spaces: one character is one unit. Thai and its neighbours stay whole runs, since a break
# inside a syllable would be worse to read than a long change.
_UNSPACED = (
    (0x3000, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFF9F),
    (0x20000, 0x3FFFF),
)
_JOINER = "\u200d"
_APOSTROPHES = "'\u2019"


class Change(NamedTuple):
    """A stretch of text that is in both versions, only in the first, or only in the second."""

    op: Op
    """equal, delete (only in the first) or insert (only in the second)."""
    text: str
    """The characters."""


def word_diff(first: str, second: str) -> list[Change]:
    """How `first` becomes `second`, word by word; CJK text character by character.

    The texts of `equal` and `delete` together are `first`, those of `equal` and `insert` are `second`. A deletion
    comes before the insertion that replaces it; neighbours always differ in their `op`.
    """
    before, after = tokens(first), tokens(second)
    blocks: list[tuple[str, str, str]] = []
    for op, i, i_end, j, j_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old, new = "".join(before[i:i_end]), "".join(after[j:j_end])
        blocks.append(("equal", old, new) if op == "equal" else ("change", old, new))
    return _changes(_without_islands(blocks))


def tokens(text: str) -> tuple[str, ...]:
    """`text` cut into words, single marks, single CJK characters and runs of white space; joined they are `text`."""
    return _tokens(text)


def words(text: str) -> tuple[str, ...]:
    """The tokens of `text` that are not white space."""
    return tuple(token for token in _tokens(text) if not token.isspace())


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Least number of insertions, deletions and substitutions between two sequences (Levenshtein).

    Bit-parallel (Myers 1999, Hyyrö 2003): one step per item of `second` on integers of `len(first)` bits, so that
    sentences of thousands of words take milliseconds.
    """
    if not first or not second:
        return len(first) + len(second)
    where: dict[str, int] = {}
    for position, item in enumerate(first):
        where[item] = where.get(item, 0) | 1 << position
    size = len(first)
    mask, last = (1 << size) - 1, 1 << (size - 1)
    plus, minus, distance = mask, 0, size
    for item in second:
        equal = where.get(item, 0)
        diagonal = ((((equal & plus) + plus) ^ plus) | equal | minus) & mask
        up = minus | (~(diagonal | plus) & mask)
        down = plus & diagonal
        distance += bool(up & last) - bool(down & last)
        up = (up << 1 | 1) & mask
        down = down << 1 & mask
        plus = down | (~(diagonal | up) & mask)
        minus = up & diagonal
    return distance


def changed_share(original: str, revised: str) -> float:
    """Share of the words that a rewriting touches, 0 to 1: edit distance over the longer one's number of words."""
    before, after = words(original), words(revised)
    longer = max(len(before), len(after))
    return edit_distance(before, after) / longer if longer else 0.0


def is_unspaced(character: str) -> bool:
    """True for a Chinese or Japanese character or full-width mark: no space comes before or after it."""
    return any(low <= ord(character) <= high for low, high in _UNSPACED)


@lru_cache(maxsize=1024)
def _tokens(text: str) -> tuple[str, ...]:
    found: list[str] = []
    kind = ""
    for position, character in enumerate(text):
        last, kind = kind, _kind(character)
        if found and (kind == "attached" or found[-1].endswith(_JOINER)) and not found[-1].isspace():
            found[-1] += character
            kind = last
        elif kind == last and kind in ("word", "space"):
            found[-1] += character
        elif last == "word" and character in _APOSTROPHES and _kind(text[position + 1 : position + 2]) == "word":
            found[-1] += character
            kind = last
        else:
            found.append(character)
    return tuple(found)


def _kind(character: str) -> str:
    """word, space, attached (to the character before), or single."""
    if not character:
        return "single"
    if character.isspace():
        return "space"
    if is_unspaced(character):
        return "single"
    category = unicodedata.category(character)
    if category[0] == "M" or character == _JOINER or 0x1F3FB <= ord(character) <= 0x1F3FF:
        return "attached"
    return "word" if category[0] in "LN" or category == "Pc" else "single"


def _without_islands(blocks: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """White space that is alone between two changes becomes part of them: "a b" for "c d" reads as one change."""
    merged: list[tuple[str, str, str]] = []
    for position, (op, old, new) in enumerate(blocks):
        island = op == "equal" and old.isspace() and 0 < position < len(blocks) - 1
        kind = "change" if island else op
        if merged and kind == "change" and merged[-1][0] == "change":
            merged[-1] = ("change", merged[-1][1] + old, merged[-1][2] + new)
        else:
            merged.append((kind, old, new))
    return merged


def _changes(blocks: list[tuple[str, str, str]]) -> list[Change]:
    changes: list[Change] = []
    for op, old, new in blocks:
        if op == "equal":
            changes.append(Change("equal", old))
            continue
        if old:
            changes.append(Change("delete", old))
        if new:
            changes.append(Change("insert", new))
    return changes
