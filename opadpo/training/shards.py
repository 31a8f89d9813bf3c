"""Rows of float32 under 16-byte keys, in files that are only ever appended to.

A file is a run of frames: key, number of values, checksum of both and of the values, the values (little-endian). What a
kill or a power cut leaves at the end of a file is no whole frame: reading stops there, and the next writer cuts it off.
Reading maps the files and keeps 18 bytes of index per row; the rows themselves stay on the disk.
"""

import mmap
import os
import struct
import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SUFFIX = ".rows"
KEY_BYTES = 16
SYNC_SECONDS = 1.0
"""What a power cut can cost; a killed process loses nothing that was appended."""

_FRAME = struct.Struct(f"<{KEY_BYTES}sII")
_HASHED = KEY_BYTES + 4  # bytes before the checksum
_VALUE = np.dtype("<f4")


class Shards:
    """All rows in a folder, as they were when it was opened."""

    def __init__(self, folder: Path) -> None:
        """Read through every file once, checking each row."""
        scans = [_scan(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
        self.whole = {scan.path: scan.end for scan in scans}
        """File -> bytes of it that are whole rows."""
        self._maps = [scan.content for scan in scans]
        files = np.concatenate(
            [np.full(len(scan.offsets), i, dtype=np.uint16) for i, scan in enumerate(scans)] or [np.zeros(0, np.uint16)]
        )
        offsets = np.concatenate([np.asarray(s.offsets, np.uint64) for s in scans] or [np.zeros(0, np.uint64)])
        heads = np.concatenate([np.asarray(s.heads, np.uint64) for s in scans] or [np.zeros(0, np.uint64)])
        order = np.argsort(heads, kind="stable")
        # One key at a time, memory views are searched faster than arrays.
        self._heads = heads[order].data
        self._files = files[order].data
        self._offsets = offsets[order].data

    def __len__(self) -> int:
        return len(self._heads)

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: bytes) -> npt.NDArray[np.float32]:
        """The values under a key, read-only, where they lie in the file.

        Raises:
            KeyError: if there are none.
        """
        found = self._find(key)
        if found is None:
            raise KeyError(key.hex())
        content, offset = found
        _, count, _ = _FRAME.unpack_from(content, offset)
        return np.frombuffer(content, _VALUE, count, offset + _FRAME.size)

    def _find(self, key: bytes) -> tuple[mmap.mmap, int] | None:
        head = _head(key)
        place = bisect_left(self._heads, head)
        while place < len(self._heads) and self._heads[place] == head:
            content, offset = self._maps[self._files[place]], self._offsets[place]
            if content[offset : offset + KEY_BYTES] == key:
                return content, offset
            place += 1
        return None


class ShardWriter:
    """Appends rows to one file, of which it is the only writer."""

    def __init__(self, path: Path, whole: int) -> None:
        """`whole` bytes of the file are whole rows (`Shards.whole`); what follows them is cut off.

        Raises:
            OSError: if the file cannot be written.
        """
        self._file = path.open("ab", buffering=0)
        self._end = whole
        self._synced = time.monotonic()
        self._file.truncate(whole)

    def append(self, rows: Iterable[tuple[bytes, npt.NDArray[np.float32]]]) -> None:
        """Write rows behind the others, together.

        Raises:
            OSError: if there is no room; none of them is then left.
        """
        rest = memoryview(b"".join(_frame(key, values) for key, values in rows))
        size = len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += size
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


class _Scan(NamedTuple):
    path: Path
    content: mmap.mmap
    heads: "array[int]"
    """First eight bytes of every key."""
    offsets: "array[int]"
    end: int


def _scan(path: Path) -> _Scan:
    heads, offsets = array("Q"), array("Q")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # An empty file cannot be mapped; an anonymous page stands for it, and is never read.
        content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else mmap.mmap(-1, 1)
    view = memoryview(content)[:size]
    offset = 0
    while offset + _FRAME.size <= size:
        key, count, checksum = _FRAME.unpack_from(view, offset)
        start = offset + _FRAME.size
        end = start + count * _VALUE.itemsize
        if end > size or _checksum(view[offset : offset + _HASHED], view[start:end]) != checksum:
            break
        heads.append(_head(key))
        offsets.append(offset)
        offset = end
    view.release()
    return _Scan(path, content, heads, offsets, offset)


def _frame(key: bytes, values: npt.NDArray[np.float32]) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, this one {len(key)}")
    data = np.ascontiguousarray(values, _VALUE).tobytes()
    head = _FRAME.pack(key, len(values), 0)[:_HASHED]
    return _FRAME.pack(key, len(values), _checksum(head, data)) + data


def _checksum(head: bytes | memoryview, data: bytes | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(head))


def _head(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")
