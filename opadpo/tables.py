"""Records in parquet files: one column per field; nested fields as JSON text."""

import itertools
import json
import types
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from opadpo.damage import damaged, incomplete
from opadpo.files import atomic_write
from opadpo.records import Prompt, Record, Rollout
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Record)

PROMPTS_FILE = "prompts.parquet"

_ROW_GROUP = 2048


def write_records(path: Path, records: Iterable[Record], record_type: type[Record]) -> None:
    """Write one parquet file atomically; `record_type` fixes the columns even if there are no records.

    Records may be a generator: memory stays at one row group.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(record_type)
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    remaining = iter(records)
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while group := [_to_row(record) for record in itertools.islice(remaining, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    temporary.replace(path)


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """All records of a parquet file, or of every `*.parquet` in a folder in name order."""
    return list(iter_records(path, record_type))


def iter_records(path: Path, record_type: type[R]) -> Iterator[R]:
    """Stream the records of a parquet file or folder; memory stays at one row group.

    Raises:
        WorkspaceError: if a file is damaged, holds something else, or is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(batch_size=1024):
                    for row in batch.to_pylist():
                        try:
                            record = _from_row(row, record_type)
                        except ValueError as error:
                            raise damaged(file, f"a row is no {record_type.__name__}: {error}") from error
                        yield record
        except (pa.ArrowException, OSError) as error:
            raise damaged(file, error) from error


def iter_prompts(workspace: Workspace, artefact: str = "prompts") -> Iterator[Prompt]:
    """Stream the prompts of a workspace, or of a benchmark's set (`benchmarks/<set>`).

    Raises as `iter_records`, also if they are fewer than were made.
    """
    manifest = workspace.manifest(artefact)
    counts = manifest.counts if manifest else {}
    parts = [counts[name] for name in ("train", "heldout", "prompts") if name in counts]
    folder = workspace.root / artefact
    yield from _whole(folder, iter_records(folder / PROMPTS_FILE, Prompt), sum(parts) if parts else None)


def iter_rollouts(workspace: Workspace) -> Iterator[Rollout]:
    """Stream the rollouts of a workspace; raises as `iter_records`, also if a shard of them has gone."""
    manifest = workspace.manifest("rollouts")
    expected = manifest.counts.get("rollouts") if manifest else None
    yield from _whole(workspace.rollouts, iter_records(workspace.rollouts, Rollout), expected)


def _whole(folder: Path, records: Iterable[R], expected: int | None) -> Iterator[R]:
    """The records; once all are read, checks that there are as many as expected."""
    seen = 0
    for record in records:
        seen += 1
        yield record
    if expected is not None and seen != expected:
        raise incomplete(folder, seen, expected)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    atomic_write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def arrow_schema(record_type: type[Record]) -> "pa.Schema":
    """The parquet schema of a record type."""
    import pyarrow as pa

    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in record_type.model_fields.items()])


def _arrow_type(annotation: Any) -> "pa.DataType":
    import pyarrow as pa

    origin = get_origin(annotation)
    if origin is Literal:
        return pa.string()
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return _arrow_type(inner[0]) if len(inner) == 1 else pa.string()
    if origin is list and get_args(annotation)[0] in (int, float, str):
        return pa.list_({int: pa.int64(), float: pa.float64(), str: pa.string()}[get_args(annotation)[0]])
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(annotation, pa.string())


def _is_json(annotation: Any) -> bool:
    """True for fields that are stored as JSON text."""
    origin = get_origin(annotation)
    if origin is Literal or annotation in (int, float, bool, str):
        return False
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        return not (len(inner) == 1 and not _is_json(inner[0]))
    if origin is list:
        return get_args(annotation)[0] not in (int, float, str)
    return not (isinstance(annotation, type) and annotation.__name__ == "datetime")


@cache
def _json_fields(record_type: type[Record]) -> tuple[str, ...]:
    """Names of the fields that are stored as JSON text."""
    return tuple(name for name, field in record_type.model_fields.items() if _is_json(field.annotation))


def _to_row(record: Record) -> dict[str, Any]:
    row = record.model_dump(mode="json")
    for name in _json_fields(type(record)):
        if row[name] is not None:
            row[name] = json.dumps(row[name], ensure_ascii=False)
    return row


def _from_row(row: dict[str, Any], record_type: type[R]) -> R:
    for name in _json_fields(record_type):
        if row.get(name) is not None:
            row[name] = json.loads(row[name])
    return record_type.model_validate(row)
