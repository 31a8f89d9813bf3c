"""What every reader of input data gives: raw rows, in order, and any of them again."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from opadpo.errors import DataError
from opadpo.records import Split

UNKNOWN_SOURCE = "unknown"
"""Stratum of rows whose origin is not given."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of the input, before anything about it has been checked."""

    position: int
    """Index among all rows of the source, from 0; `Source.rows` finds the row again by it."""
    where: str
    """Where a person finds the row: file and row or line."""
    image: bytes | None = None
    """Bytes of the image file."""
    question: str = ""
    """What is asked."""
    reference: str = ""
    """A good answer; empty if the source has none."""
    rejected: str | None = None
    """A bad answer, where the source has one."""
    source: str = UNKNOWN_SOURCE
    """Origin; subsets are proportional by it."""
    split: Split | None = None
    """The split that the source itself gives the row."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other values worth keeping; JSON-able."""
    problem: str | None = None
    """Why the row cannot be used (no image file, a line that is not JSON); the other fields may be empty then."""


class Source(Protocol):
    """Rows that can be read more than once. Memory stays at a few rows, whatever the size of the source."""

    name: str
    """What is read, for messages."""
    has_references: bool
    """Whether every usable row must have a reference."""
    total: int | None
    """Number of rows; None if only reading tells."""

    def rows(self, wanted: Collection[int] | None = None) -> Iterator[RawRow]:
        """All rows in order, or only those at the positions `wanted`.

        Raises:
            DataError: if the source turns out to be damaged.
        """
        ...


def read_image_file(path: Path) -> tuple[bytes | None, str | None]:
    """(bytes, None), or (None, why there are none)."""
    try:
        return path.read_bytes(), None
    except FileNotFoundError:
        return None, f"no image: there is no file {path}"
    except IsADirectoryError:
        return None, f"no image: {path} is a folder"
    except (OSError, ValueError) as error:
        return None, f"no image: {path} cannot be read ({error})"


def not_there(path: str) -> DataError:
    """The error for a path of the recipe that leads nowhere."""
    return DataError(
        "The data source does not exist",
        seen=f"prepare.source.path {path}, that is {Path(path).expanduser().absolute()}",
        remedy="correct prepare.source.path in the recipe (relative paths start at the current folder)",
    )
