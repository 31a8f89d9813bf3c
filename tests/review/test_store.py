import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from opadpo.errors import NotFound, UserError, WorkspaceError
from opadpo.recipe import preset_text
from opadpo.records import Revision
from opadpo.review.store import ReviewStore, StaleEdit, reviews_head
from opadpo.text.revising import Decision, compose
from opadpo.workspace import Workspace

Opener = Callable[[], ReviewStore]


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


def test_what_is_appended_comes_back_and_a_second_time_changes_nothing(opener: Opener) -> None:
    revisions = [revision("r-1", "a"), revision("r-2", "b"), revision("r-1", "c")]
    with opener() as store:
        assert store.append(revisions) == 3
        head = store.head()
        assert store.append(revisions) == 0
        assert store.head() == head
    with opener() as store:
        assert store.history("r-1") == [revisions[0], revisions[2]]
        assert store.history("r-9") == []
        assert store.head() == head


def test_a_person_counts_more_than_the_expert_whichever_came_later(opener: Opener) -> None:
    first, later = revision("r-1", "expert"), revision("r-1", "expert again")
    human = revision("r-1", "person", "human", first.revision_id)
    other = [revision("r-2", "old"), revision("r-2", "imported", "import")]
    with opener() as store:
        store.append([first, *other, human, later])
        assert store.current("r-1") == human
        assert store.current("r-2") == other[1]
        assert store.current("r-9") is None
        assert store.newest_by("expert", "r-1") == later
        assert list(store.iter_current()) == [other[1], human]
        assert store.counts() == {"revisions": 5, "rollouts": 2, "by_expert": 3, "by_human": 1, "by_import": 1}


@pytest.mark.slow
def test_reading_all_is_one_state_while_another_writes(opener: Opener) -> None:
    with opener() as store:
        store.append(revision(f"r-{i}", "a") for i in range(1200))
        reading = store.iter_current()
        seen = [next(reading)]
        store.append(revision(f"r-{i}", "b", "human") for i in range(1300))
        seen += reading
        assert {r.note for r in seen} == {"a"}
        assert len(seen) == 1200
        assert sum(r.note == "b" for r in store.iter_current()) == 1300


def test_an_unknown_parent_is_refused_and_nothing_of_the_batch_is_kept(opener: Opener) -> None:
    with opener() as store:
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
from opadpo.records import Revision
from opadpo.review.store import ReviewStore

address, name = sys.argv[1:]
with ReviewStore.open_url(address, "$URL") if ":" in address else ReviewStore.open(Path(address)) as store:
    for i in range(20):
        rollout = f"{name}-{i}"
        store.append([Revision.create(rollout_id=rollout, author_kind="human", author="x", sentences=[], text="")])
"""


@pytest.mark.slow
def test_two_processes_make_and_write_one_store_side_by_side(address: str, opener: Opener) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, address, name]) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0]
    with opener() as store:
        assert store.counts()["revisions"] == 40


def human(parent: Revision | None, author: str, note: str = "", status: str = "done") -> Revision:
    return Revision.create(
        rollout_id=parent.rollout_id if parent else "r-1",
        parent_revision_id=parent.revision_id if parent else None,
        author_kind="human",
        author=author,
        sentences=parent.sentences if parent else [],
        text=parent.text if parent else "",
        status=status,
        note=note,
    )


def test_of_many_who_change_the_same_revision_at_once_one_succeeds(opener: Opener) -> None:
    first = revision("r-1", "expert")
    stores = [opener() for _ in range(6)]
    stores[0].append([first])

    def commit(number: int) -> Revision | None:
        try:
            stores[number].commit(human(first, f"reviewer-{number}"))
        except StaleEdit as error:
            return error.theirs
        return None

    with ThreadPoolExecutor(6) as pool:
        others = [theirs for theirs in pool.map(commit, range(6)) if theirs is not None]
    assert others == [stores[0].current("r-1")] * 5
    assert [r.author_kind for r in stores[0].history("r-1")] == ["expert", "human"]
    for store in stores:
        store.close()


def test_a_commit_sent_again_because_its_answer_was_lost_is_one_revision(opener: Opener) -> None:
    first = revision("r-1", "expert")
    with opener() as store:
        store.append([first])
        kept = store.commit(human(first, "anna", "fine"))
        assert store.commit(human(first, "anna", "fine")) == kept
        with pytest.raises(StaleEdit, match="by anna"):
            store.commit(human(first, "anna", "not fine", "flagged"))
        assert store.history("r-1") == [first, kept]


def test_undo_goes_back_commit_by_commit_and_keeps_the_history(opener: Opener) -> None:
    first = revision("r-1", "expert")
    with opener() as store:
        store.append([first])
        head, mark = store.head(), store.mark()
        one = store.commit(human(first, "anna", "one"))
        two = store.commit(human(one, "anna", "two", "rejected"))
        undone = store.undo("anna")
        assert (undone.withdrawn, undone.current) == (two, one)
        draft = store.dossier("r-1", "anna").draft
        assert draft is not None
        assert draft.base_revision_id == one.revision_id
        assert draft.body == {"sentences": [s.model_dump(mode="json") for s in two.sentences], "note": "two"}
        assert store.undo("anna").current == first
        with pytest.raises(NotFound):
            store.undo("anna")
        assert store.history("r-1") == [first, one, two]
        assert store.dossier("r-1", "anna").withdrawn == {one.revision_id, two.revision_id}
        assert [store.current("r-1"), store.newest_by("human", "r-1"), list(store.iter_current())] == [
            first, None, [first],
        ]  # fmt: skip
        assert store.head() != head
        assert store.changed_since(mark) == {"r-1"}
        assert store.commit(human(first, "anna", "three")) == store.current("r-1")


def test_what_somebody_has_built_on_cannot_be_undone(opener: Opener) -> None:
    first = revision("r-1", "expert")
    with opener() as store:
        store.append([first])
        anna = store.commit(human(first, "anna"))
        ben = store.commit(human(anna, "ben"))
        with pytest.raises(StaleEdit, match="by ben"):
            store.undo("anna")
        assert store.current("r-1") == ben


@pytest.mark.parametrize("statement", ["UPDATE revisions SET author = 'x'", "DELETE FROM revisions"])
def test_the_database_itself_refuses_to_change_the_past(opener: Opener, statement: str) -> None:
    with opener() as store:
        store.append([revision("r-1", "a")])
        with pytest.raises(SQLAlchemyError, match="append-only"), store.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert store.counts()["revisions"] == 1


V1 = """
CREATE TABLE revisions (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, revision_id VARCHAR NOT NULL UNIQUE, rollout_id VARCHAR NOT NULL,
    parent_revision_id VARCHAR REFERENCES revisions (revision_id), author_kind VARCHAR NOT NULL,
    author VARCHAR NOT NULL, created_at VARCHAR NOT NULL, status VARCHAR NOT NULL, body JSON NOT NULL
);
CREATE INDEX revisions_of_rollout ON revisions (rollout_id, author_kind, number);
CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO schema_version VALUES (1);
"""


def make_v1(path: Path, rows: list[Revision]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(V1)
        names = ("revision_id", "rollout_id", "parent_revision_id", "author_kind", "author", "created_at", "status")
        for row in rows:
            body = row.model_dump(mode="json")
            connection.execute(
                f"INSERT INTO revisions ({', '.join(names)}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [*[body[name] for name in names], row.model_dump_json()],
            )
        connection.commit()


def test_a_store_of_version_1_is_migrated_without_loss_and_copied_first(tmp_path: Path) -> None:
    path = tmp_path / "reviews.db"
    first = revision("r-1", "a")
    rows = [first, revision("r-2", "b"), revision("r-1", "c", "human", first.revision_id)]
    make_v1(path, rows)
    with ReviewStore.open(path) as store:
        assert store.history("r-1") == [rows[0], rows[2]]
        assert store.mark().number == 3
        store.commit(human(rows[2], "anna"))
    with closing(sqlite3.connect(tmp_path / "reviews.v1.db")) as copy:
        assert copy.execute("SELECT count(*) FROM revisions").fetchone() == (3,)
        assert copy.execute("SELECT version FROM schema_version").fetchone() == (1,)
    with closing(sqlite3.connect(path)) as connection:
        # What a program of version 1 looks at, to refuse the file.
        assert connection.execute("SELECT version FROM schema_version").fetchone() == (2,)


OPENER = """
import sys
from pathlib import Path
from opadpo.review.store import ReviewStore

ReviewStore.open(Path(sys.argv[1])).close()
"""


@pytest.mark.slow
def test_of_processes_that_open_an_old_store_at_once_one_migrates(tmp_path: Path) -> None:
    path = tmp_path / "reviews.db"
    make_v1(path, [revision(f"r-{i}", "a") for i in range(50)])
    processes = [subprocess.Popen([sys.executable, "-c", OPENER, str(path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with ReviewStore.open(path) as store:
        assert store.counts()["revisions"] == 50


def test_a_server_that_cannot_be_reached_and_a_wrong_url_are_clear_and_show_no_password() -> None:
    with pytest.raises(WorkspaceError, match=r"(?s)cannot be used.*127\.0\.0\.1:1/team.*remedy") as caught:
        ReviewStore.open_url("postgresql://anna:secret@127.0.0.1:1/team", "$TEAM")
    assert "secret" not in str(caught.value)
    for wrong in ("mysql://anna:secret@host/team", "secret", "postgresql://anna:secret@host"):
        with pytest.raises(UserError, match=r"(?s)\$TEAM does not hold.*postgresql://USER") as refused:
            ReviewStore.open_url(wrong, "$TEAM")
        assert "secret" not in str(refused.value)


def test_the_recipe_names_the_variable_of_the_database(
    tmp_path: Path, new_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.create(tmp_path / "w", preset_text("toy"), ["review.database_url_env=TEAM_URL"])
    with pytest.raises(UserError, match="TEAM_URL \\(not set\\)"):
        ReviewStore.of(workspace)
    url = new_url()
    monkeypatch.setenv("TEAM_URL", url)
    with ReviewStore.of(workspace) as store:
        store.append([revision("r-1", "a")])
        assert reviews_head(workspace) == store.head()
    assert not workspace.reviews_db.exists()
    assert url not in "".join(p.read_text(errors="replace") for p in workspace.root.rglob("*") if p.is_file())


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
