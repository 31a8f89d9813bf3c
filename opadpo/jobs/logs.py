"""Reading a log that may be large and grow fast: its new lines, its tail, the lines with a word in them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = 2**20


class Piece(NamedTuple):
    """Some lines of a log."""

    text: str
    """Whole lines; what is no UTF-8 is replaced."""
    offset: int
    """Where to read on."""
    size: int
    """Bytes of the file."""
    skipped: int
    """Bytes that were left out before these lines, because the reader was too far behind."""


def read(path: Path, offset: int | None, limit: int = 65536) -> Piece:
    """Lines from `offset` on, at most `limit` bytes; None: the tail.

    A reader that is further behind gets the tail, so that following a log costs the same however fast it grows. A line
    that is not ended yet waits, unless it alone is longer than the limit. A file that is not there is empty; one that
    has become shorter is another file, and is read from its tail.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = 0 if offset is None or offset > size else offset
            first = max(start, size - limit)
            cut = first > start
            file.seek(first - 1 if cut else first)
            data = file.read(min(limit, size - first) + cut)
    except FileNotFoundError:
        return Piece("", 0, 0, 0)
    if cut:  # begin with a whole line, which the byte before may already end
        line_end = data.find(b"\n") + 1
        first += (line_end or 1) - 1
        data = data[line_end or 1 :]
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) >= limit:
        end = len(data)
    skipped = first - (offset if offset is not None and offset <= size else 0)
    return Piece(data[:end].decode(errors="replace"), first + end, size, max(0, skipped))


def after(path: Path, offset: int) -> bytes:
    """Bytes after `offset`, of many the first; empty if there are none, or no file yet."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(_BLOCK)
    except FileNotFoundError:
        return b""


def search(path: Path, text: str, limit: int) -> Iterator[tuple[int, str]]:
    """The first `limit` lines that contain `text` in any case, with their numbers from 1; in bounded memory."""
    wanted = text.casefold()
    if not wanted:
        return
    found, number = 0, 1
    for block in _blocks(path):
        # ASCII, as nearly all logs are, is searched without decoding.
        hit = wanted.encode() in block.lower() if wanted.isascii() else wanted in _decoded(block).casefold()
        if hit:
            for index, line in enumerate(block.removesuffix(b"\n").split(b"\n")):
                shown = _decoded(line)
                if wanted in shown.casefold():
                    yield number + index, shown.rstrip("\r")
                    found += 1
                    if found == limit:
                        return
        number += block.count(b"\n")


def _decoded(data: bytes) -> str:
    return data.decode(errors="replace")


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in parts of whole lines; a line longer than a part is cut."""
    rest = b""
    try:
        with path.open("rb") as file:
            while data := file.read(_BLOCK):
                data = rest + data
                end = data.rfind(b"\n") + 1
                if end == 0 and len(data) >= 2 * _BLOCK:
                    end = len(data)
                if end:
                    yield data[:end]
                rest = data[end:]
    except FileNotFoundError:
        return
    if rest:
        yield rest
