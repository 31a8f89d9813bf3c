"""Files of requests for the batch service, within the provider's limits."""

from pathlib import Path
from typing import Any

from opadpo.llm.batch_ledger import new_part_id


class PartWriter:
    """Writes requests into the file of a part, and begins another when it is finished."""

    def __init__(self, folder: Path, max_requests: int, max_megabytes: float) -> None:
        self._folder = folder
        self._max_requests = max_requests
        self._max_bytes = max_megabytes * 1e6
        self._begin()

    def _begin(self) -> None:
        self._part_id = new_part_id()
        self.keys: list[str] = []
        """Requests in the file."""
        self.worst = 0.0
        """The most that they can cost, in US dollars."""
        self._bytes = 0
        self._stream: Any = None

    def has_room(self, line: bytes) -> bool:
        """Whether one more request is within the provider's limits; a part takes at least one."""
        return not self.keys or (len(self.keys) < self._max_requests and self._bytes + len(line) <= self._max_bytes)

    def write(self, key: str, line: bytes, worst: float) -> None:
        """Add a request that can cost `worst` US dollars at the most."""
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stream = part_path(self._folder, self._part_id).open("wb")
        self._stream.write(line)
        self.keys.append(key)
        self.worst += worst
        self._bytes += len(line)

    def finish(self) -> tuple[str, list[str], float]:
        """(name, keys, most that it can cost) of the part whose file is complete now."""
        self._stream.close()
        finished = (self._part_id, self.keys, self.worst)
        self._begin()
        return finished

    def discard(self) -> None:
        """Delete a file that was not finished."""
        if self._stream is not None:
            self._stream.close()
            part_path(self._folder, self._part_id).unlink(missing_ok=True)


def part_path(folder: Path, part_id: str) -> Path:
    """Where the file of a part is kept until its results are."""
    return folder / f"batch-{part_id}.jsonl"
