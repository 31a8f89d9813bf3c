"""Tables of every kind give the same rows, all or some of them; data sets of the hub are fetched, pinned and cached."""

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_data import image_bytes, rlaifv_rows, write_parquet

from opadpo.errors import DataError
from opadpo.progress import SilentProgress
from opadpo.recipe import Recipe
from opadpo.steps.sources import Source, open_source

QUESTIONS = ["Plain?", 'With, a comma and "quotes"?', "Two\nlines?", "Où est 猫?", "Trailing space? "]
COLUMNS = {"image": "picture", "question": "ask", "reference": "good", "rejected": "bad", "source": "from"}


def table_source(path: Path | str, kind: str = "table", **section: Any) -> Source:
    columns = {} if kind == "rlaifv" else {"columns": COLUMNS}
    source = {"kind": kind, "path": str(path), **columns, **section}
    return open_source(Recipe.model_validate({"prepare": {"source": source}}), SilentProgress(), offline=True)


def plain_rows(folder: Path, count: int = 5) -> list[dict[str, Any]]:
    """Rows with a relative image path, and the image files."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / "pictures" / f"{index}.png").write_bytes(image_bytes(index))
    return [
        {
            "picture": f"pictures/{index}.png",
            "ask": QUESTIONS[index % len(QUESTIONS)],
            "good": f"Good {index}.",
            "bad": f"Bad {index}.",
            "from": ("a", "b")[index % 2],
            "id": f"row-{index}",
        }
        for index in range(count)
    ]


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return write_parquet(folder / "rows.parquet", rows, row_group_size=2)


def as_bytes(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return as_parquet(folder, [{**row, "picture": (folder / row["picture"]).read_bytes()} for row in rows])


def as_struct(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return as_parquet(
        folder, [{**row, "picture": {"bytes": (folder / row["picture"]).read_bytes(), "path": "x"}} for row in rows]
    )


def as_json_lines(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def as_csv(folder: Path, rows: list[dict[str, Any]], name: str = "rows.csv") -> Path:
    import csv

    with (folder / name).open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if name.endswith("tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def as_tsv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    return as_csv(folder, rows, "rows.tsv")


def as_saved_dataset(folder: Path, rows: list[dict[str, Any]]) -> Path:
    import datasets

    datasets.disable_progress_bars()
    pictures = [{**row, "picture": {"bytes": (folder / row["picture"]).read_bytes(), "path": "x"}} for row in rows]
    datasets.Dataset.from_list(pictures).save_to_disk(folder / "saved")
    return folder / "saved"


WRITERS = [as_parquet, as_bytes, as_struct, as_json_lines, as_csv, as_tsv, as_saved_dataset]


@pytest.mark.parametrize("write", WRITERS)
def test_tables_of_every_kind_give_the_same_rows(tmp_path: Path, write: Callable[[Path, list], Path]) -> None:
    rows = plain_rows(tmp_path)
    found = list(table_source(write(tmp_path, rows)).rows())
    assert [row.position for row in found] == [0, 1, 2, 3, 4]
    for index, (raw, row) in enumerate(zip(found, rows, strict=True)):
        assert raw.problem is None
        assert raw.image == image_bytes(index)
        assert raw.question == row["ask"].strip()
        assert (raw.reference, raw.rejected, raw.source) == (row["good"], row["bad"], row["from"])
        assert raw.extra == {"id": row["id"], "from": row["from"]}


@pytest.mark.slow
@pytest.mark.parametrize("write", [as_struct, as_json_lines, as_csv, as_saved_dataset])
def test_any_rows_are_found_again(tmp_path: Path, write: Callable[[Path, list], Path]) -> None:
    source = table_source(write(tmp_path, plain_rows(tmp_path, 9)))
    everything = list(source.rows())

    @given(wanted=st.sets(st.integers(0, 8)))
    def check(wanted: set[int]) -> None:
        assert list(source.rows(wanted)) == [everything[position] for position in sorted(wanted)]

    check()


def test_files_of_a_folder_are_one_table(tmp_path: Path) -> None:
    rows = rlaifv_rows(30)
    for start in (0, 10, 20):
        write_parquet(tmp_path / f"part-{start:02}.parquet", rows[start : start + 10], row_group_size=3)
    source = table_source(tmp_path, "rlaifv")
    assert source.total == 30
    found = list(source.rows([2, 11, 29]))
    assert [(row.where, row.extra["idx"]) for row in found] == [
        ("part-00.parquet, row 2", 2),
        ("part-10.parquet, row 1", 11),
        ("part-20.parquet, row 9", 29),
    ]


def test_rows_that_cannot_be_read_say_why_and_the_others_go_on(tmp_path: Path) -> None:
    [row, *_] = plain_rows(tmp_path)
    lines = [
        json.dumps(row),
        "{not json",
        "[1, 2]",
        json.dumps({**row, "picture": "https://example.org/a.png"}),
        json.dumps({**row, "picture": 7}),
        json.dumps({**row, "picture": "pictures"}),
        json.dumps({**row, "picture": None}),
        json.dumps({**row, "picture": "nul\0byte"}),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = list(table_source(tmp_path / "rows.jsonl").rows())
    expected = [None, "not JSON", "not a JSON object but list", "is an address", "value is int", "is a folder", "empty"]
    assert found[0].problem is None
    for raw, part in zip(found[1:], [*expected[1:], "cannot be read"], strict=True):
        assert raw.problem is not None
        assert part in raw.problem
    assert found[1].where == "rows.jsonl, line 2"


def test_a_csv_line_with_too_few_values_is_one_broken_row(tmp_path: Path) -> None:
    plain_rows(tmp_path)
    path = tmp_path / "rows.csv"
    path.write_text("picture,ask,good,bad,from\npictures/0.png,What?\npictures/1.png,What?,G,B,a\n")
    first, second = table_source(path).rows()
    assert first.problem == "broken row: 2 values for 5 columns"
    assert second.image == image_bytes(1)


@pytest.mark.slow
def test_a_wide_row_group_is_read_in_small_pieces(tmp_path: Path) -> None:
    import pyarrow as pa

    [row] = rlaifv_rows(1)
    rows = [{**row, "image": {"path": "x", "bytes": os.urandom(4_000)}} for _ in range(6_000)]
    path = write_parquet(tmp_path / "rows.parquet", rows, row_group_size=10_000)
    source = table_source(path, "rlaifv")
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for _ in source.rows():
        most = max(most, pool.bytes_allocated() - before)
    assert most < path.stat().st_size / 2


# -- the hub -----------------------------------------------------------------------------------------------------

COMMIT = "d" * 40
SCRIPT = """
import json, sys
from opadpo.errors import OpadpoError
from opadpo.progress import SilentProgress
from opadpo.recipe import Recipe
from opadpo.steps.sources import open_source
for section, offline in json.loads(sys.argv[1]):
    try:
        source = open_source(Recipe.model_validate({"prepare": {"source": section}}), SilentProgress(), offline=offline)
        print(json.dumps({"name": source.name, "questions": [row.question for row in source.rows()]}))
    except OpadpoError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


class Hub(http.server.ThreadingHTTPServer):
    """The hub's routes for data sets below a folder `owner/name`, all at one commit."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Routes)
        self.folder = folder
        self.requests: list[str] = []


class _Routes(http.server.BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        self.server.requests.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            self._api("/".join(parts[2:4]), parts[4])
        else:
            self._file(self.server.folder / "/".join(parts[1:3]) / "/".join(parts[5:]))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _api(self, name: str, what: str) -> None:
        folder = self.server.folder / name
        if not folder.is_dir():
            self._answer(404, json.dumps({"error": "Repository not found"}).encode(), {"X-Error-Code": "RepoNotFound"})
            return
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        names = [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in files]
        info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n, _ in names]}
        tree = [
            {"type": "file", "path": n, "size": size, "oid": base64.b16encode(n.encode()).decode()} for n, size in names
        ]
        self._answer(200, json.dumps(tree if what == "tree" else info).encode())

    def _file(self, path: Path) -> None:
        if path.is_file():
            data = path.read_bytes()
            self._answer(200, data, {"ETag": f'"{path.name}-{len(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub" / "owner" / "pictures"
    (folder / "data").mkdir(parents=True)
    write_parquet(folder / "data" / "train-00000-of-00002.parquet", rlaifv_rows(3))
    write_parquet(folder / "data" / "train-00001-of-00002.parquet", rlaifv_rows(2))
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rlaifv_rows(1))
    (folder / "README.md").write_text("# Pictures\n")
    (folder / "loader.py").write_text("raise SystemExit('code of a data set must never run')\n")
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(hub: Hub, home: Path, *requests: tuple[dict[str, Any], bool]) -> list[dict[str, Any]]:
    """Open and read data sources in a process of its own: the hub's address is read when its library is imported."""
    online = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment = {
        **online,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(requests)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_a_hub_data_set_is_fetched_once_and_read_again_without_a_network(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    train = {"kind": "rlaifv", "path": "owner/pictures"}
    one_file = {"kind": "rlaifv", "path": "owner/pictures/data/train-00001-*.parquet"}
    test = {**train, "hub_split": "test"}
    missing = {**train, "hub_split": "nowhere"}
    before, fetched, pattern = ask(hub, home, (train, True), (train, False), (one_file, False))
    assert before["error"] == "DataError"
    assert "network is switched off" in before["message"]
    questions = [row["question"] for row in (*rlaifv_rows(3), *rlaifv_rows(2))]
    assert fetched == {"name": f"owner/pictures@{COMMIT}", "questions": questions}
    assert pattern["questions"] == questions[3:]
    assert not any(request.endswith(".py") for request in hub.requests)
    hub.requests.clear()
    again, other, wrong = ask(hub, home, (train, True), (test, True), (missing, True))
    assert again == fetched
    assert other["questions"] == questions[:1]
    assert wrong["error"] == "DataError"
    assert "no such split" in wrong["message"]
    assert "train" in wrong["message"]
    assert hub.requests == [], "offline means no request"


@pytest.mark.slow
def test_what_the_hub_does_not_have_is_one_clear_message(hub: Hub, tmp_path: Path) -> None:
    unknown, empty = ask(
        hub,
        tmp_path / "home",
        ({"kind": "rlaifv", "path": "owner/nothing"}, False),
        ({"kind": "table", "path": "owner/pictures/data/*.csv"}, False),
    )
    assert unknown["error"] == empty["error"] == "DataError"
    assert "owner/nothing" in unknown["message"]
    assert "remedy" in unknown["message"]
    assert "no table that can be read" in empty["message"]


def test_offline_a_hub_data_set_is_refused_without_a_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="network is switched off"):
        table_source("openbmb/RLAIF-V-Dataset", "rlaifv")
