"""`review-index.db`: what the catalogue shows of every rollout, in one file that is made from the artefacts.

It is a cache. It may be deleted at any time; whoever needs it next makes it again.
"""

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from filelock import FileLock

from opadpo.errors import NotFound, disk_errors
from opadpo.hashing import digest
from opadpo.records import Rollout
from opadpo.review.store import Mark, ReviewStore
from opadpo.review.verdicts import verdicts
from opadpo.tables import iter_prompts, iter_rollouts
from opadpo.text.filters import FILTERS
from opadpo.text.sentences import split_sentences
from opadpo.workspace import Workspace

INDEX_FILE = "review-index.db"
FORMAT = 2
"""Raised whenever the tables below change."""

UNREVISED = 5
"""In place of the lowest score where there is no revision."""

Decision = Literal["open", "accepted", "flagged", "rejected", "disagreed"]
DECISIONS: tuple[Decision, ...] = ("open", "accepted", "flagged", "rejected", "disagreed")
"""What the revision in force says; `disagreed` where people decided differently and nobody has settled it."""
_SAID: dict[str, Decision] = {"flagged": "flagged", "rejected": "rejected"}
FINISHES = ("stop", "length")
ERRORS = ("correct", "image_recognition_error", "language_comprehension_error")
DEGENERATE = tuple(FILTERS)

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE prompts (prompt_id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE bodies (place INTEGER PRIMARY KEY, prompt_id TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE texts (place INTEGER PRIMARY KEY, sampled TEXT NOT NULL, revised TEXT);
CREATE TABLE facts (
    place INTEGER PRIMARY KEY, rollout_id TEXT NOT NULL UNIQUE, tokens INTEGER NOT NULL, finish INTEGER NOT NULL,
    source TEXT NOT NULL, model TEXT NOT NULL, degenerate INTEGER NOT NULL, said INTEGER NOT NULL,
    sentences INTEGER NOT NULL, lowest INTEGER NOT NULL DEFAULT 5, errors INTEGER NOT NULL DEFAULT 0,
    decision INTEGER NOT NULL DEFAULT 0, author TEXT NOT NULL DEFAULT '', decided REAL NOT NULL DEFAULT 0,
    revision_id TEXT, scores TEXT NOT NULL DEFAULT '[]', stamp INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX facts_by_stamp ON facts (stamp);
"""


class Verdict(NamedTuple):
    """What the revision in force says about a rollout, as columns of `facts`."""

    sentences: int
    """Sentences of the response and added ones."""
    lowest: int
    """Lowest score, or `UNREVISED`."""
    errors: int
    """Bits: place in `ERRORS` of every changed sentence."""
    decision: int
    """Place in `DECISIONS`."""
    author: str
    """Who decided; empty where no person has."""
    decided: float
    """When, in seconds since 1970; 0 where no person has."""
    revision_id: str | None
    """The revision in force."""
    scores: str
    """JSON list; null for an added sentence."""


def index_path(workspace: Workspace) -> Path:
    """Where the index of a workspace lies."""
    return workspace.root / INDEX_FILE


def fingerprint(workspace: Workspace) -> str:
    """Identifies the artefacts that an index is made from."""
    judges = digest(sorted(workspace.recipe.build.adjudicators))
    return f"{FORMAT} {workspace.fingerprint('prompts')} {workspace.fingerprint('rollouts')} {judges}"


def ensure(workspace: Workspace, store: ReviewStore | None) -> None:
    """Make the index if it is not there, damaged, or made from other artefacts; one process does, others wait.

    Raises:
        WorkspaceError: if an artefact is damaged.
        DiskFull: if there is no room.
    """
    path, wanted = index_path(workspace), fingerprint(workspace)
    if _fits(path, wanted, store):
        return
    folder = workspace.root / ".locks"
    with disk_errors(path):
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f"{INDEX_FILE}.lock"):
            if not _fits(path, wanted, store):
                _build(workspace, store, path, wanted)


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the index; a crash may damage it, since it can be made again."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-8000"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def update(connection: sqlite3.Connection, store: ReviewStore, seen: Mark, adjudicators: Collection[str]) -> Mark:
    """Take over what was decided since the index was last brought up to date; returns how far it goes now."""
    now = store.mark()
    if now == seen:
        return now
    connection.execute("BEGIN IMMEDIATE")
    try:
        held = read_mark(connection)
        if held.number <= now.number and held.withdrawals <= now.withdrawals and held != now:
            changed = store.changed_since(held)
            currents = {body["rollout_id"]: body for body in store.iter_current_data(held)}
            disagreed = _disagreed(store, adjudicators, changed)
            stamp = connection.execute("SELECT max(stamp) + 1 FROM facts").fetchone()[0] or 1
            for rollout_id in changed:
                _judge(connection, rollout_id, currents.get(rollout_id), stamp, rollout_id in disagreed)
            _write_mark(connection, now)
            held = now
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return held


def read_mark(connection: sqlite3.Connection) -> Mark:
    """How far into the store the index goes."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'mark'").fetchone()
    return Mark(*json.loads(row[0])) if row else Mark()


def prompt_body(connection: sqlite3.Connection, prompt_id: str) -> dict[str, Any] | None:
    """A prompt's fields."""
    row = connection.execute("SELECT body FROM prompts WHERE prompt_id = ?", (prompt_id,)).fetchone()
    return json.loads(row[0]) if row else None


def rollout_body(connection: sqlite3.Connection, place: int) -> dict[str, Any]:
    """A rollout's fields without its token ids.

    Raises:
        NotFound: if there is none at this place.
    """
    row = connection.execute("SELECT body FROM bodies WHERE place = ?", (place,)).fetchone()
    if row is None:
        raise NotFound("There is no such rollout", seen=place)
    return json.loads(row[0])


def search(connection: sqlite3.Connection, text: str, among: Sequence[int] | None = None) -> list[int]:
    """Places of the rollouts whose response, revision, question or id holds `text`, whatever its case.

    With `among`, only those of these places.
    """
    # Both sides are folded, and `instr` compares bytes: several times as fast as LIKE, which folds anew.
    pattern = text.casefold()
    query = "SELECT place FROM texts WHERE (instr(sampled, ?1) OR instr(revised, ?1))"
    if among is None:
        return [row[0] for row in connection.execute(query, (pattern,))]
    query += " AND place IN (SELECT value FROM json_each(?2))"
    return [row[0] for row in connection.execute(query, (pattern, json.dumps(list(among))))]


# -- making it ------------------------------------------------------------------------------------------------


def _fits(path: Path, wanted: str, store: ReviewStore | None) -> bool:
    if not path.exists():
        return False
    try:
        with contextlib.closing(connect(path)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'made_from'").fetchone()
            mark = read_mark(connection)
    except (sqlite3.DatabaseError, ValueError, TypeError):
        return False
    known = store.knows(mark) if store else mark == Mark()
    return bool(row) and row[0] == wanted and known


def _build(workspace: Workspace, store: ReviewStore | None, path: Path, wanted: str) -> None:
    """Make everything again in one transaction: readers see the old state until the new one is complete."""
    try:
        with contextlib.closing(connect(path)) as connection:
            _fill(workspace, store, connection, wanted)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        for file in _files(path):
            file.unlink(missing_ok=True)
        with contextlib.closing(connect(path)) as connection:
            _fill(workspace, store, connection, wanted)


def _fill(workspace: Workspace, store: ReviewStore | None, connection: sqlite3.Connection, wanted: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('made_from', ?)", (wanted,))
        # What is decided while this runs is after the mark, so that the next look takes it over (again).
        mark = store.mark() if store else Mark()
        questions = _add_prompts(workspace, connection)
        _add_rollouts(workspace, connection, questions)
        disagreed = _disagreed(store, workspace.recipe.build.adjudicators) if store else set()
        for body in store.iter_current_data() if store else ():
            _judge(connection, body["rollout_id"], body, 0, body["rollout_id"] in disagreed)
        _write_mark(connection, mark)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _files(path: Path) -> list[Path]:
    """A SQLite file and what may lie beside it."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]


def _add_prompts(workspace: Workspace, connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Store the prompts; returns question and source by id."""
    questions: dict[str, tuple[str, str]] = {}
    if not workspace.fingerprint("prompts"):
        return questions

    def rows() -> Iterator[tuple[str, str]]:
        for prompt in iter_prompts(workspace):
            questions[prompt.prompt_id] = (prompt.question, prompt.source)
            yield prompt.prompt_id, prompt.model_dump_json(exclude={"extra", "schema_version"})

    connection.executemany("INSERT INTO prompts VALUES (?, ?)", rows())
    return questions


def _add_rollouts(
    workspace: Workspace, connection: sqlite3.Connection, questions: Mapping[str, tuple[str, str]]
) -> None:
    """Store the rollouts of known prompts, in the order of sampling."""
    if not workspace.fingerprint("rollouts"):
        return
    place = 0
    for rollout in iter_rollouts(workspace):
        if rollout.prompt_id not in questions:
            continue
        question, source = questions[rollout.prompt_id]
        body = rollout.model_dump(mode="json", exclude={"response_token_ids", "schema_version"})
        body["tokens"] = len(rollout.response_token_ids)
        connection.execute(
            "INSERT INTO bodies VALUES (?, ?, ?)", (place, rollout.prompt_id, json.dumps(body, ensure_ascii=False))
        )
        sampled = "\n".join([rollout.response, question, rollout.rollout_id]).casefold()
        connection.execute("INSERT INTO texts VALUES (?, ?, NULL)", (place, sampled))
        said = len(split_sentences(rollout.response))
        connection.execute(
            "INSERT INTO facts (place, rollout_id, tokens, finish, source, model, degenerate, said, sentences)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place, rollout.rollout_id, body["tokens"], FINISHES.index(rollout.finish_reason), source,
                _model(rollout), _degenerate(rollout.response), said, said,
            ),
        )  # fmt: skip
        place += 1


def _model(rollout: Rollout) -> str:
    return rollout.model if rollout.adapter == "base" else f"{rollout.model}, {rollout.adapter}"


def _degenerate(response: str) -> int:
    return sum(1 << bit for bit, name in enumerate(DEGENERATE) if FILTERS[name](response))


def _disagreed(store: ReviewStore, adjudicators: Collection[str], among: Collection[str] | None = None) -> set[str]:
    """Rollouts about which people decided differently, as `build` sees it."""
    found = verdicts(store, adjudicators, among=among)
    return {rollout_id for rollout_id, verdict in found.items() if verdict.how == "disagreed"}


def _judge(
    connection: sqlite3.Connection, rollout_id: str, revision: Mapping[str, Any] | None, stamp: int, disagreed: bool
) -> None:
    """Enter the revision in force of a rollout, or that there is none (any more)."""
    row = connection.execute("SELECT place, said FROM facts WHERE rollout_id = ?", (rollout_id,)).fetchone()
    if row is None:
        return
    place, said = row
    verdict = _verdict(revision, disagreed) if revision else Verdict(said, UNREVISED, 0, 0, "", 0.0, None, "[]")
    names = ", ".join(f"{name} = ?" for name in Verdict._fields)
    connection.execute(f"UPDATE facts SET {names}, stamp = ? WHERE place = ?", (*verdict, stamp, place))
    revised = revision["text"].casefold() if revision else None
    connection.execute("UPDATE texts SET revised = ? WHERE place = ?", (revised, place))


def _verdict(revision: Mapping[str, Any], disagreed: bool) -> Verdict:
    sentences = revision["sentences"]
    scores = [sentence["score"] for sentence in sentences]
    errors = {ERRORS.index(s["error_type"]) for s in sentences if s["kind"] in ("edited", "deleted")}
    human = revision["author_kind"] == "human"
    decision: Decision = "disagreed" if disagreed else _SAID.get(revision["status"], "accepted") if human else "open"
    return Verdict(
        len(sentences),
        min((score for score in scores if score is not None), default=UNREVISED),
        sum(1 << bit for bit in errors),
        DECISIONS.index(decision),
        revision["author"] if human else "",
        datetime.fromisoformat(revision["created_at"]).timestamp() if human else 0.0,
        revision["revision_id"],
        json.dumps(scores),
    )


def _write_mark(connection: sqlite3.Connection, mark: Mark) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', ?)", (json.dumps(mark),))
