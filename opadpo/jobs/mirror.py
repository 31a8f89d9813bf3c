"""The metrics of a job's runs in one file of its folder, each line with the name of its run in front."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NEW_LINES = 1000
"""Lines at the end of a file that was written anew which are looked at again."""

Identity = tuple[int, int, int]


class Mirror:
    """Follows the metrics of several runs.

    A run that goes on from a checkpoint forgets the lines of the updates after it, by writing its file anew: so does
    the mirror. What stood there before this attempt and is not touched by it belongs to another job, and is left out.
    """

    def __init__(self, path: Path, sources: Mapping[str, Path]) -> None:
        """`path` is the mirror; `sources` are the metrics of the runs."""
        self.path, self.sources = path, sources
        self._before = {run: _identity(source) for run, source in sources.items()}
        self._files: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._newest: dict[str, float] = dict.fromkeys(sources, 0.0)

    def update(self) -> list[dict[str, Any]]:
        """Bring the mirror up to date; returns the lines of updates that are new, in order."""
        new: list[dict[str, Any]] = []
        for run, source in self.sources.items():
            found = _identity(source)
            if found is None or found == self._before[run]:
                continue
            self._before[run] = found
            try:
                new += self._follow(run, source)
            except OSError:
                # A full disk, or a file system that is away: all of this run again, once that is over.
                self._files.pop(run, None)
                self._before[run] = None
        return new

    def _follow(self, run: str, source: Path) -> list[dict[str, Any]]:
        with source.open("rb") as file:
            stat = os.fstat(file.fileno())
            known = self._files.get(run) == stat.st_ino and self._offsets[run] <= stat.st_size
            start = self._offsets[run] if known else 0
            file.seek(start)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        front = json.dumps({"run": run}).encode()[:-1] + b", "
        lines = [front + line[1:] + b"\n" for line in data.splitlines() if line[:1] == b"{" and len(line) > len("{}")]
        if known:
            with self.path.open("ab") as mirror:
                mirror.write(b"".join(lines))
        else:
            self._write_anew(front, lines)
        self._files[run], self._offsets[run] = stat.st_ino, start + len(data)
        return list(self._unseen(run, lines if known else lines[-_NEW_LINES:]))

    def _write_anew(self, front: bytes, lines: list[bytes]) -> None:
        """The lines of all other runs, then these."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("wb") as file:
            if self.path.exists():
                with self.path.open("rb") as old:
                    file.writelines(line for line in old if not line.startswith(front) and line.endswith(b"\n"))
            file.writelines(lines)
        os.replace(temporary, self.path)

    def _unseen(self, run: str, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        """Lines written after those that were returned before; an update that is done again counts again."""
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if (at := float(found.get("time") or 0)) > self._newest[run]:
                self._newest[run] = at
                yield found


def _identity(path: Path) -> Identity | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
