"""Tables with a column mapping, and the RLAIF-V data set, which is one with known columns."""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opadpo.errors import DataError
from opadpo.recipe.sections import ColumnMapping
from opadpo.steps.sources.base import UNKNOWN_SOURCE, RawRow, read_image_file
from opadpo.steps.sources.formats import IMAGE_TYPES, READERS, TableFile, TableRow

RLAIFV_COLUMNS = ColumnMapping(
    image="image", question="question", reference="chosen", rejected="rejected", source="origin_dataset"
)
"""What the columns of RLAIF-V mean; its strata are the data sets that its images come from."""

_FAMILIES = ((".parquet",), (".arrow",), (".jsonl", ".ndjson"), (".csv", ".tsv"), (".json",))
_GLOB_CHARACTERS = frozenset("*?[")


class TableSource:
    """One or more table files of the same columns."""

    def __init__(self, name: str, files: Sequence[Path], mapping: ColumnMapping) -> None:
        """Open every file and check its columns.

        Raises:
            DataError: if there are no rows, a column is missing or cannot hold images, or a file is damaged.
        """
        self.name = name
        self.mapping = mapping
        self.has_references = mapping.reference is not None
        self.files = [READERS[path.suffix.lower()](path) for path in files]
        for file in self.files:
            _check_columns(file, mapping)
        totals = [file.total for file in self.files]
        self.total: int | None = None if None in totals else sum(total or 0 for total in totals)
        if self.total == 0 or not any(file.columns for file in self.files):
            raise DataError("The data source has no rows", seen=name, remedy="correct prepare.source.path")

    def rows(self, wanted: Collection[int] | None = None) -> Iterator[RawRow]:
        """Rows of all files, one file after the other."""
        positions = None if wanted is None else sorted(wanted)
        start = 0
        for file in self.files:
            if positions is None or file.total is None:
                local = None
            else:
                first, last = bisect_left(positions, start), bisect_left(positions, start + file.total)
                local = [position - start for position in positions[first:last]]
            if local is None or local:
                for row in file.rows(self._columns(file), local):
                    yield self._raw(file, start, row)
            start += file.total or 0

    def _columns(self, file: TableFile) -> list[str]:
        return [*file.plain, self.mapping.image]

    def _raw(self, file: TableFile, start: int, row: TableRow) -> RawRow:
        position, where, mapping = start + row.index, row.where, self.mapping
        if row.problem:
            return RawRow(position=position, where=where, problem=row.problem)
        values = row.values
        image, problem = _image(values.get(mapping.image), file.path.parent)
        rejected = _text(values, mapping.rejected)
        used = {mapping.image, mapping.question, mapping.reference, mapping.rejected}
        return RawRow(
            position=position,
            where=where,
            image=image,
            question=_text(values, mapping.question),
            reference=_text(values, mapping.reference),
            rejected=rejected or None,
            source=_text(values, mapping.source) or UNKNOWN_SOURCE,
            extra={k: v for k, v in values.items() if k not in used and _is_plain(v)},
            problem=problem,
        )


def local_files(path: str) -> list[Path] | None:
    """The table files that a file name, folder or glob means, sorted; None if nothing of the kind exists.

    Raises:
        DataError: if there is something, but no table of a kind that is read, or a folder mixes kinds.
    """
    expanded = Path(path).expanduser()
    if expanded.is_file():
        if expanded.suffix.lower() not in READERS:
            raise _unknown_kind(str(expanded))
        return [expanded]
    if expanded.is_dir():
        return files_of_one_kind(sorted(p for p in expanded.rglob("*") if _is_visible(p, expanded)), str(expanded))
    if not _GLOB_CHARACTERS & set(path):
        return None
    anchor = Path(expanded.anchor or ".")
    matches = sorted(p for p in anchor.glob(str(expanded.relative_to(expanded.anchor))) if p.is_file())
    return files_of_one_kind(matches, path) if matches else None


def files_of_one_kind(candidates: Sequence[Path], name: str) -> list[Path]:
    """The table files among `candidates`; `.json` files count only if there are no others.

    Raises:
        DataError: if there are none, or of several kinds.
    """
    groups = [[p for p in candidates if p.suffix.lower() in family] for family in _FAMILIES]
    tables = [group for group in groups[:-1] if group] or [group for group in groups[-1:] if group]
    if not tables:
        raise _unknown_kind(name)
    if len(tables) > 1:
        seen = ", ".join(group[0].name for group in tables)
        raise DataError(
            "The data source holds tables of several kinds",
            seen=f"{name}: {seen}",
            remedy="name one kind with a pattern, for example prepare.source.path: folder/*.parquet",
        )
    return tables[0]


def _check_columns(file: TableFile, mapping: ColumnMapping) -> None:
    if not file.columns:
        return
    needed = {key: name for key, name in mapping.model_dump().items() if name is not None}
    missing = [f"{name} (the {key})" for key, name in needed.items() if name not in file.columns]
    if missing:
        raise DataError(
            f"The table does not have the needed column{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            seen=f"{file.path} has {', '.join(file.columns)}",
            remedy="set prepare.source.kind to table and name its columns under prepare.source.columns",
        )
    wrong = file.image_type_problem(mapping.image)
    if wrong:
        raise DataError(
            f"The column {mapping.image} cannot hold images: it needs {IMAGE_TYPES}",
            seen=f"{file.path}: {wrong}",
            remedy="name another column in prepare.source.columns.image",
        )


def _image(value: Any, folder: Path) -> tuple[bytes | None, str | None]:
    """(bytes, None), or (None, why there are none)."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or value in ("", b""):
        return None, "no image: the value is empty"
    if isinstance(value, bytes):
        return value, None
    if not isinstance(value, str):
        return None, f"no image: the value is {type(value).__name__}, not {IMAGE_TYPES}"
    if value.startswith(("http://", "https://")):
        return None, f"no image: {value} is an address; download the file and give its path"
    return read_image_file(folder / value)


def _text(values: Mapping[str, Any], column: str | None) -> str:
    value = values.get(column) if column else None
    return "" if value is None else str(value).strip()


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, bytes) and not (isinstance(value, float) and math.isnan(value))


def _is_visible(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.suffix.lower() in READERS and path.is_file()


def _unknown_kind(name: str) -> DataError:
    return DataError(
        "The data source is no table that can be read",
        seen=name,
        remedy=f"give files that end with {' '.join(READERS)}; a hub data set of another kind often has a Parquet"
        " copy: set prepare.source.revision to refs/convert/parquet",
    )
