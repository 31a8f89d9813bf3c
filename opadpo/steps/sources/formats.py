"""Table files of any size, read row by row: Parquet, Arrow, JSON lines and CSV."""

import csv
import itertools
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from opadpo.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 32
"""Rows in memory at a time: a few megabytes of photographs."""
_BUFFER_BYTES = 1 << 20
_LONGEST_CSV_FIELD = 1 << 26
_ROWS_THAT_SHOW_KEYS = 100

IMAGE_TYPES = "image bytes, a {bytes, path} struct, or a path"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table file."""

    index: int
    """From 0, within the file."""
    where: str
    """For messages."""
    values: dict[str, Any]
    """Column name -> value; empty if there is a problem."""
    problem: str | None = None
    """Why the row cannot be read."""


class TableFile(Protocol):
    """A table file. `total` is None until it is known, after the first complete reading at the latest."""

    path: Path
    columns: list[str]
    plain: list[str]
    """Columns of text, numbers and truth values: cheap to read along."""
    total: int | None

    def rows(self, columns: Collection[str] | None, wanted: Collection[int] | None) -> Iterator[TableRow]:
        """Rows in order, or only those at the indexes `wanted`, with `columns` (None: all)."""
        ...

    def image_type_problem(self, column: str) -> str | None:
        """Why a column can hold no images, where the file's schema tells."""
        ...


class ParquetTable:
    """A Parquet file; only the row groups with wanted rows are read, page by page.

    A page, which the writer of the file has chosen (often a thousand rows), is the least that can be in memory.
    """

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            DataError: if this is no Parquet file.
        """
        self.path = path
        with _damage(path), self._open() as file:
            self.schema: pa.Schema = file.schema_arrow
            self.columns = list(self.schema.names)
            self.plain = _plain_columns(self.schema)
            self.total: int | None = file.metadata.num_rows

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        # Without pre-buffering and with a small buffer, a row group of gigabytes costs megabytes of memory.
        return pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_BUFFER_BYTES)

    def rows(self, columns: Collection[str] | None, wanted: Collection[int] | None) -> Iterator[TableRow]:
        """Rows in order."""
        chosen = None if wanted is None else frozenset(wanted)
        names = [n for n in self.columns if n in columns] if columns is not None else self.columns
        with _damage(self.path), self._open() as file:
            start = 0
            for group in range(file.metadata.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if chosen is None or any(index in chosen for index in range(start, end)):
                    batches = file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=names)
                    yield from _batch_rows(batches, self.path.name, start, chosen)
                start = end

    def image_type_problem(self, column: str) -> str | None:
        """Why a column can hold no images."""
        return _image_type_problem(self.schema, column)


class ArrowTable:
    """An Arrow stream, as `datasets.Dataset.save_to_disk` writes it."""

    def __init__(self, path: Path) -> None:
        """Read the schema.

        Raises:
            DataError: if this is no Arrow stream.
        """
        self.path = path
        self.total: int | None = None
        with _damage(path), self._open() as reader:
            self.schema: pa.Schema = reader.schema
            self.columns = list(self.schema.names)
            self.plain = _plain_columns(self.schema)

    def _open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_stream(pa.memory_map(str(self.path)))

    def rows(self, columns: Collection[str] | None, wanted: Collection[int] | None) -> Iterator[TableRow]:
        """Rows in order."""
        chosen = None if wanted is None else frozenset(wanted)
        with _damage(self.path), self._open() as reader:
            start = 0
            for batch in reader:
                selected = batch if columns is None else batch.select([n for n in self.columns if n in columns])
                yield from _batch_rows([selected], self.path.name, start, chosen)
                start += batch.num_rows
            self.total = start

    def image_type_problem(self, column: str) -> str | None:
        """Why a column can hold no images."""
        return _image_type_problem(self.schema, column)


class JsonLinesTable:
    """One JSON object per line."""

    def __init__(self, path: Path) -> None:
        """Read the first objects' keys.

        Raises:
            DataError: if the file is a JSON array.
        """
        self.path = path
        self.total: int | None = None
        keys = [key for row in itertools.islice(self.rows(None, None), _ROWS_THAT_SHOW_KEYS) for key in row.values]
        self.columns = self.plain = list(dict.fromkeys(keys))

    def rows(self, columns: Collection[str] | None, wanted: Collection[int] | None) -> Iterator[TableRow]:
        """Rows in order; blank lines are no rows."""
        chosen = None if wanted is None else frozenset(wanted)
        index = 0
        with _damage(self.path), self.path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                if index == 0 and line.lstrip().startswith(b"["):
                    raise DataError(
                        "The file is a JSON array; one JSON object per line is read",
                        seen=self.path,
                        remedy=f"convert it: jq -c '.[]' {self.path.name} > {self.path.stem}.jsonl",
                    )
                if chosen is None or index in chosen:
                    yield _json_row(index, f"{self.path.name}, line {number}", line, columns)
                index += 1
        self.total = index

    def image_type_problem(self, column: str) -> str | None:
        """JSON has no schema: every row is looked at by itself."""
        return None


class CsvTable:
    """Comma- or tab-separated values with a header line, UTF-8."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            DataError: if the file is not UTF-8.
        """
        self.path = path
        self.total: int | None = None
        with self._reader() as reader:
            self.columns = self.plain = next(reader, [])

    @contextmanager
    def _reader(self) -> Iterator[Any]:
        csv.field_size_limit(_LONGEST_CSV_FIELD)
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        try:
            with _damage(self.path), self.path.open(encoding="utf-8-sig", newline="") as stream:
                yield csv.reader(stream, delimiter=delimiter, strict=True)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                "A CSV file cannot be read",
                seen=f"{self.path}: {error}",
                remedy="save it as UTF-8 with quotes around values that hold commas, quotes or line ends",
            ) from error

    def rows(self, columns: Collection[str] | None, wanted: Collection[int] | None) -> Iterator[TableRow]:
        """Rows in order; every value is text."""
        chosen = None if wanted is None else frozenset(wanted)
        index = 0
        with self._reader() as reader:
            next(reader, None)
            for values in reader:
                if not values:
                    continue
                if chosen is None or index in chosen:
                    where = f"{self.path.name}, line {reader.line_num}"
                    if len(values) == len(self.columns):
                        row = dict(zip(self.columns, values, strict=True))
                        kept = {k: v for k, v in row.items() if columns is None or k in columns}
                        yield TableRow(index, where, kept)
                    else:
                        problem = f"broken row: {len(values)} values for {len(self.columns)} columns"
                        yield TableRow(index, where, {}, problem)
                index += 1
        self.total = index

    def image_type_problem(self, column: str) -> str | None:
        """Text can be a path."""
        return None


READERS: dict[str, Callable[[Path], TableFile]] = {
    ".parquet": ParquetTable,
    ".arrow": ArrowTable,
    ".jsonl": JsonLinesTable,
    ".ndjson": JsonLinesTable,
    ".json": JsonLinesTable,
    ".csv": CsvTable,
    ".tsv": CsvTable,
}
"""File name ending -> reader."""


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            "A data file is damaged or of another kind than its name says",
            seen=f"{path}: {' '.join(str(error).split())}",
            remedy="download or write the file again",
        ) from error


def _batch_rows(batches: Any, name: str, start: int, chosen: Collection[int] | None) -> Iterator[TableRow]:
    for batch in batches:
        columns = list(zip(batch.schema.names, batch.columns, strict=True))
        for offset in range(batch.num_rows):
            index = start + offset
            if chosen is None or index in chosen:
                values = {column: array[offset].as_py() for column, array in columns}
                yield TableRow(index, f"{name}, row {index}", values)
        start += batch.num_rows


def _json_row(index: int, where: str, line: bytes, columns: Collection[str] | None) -> TableRow:
    try:
        values = json.loads(line)
    except ValueError as error:
        return TableRow(index, where, {}, f"broken row: not JSON ({error})")
    if not isinstance(values, dict):
        return TableRow(index, where, {}, f"broken row: not a JSON object but {type(values).__name__}")
    return TableRow(index, where, {k: v for k, v in values.items() if columns is None or k in columns})


def _plain_columns(schema: "pa.Schema") -> list[str]:
    import pyarrow as pa

    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
    )
    return [field.name for field in schema if any(test(field.type) for test in tests)]


def _image_type_problem(schema: "pa.Schema", column: str) -> str | None:
    import pyarrow as pa

    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        inner = {kind.field(i).name for i in range(kind.num_fields)}
        return None if inner & {"bytes", "path"} else f"a struct of {', '.join(sorted(inner))}"
    texts = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return None if any(test(kind) for test in texts) else str(kind)
