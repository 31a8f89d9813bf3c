"""A job's metrics as curves: read once, then only what is new; thinned out so that spikes stay.

Many steps are kept a second time as columns, in `.curves.arrow` beside `metrics.jsonl`. That file is a cache: it is
made again when it is missing or does not fit what it was made from.
"""

import itertools
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opadpo.hashing import bytes_digest
from opadpo.jobs.folder import METRICS_FILE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CACHE_FILE = ".curves.arrow"
RUN, STEP = "run", "step"
_HIDDEN = frozenset({RUN, STEP, "time"})
SAVE_BYTES = 4 * 2**20
"""The columns are saved again each time that the lines have grown over a multiple of this many bytes."""
_MARK_BYTES = 4096
_JOBS_KEPT = 8


class _Read(NamedTuple):
    """What has been read of a file."""

    offset: int
    mark: str
    """Fingerprint of the bytes before the offset: another file, or one that was cut and written again, has another."""
    table: "pa.Table"
    saved: int
    """Offset up to which the columns are saved."""


_kept: OrderedDict[Path, _Read] = OrderedDict()
_lock = threading.Lock()


def read(
    folder: Path,
    keys: Iterable[str],
    *,
    run: str | None = None,
    points: int = 500,
    after: int | None = None,
) -> dict[str, list[list[float]]]:
    """Key -> [[step, value], ...] of one run (None: the newest), in order.

    A key that the run does not have is left out. Of more than `points` values those that are smallest and largest in
    their neighbourhood stay. `after`: only steps beyond that one.
    """
    table = _table(folder)
    chosen = run if run is not None else next(iter(reversed(runs(folder))), None)
    if table is None or chosen is None:
        return {}
    import numpy as np

    mask = np.asarray(table[RUN].to_numpy(zero_copy_only=False) == chosen)
    steps = table[STEP].to_numpy()
    if after is not None:
        mask &= steps > after
    found = {}
    for key in keys:
        if key in table.column_names and key not in _HIDDEN:
            values = table[key].to_numpy()
            there = mask & ~np.isnan(values)
            if there.any():
                found[key] = _thinned(steps[there], values[there], points)
    return found


def keys(folder: Path, *, run: str | None = None) -> list[str]:
    """Names of all metrics of a run; None: of all."""
    table = _table(folder)
    if table is None:
        return []
    if run is not None:
        import pyarrow.compute as pc

        table = table.filter(pc.equal(table[RUN], run))  # pyright: ignore[reportAttributeAccessIssue]
    columns = (name for name in table.column_names if name not in _HIDDEN)
    return sorted(name for name in columns if table[name].null_count < table.num_rows)


def runs(folder: Path) -> list[str]:
    """Names of the runs that have metrics, the newest last."""
    table = _table(folder)
    if table is None:
        return []
    return [name for name in table[RUN].unique().to_pylist() if name is not None]


def refresh(folder: Path, before: int) -> int:
    """Save the columns where the lines are worth it by now: for whoever writes them, so that no reader has to read all.

    `before` is how many bytes of lines there were at the last call; returned is how many there are now.
    """
    try:
        size = (folder / METRICS_FILE).stat().st_size
    except OSError:
        return 0
    if size // SAVE_BYTES != before // SAVE_BYTES:
        _table(folder)
    return size


def _thinned(steps: "np.ndarray", values: "np.ndarray", points: int) -> list[list[float]]:
    import numpy as np

    if len(steps) > points:
        edges = np.linspace(0, len(steps), max(1, points // 2) + 1).astype(int)
        kept = {0, len(steps) - 1}
        for start, end in itertools.pairwise(edges):
            part = values[start:end]
            kept |= {int(start + part.argmin()), int(start + part.argmax())}
        chosen = sorted(kept)
        steps, values = steps[chosen], values[chosen]
    return [[int(step), float(value)] for step, value in zip(steps, values, strict=True)]


def _table(folder: Path) -> "pa.Table | None":
    """All metrics of a job as columns; None where there are none."""
    path = folder / METRICS_FILE
    with _lock:
        known = _kept.get(path)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if known is None or not _fits(file, known.offset, known.mark, size):
                    known = _saved(folder, file, size)
                if known is None or known.offset < size:
                    known = _with_new(folder, file, known)
        except FileNotFoundError:
            _kept.pop(path, None)
            return None
        if known is None:
            return None
        _kept[path] = known
        _kept.move_to_end(path)
        while len(_kept) > _JOBS_KEPT:
            _kept.popitem(last=False)
        return known.table


def _with_new(folder: Path, file: Any, known: _Read | None) -> _Read | None:
    """What is known and the whole lines after it."""
    import pyarrow as pa

    start = known.offset if known else 0
    file.seek(start)
    data = file.read()
    data = data[: data.rfind(b"\n") + 1]
    if not data:
        return known
    table = _parsed(data)
    if known:
        table = pa.concat_tables([known.table, table], promote_options="default")
    offset = start + len(data)
    read_now = _Read(offset, _mark(file, offset), table, known.saved if known else 0)
    if offset // SAVE_BYTES == read_now.saved // SAVE_BYTES:
        return read_now
    _save(folder / CACHE_FILE, read_now)
    return read_now._replace(table=table.combine_chunks(), saved=offset)


def _parsed(data: bytes) -> "pa.Table":
    """Lines of JSON as columns: run, and numbers as float64."""
    import pyarrow as pa
    import pyarrow.json

    try:
        options = pyarrow.json.ReadOptions(block_size=max(2**22, data.find(b"\n") + 1))
        table = pyarrow.json.read_json(pa.BufferReader(data), read_options=options)
    except pa.ArrowInvalid:
        table = pa.Table.from_pylist(list(_objects(data)))
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        if name == RUN:
            columns[name] = column.cast(pa.string())
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            columns[name] = column.cast(pa.float64())
    rows = table.num_rows
    columns.setdefault(RUN, pa.nulls(rows, pa.string()))
    columns.setdefault(STEP, pa.nulls(rows, pa.float64()))
    return pa.table(columns)


def _objects(data: bytes) -> Iterable[dict[str, Any]]:
    """The lines that can be read, where some cannot."""
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            numbers = {key: float(each) for key, each in value.items() if isinstance(each, int | float)}
            yield {RUN: str(value.get(RUN)), STEP: None, **numbers}


def _mark(file: Any, offset: int) -> str:
    file.seek(max(0, offset - _MARK_BYTES))
    return bytes_digest(file.read(min(offset, _MARK_BYTES)))


def _fits(file: Any, offset: int, mark: str, size: int) -> bool:
    return offset <= size and _mark(file, offset) == mark


def _saved(folder: Path, file: Any, size: int) -> _Read | None:
    """The saved columns, if there are any that fit the file."""
    path = folder / CACHE_FILE
    if size < SAVE_BYTES or not path.exists():
        return None
    import pyarrow as pa

    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = table.schema.metadata or {}
        offset, mark = int(about[b"offset"]), about[b"mark"].decode()
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return _Read(offset, mark, table, offset) if _fits(file, offset, mark, size) else None


def _save(path: Path, known: _Read) -> None:
    """Nothing is lost where this fails, as on a full or read-only disk."""
    import pyarrow as pa

    about = {"offset": str(known.offset), "mark": known.mark}
    table = known.table.combine_chunks().replace_schema_metadata(about)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
