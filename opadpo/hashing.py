"""Content hashes and seeds: ids of records, fingerprints of artefacts, per-row random seeds."""

import hashlib
import json
from pathlib import Path
from typing import Any

ID_HEX_DIGITS = 20
"""Length of ids: 80 bits, so a million records collide with a probability below 1e-12."""


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON-able value in canonical form (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def content_id(prefix: str, value: Any) -> str:
    """Id of a record: the prefix, a dash and the first digits of the value's digest."""
    return f"{prefix}-{digest(value)[:ID_HEX_DIGITS]}"


def bytes_digest(data: bytes) -> str:
    """SHA-256 (64 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def derive_seed(seed: int, *parts: object) -> int:
    """A seed in [0, 2**63) that depends on the recipe's seed and on `parts` (ids, epochs) and nothing else.

    Rows seeded like this give the same sample whatever the batch, the order or the number of processes.
    """
    return int(digest([seed, *[str(part) for part in parts]])[:16], 16) >> 1
