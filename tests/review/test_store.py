import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opadpo.errors import WorkspaceError
from opadpo.recipe import preset_text
from opadpo.records import Revision
from opadpo.review.store import ReviewStore, reviews_head
from opadpo.text.revising import Decision, compose
from opadpo.workspace import Workspace


def revision(rollout: str, note: str, kind: str = "expert", parent: str | None = None) -> Revision:
    sentences, text = compose("A cat. A dog.", [Decision(), Decision("deleted", score=1)])
    return Revision.create(
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        rollout_id=rollout,
        parent_revision_id=parent,
        author_kind=kind,
        author="x",
        sentences=sentences,
        text=text,
        note=note,
    )


def test_what_is_appended_comes_back_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    revisions = [revision("r-1", "a"), revision("r-2", "b"), revision("r-1", "c")]
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        assert store.append(revisions) == 3
        head = store.head()
        assert store.append(revisions) == 0
        assert store.head() == head
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        assert store.history("r-1") == [revisions[0], revisions[2]]
        assert store.history("r-9") == []
        assert store.head() == head


def test_a_person_counts_more_than_the_expert_whichever_came_later(tmp_path: Path) -> None:
    first, later = revision("r-1", "expert"), revision("r-1", "expert again")
    human = revision("r-1", "person", "human", first.revision_id)
    other = [revision("r-2", "old"), revision("r-2", "imported", "import")]
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        store.append([first, *other, human, later])
        assert store.current("r-1") == human
        assert store.current("r-2") == other[1]
        assert store.current("r-9") is None
        assert store.newest_by("expert", "r-1") == later
        assert list(store.iter_current()) == [other[1], human]
        assert store.counts() == {"revisions": 5, "rollouts": 2, "by_expert": 3, "by_human": 1, "by_import": 1}


def test_reading_all_is_one_state_while_another_writes(tmp_path: Path) -> None:
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        store.append(revision(f"r-{i}", "a") for i in range(1200))
        reading = store.iter_current()
        seen = [next(reading)]
        store.append(revision(f"r-{i}", "b", "human") for i in range(1300))
        seen += reading
        assert {r.note for r in seen} == {"a"}
        assert len(seen) == 1200
        assert sum(r.note == "b" for r in store.iter_current()) == 1300


def test_an_unknown_parent_is_refused_and_nothing_of_the_batch_is_kept(tmp_path: Path) -> None:
    with ReviewStore.open(tmp_path / "reviews.db") as store:
        with pytest.raises(WorkspaceError, match="v-nowhere"):
            store.append([revision("r-1", "a"), revision("r-1", "b", parent="v-nowhere")])
        assert store.history("r-1") == []


def test_the_head_of_a_store_that_is_not_there_is_that_of_an_empty_one(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", preset_text("toy"))
    head = reviews_head(workspace)
    assert not workspace.reviews_db.exists()
    with ReviewStore.of(workspace) as store:
        assert store.head() == head
        store.append([revision("r-1", "a")])
        assert store.head() != head


WRITER = """
import sys
from pathlib import Path
from opadpo.recipe import preset_text
from opadpo.records import Revision
from opadpo.review.store import ReviewStore, reviews_head

with ReviewStore.open(Path(sys.argv[1])) as store:
    for i in range(20):
        rollout = f"{sys.argv[2]}-{i}"
        store.append([Revision.create(rollout_id=rollout, author_kind="human", author="x", sentences=[], text="")])
"""


def test_two_processes_make_and_write_one_file_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "reviews.db"
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    with ReviewStore.open(path) as store:
        assert store.counts()["revisions"] == 40


def test_a_damaged_file_is_one_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "reviews.db"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(WorkspaceError, match=r"(?s)damaged.*reviews\.db.*remedy: restore"):
        ReviewStore.open(path)


def test_a_file_torn_in_the_middle_is_one_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "reviews.db"
    with ReviewStore.open(path) as store:
        store.append(revision(f"r-{i}", "a") for i in range(500))
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xff" * (len(data) - 8192))
    with pytest.raises(WorkspaceError, match=r"(?s)damaged.*remedy"), ReviewStore.open(path) as store:
        list(store.iter_current())


def test_a_newer_or_a_foreign_database_is_refused(tmp_path: Path) -> None:
    newer, foreign = tmp_path / "newer.db", tmp_path / "foreign.db"
    ReviewStore.open(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE opadpo_review_version SET version_num = '99'")
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(WorkspaceError, match=r"(?s)newer version.*99.*upgrade opadpo"):
        ReviewStore.open(newer)
    with pytest.raises(WorkspaceError, match="tables that opadpo did not make"):
        ReviewStore.open(foreign)


def test_settings_that_keep_committed_rows_through_a_power_cut(tmp_path: Path) -> None:
    with ReviewStore.open(tmp_path / "reviews.db") as store, store.database.engine.connect() as connection:
        values = [connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")]
        assert values == ["wal", 2]
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
