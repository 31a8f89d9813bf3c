import json
import os
from collections.abc import Callable
from pathlib import Path

import desk_workspace
import pytest

from opadpo.cli import main
from opadpo.errors import DataError
from opadpo.recipe import preset_text
from opadpo.records import Revision
from opadpo.review.exchange import export_reviews, import_reviews, lines, transfer
from opadpo.review.store import ReviewStore
from opadpo.text.revising import Decision, compose
from opadpo.workspace import Workspace


def made(rollout: str, author: str, kind: str = "expert", parent: Revision | None = None) -> Revision:
    sentences, text = compose("Ein Vogel. \u732b\u304c\u3044\u308b\u3002 <b>", [Decision()] * 3)
    return Revision.create(
        rollout_id=rollout,
        parent_revision_id=parent.revision_id if parent else None,
        author_kind=kind,
        author=author,
        sentences=sentences,
        text=text,
        note='line\nbreak, "quotes" and \u2028',
    )


def with_fields(line: str, **fields: object) -> str:
    return json.dumps({**json.loads(line), **fields})


def draft(**fields: object) -> str:
    line = {"kind": "draft", "reviewer": "a", "rollout_id": "r-0", "base_revision_id": None, "seq": 1}
    return json.dumps({**line, "updated_at": "2026-01-01T00:00:00+00:00", "body": None, **fields})


def fill(store: ReviewStore) -> None:
    """Something of every kind: revisions, a withdrawal, drafts (one that was sent), a skip."""
    experts = [made(f"r-{i}", "expert") for i in range(3)]
    store.append(experts)
    store.commit(made("r-0", "anna", "human", experts[0]), seq=7)
    store.commit(made("r-1", "anna", "human", experts[1]))
    store.undo("anna")
    store.places.save_draft("ben", "r-2", experts[2].revision_id, {"sentences": [], "note": "half"}, 2**52)
    store.places.skip("ben", "r-0")


@pytest.fixture(params=["sqlite", "postgresql"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> ReviewStore:
    if request.param == "sqlite":
        return ReviewStore.open(tmp_path / "other.db")
    return ReviewStore.open_url(request.getfixturevalue("new_url")(), "$OTHER")


def test_everything_comes_back_from_a_file_into_either_kind_of_store(
    opener: Callable[[], ReviewStore], other: ReviewStore, tmp_path: Path
) -> None:
    file = tmp_path / "reviews.jsonl"
    with opener() as store, other:
        fill(store)
        counts = export_reviews(store, file)
        assert counts == {"revisions": 5, "withdrawals": 1, "drafts": 3, "skips": 1}
        assert import_reviews(file, other) == counts
        assert list(lines(other)) == list(lines(store))
        assert other.head() == store.head()
        assert list(other.iter_current()) == list(store.iter_current())
        assert import_reviews(file, other) == dict.fromkeys(counts, 0)
        assert list(lines(other)) == list(lines(store))


@pytest.mark.slow
def test_a_store_moves_into_another(opener: Callable[[], ReviewStore], other: ReviewStore) -> None:
    with opener() as store, other:
        fill(store)
        transfer(store, other)
        assert list(lines(other)) == list(lines(store))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: ["not json", *rows[1:]], "line 1"),
        (lambda rows: rows[1:], "first line"),
        (lambda rows: [], "empty"),
        (lambda rows: ['{"kind": "opadpo-reviews", "format": 99}'], "newer version"),
        (lambda rows: [*rows[:-1], '{"kind": "wish"}'], "unknown kind"),
        (lambda rows: [*rows, '{"kind": "skip", "reviewer": 3}'], "line 12.*reviewer"),
        (lambda rows: [rows[0], rows[4]], "neither in it nor in the store"),
        (lambda rows: [*rows[:3], rows[3][:-9]], "line 4"),
        (lambda rows: [rows[0], "[" * 100_000], "line 2: nested too deeply"),
        (lambda rows: [rows[0], "null"], "line 2: no JSON object"),
        (lambda rows: [rows[0], '{"kind": []}'], "line 2: unknown kind"),
        (lambda rows: [*rows[:4], with_fields(rows[4], text="a\ud800b")], "line 5: holds half a surrogate pair"),
        (lambda rows: [*rows[:4], with_fields(rows[4], note="a\0b")], "line 5: holds a NUL"),
        (lambda rows: [*rows[:4], with_fields(rows[4], created_at="2026-01-01T00:00:00")], "line 5: created_at"),
        (
            lambda rows: [rows[0], with_fields(rows[1], parent_revision_id=json.loads(rows[1])["revision_id"])],
            "line 2: parent_revision_id: the revision itself",
        ),
        (
            lambda rows: [*rows[:4], with_fields(rows[4], parent_revision_id=json.loads(rows[2])["revision_id"])],
            "is made from a revision of another record",
        ),
        (lambda rows: [*rows[:6], with_fields(rows[6], author="ben")], "withdrawn by somebody who did not make it"),
        (
            lambda rows: [*rows[:6], with_fields(rows[6], revision_id=json.loads(rows[1])["revision_id"])],
            "withdrawn by somebody who did not make it",
        ),
        (lambda rows: [*rows[:6], with_fields(rows[6], created_at="yesterday")], "line 7: created_at"),
        (lambda rows: [*rows[:2], with_fields(rows[1], note="altered"), *rows[2:]], "another revision under an id"),
        (lambda rows: [*rows, draft(seq=10**30)], "line 12: seq"),
        (lambda rows: [*rows, draft(updated_at="x")], "line 12: updated_at"),
        (lambda rows: [*rows, draft(body={"evil": 1})], "line 12: body"),
        (lambda rows: [*rows, '{"kind": "skip", "reviewer": "a", "rollout_id": "r", "skipped_at": NaN}'], "line 12"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_message_and_adds_nothing(
    opener: Callable[[], ReviewStore], tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    file = tmp_path / "reviews.jsonl"
    with ReviewStore.open(tmp_path / "source.db") as source:
        fill(source)
        export_reviews(source, file)
    file.write_text("\n".join(change(file.read_text().split("\n")[:-1])))
    with opener() as store:
        with pytest.raises(DataError, match=f"(?s){message}.*remedy"):
            import_reviews(file, store)
        assert store.counts()["revisions"] == 0


def test_the_command_line_exports_and_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (Workspace.create(tmp_path / name, preset_text("toy")) for name in ("one", "two"))
    with ReviewStore.of(one) as store:
        fill(store)
    assert main(["export", str(one.root), "--format", "reviews", "--json"]) == 0
    file = json.loads(capsys.readouterr().out)["outputs"][0]
    assert main(["import-reviews", file, str(two.root)]) == 0
    assert "5 revisions" in capsys.readouterr().out
    with ReviewStore.of(one) as first, ReviewStore.of(two) as second:
        assert list(lines(second)) == list(lines(first))
    assert main(["import-reviews", str(tmp_path / "nowhere"), str(two.root)]) == 2
    assert "remedy" in capsys.readouterr().err


def test_an_export_replaces_no_folder_and_no_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace.create(tmp_path / "one", preset_text("toy"))
    with ReviewStore.of(workspace) as store:
        fill(store)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        assert main(["export", str(workspace.root), "--format", "reviews", "--output", str(tmp_path / name)]) == 2
        assert "no file to write to" in capsys.readouterr().err
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "pipe").is_fifo()


def test_reviews_of_another_workspace_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ReviewStore.open(tmp_path / "source.db") as source:
        fill(source)
        export_reviews(source, tmp_path / "reviews.jsonl")
    workspace = Workspace.create(tmp_path / "world", preset_text("toy"), ["prepare.subset_size=4"])
    desk_workspace.fill(workspace)
    assert main(["import-reviews", str(tmp_path / "reviews.jsonl"), str(workspace.root)]) == 0
    assert "3 of the 27 records with" in capsys.readouterr().err
