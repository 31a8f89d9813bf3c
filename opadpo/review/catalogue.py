"""Every rollout of a workspace with its prompt and where its review stands: found, sorted, counted and shown."""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from opadpo.damage import how_to_remake
from opadpo.errors import NotFound, WorkspaceError
from opadpo.review import index
from opadpo.review.filters import DRAFT, Columns, Filters, Found, RecordState, find
from opadpo.review.places import Busyness
from opadpo.review.store import Mark, ReviewStore, has_store
from opadpo.workspace import Workspace

_CODED = ("source", "model", "author")
_KINDS: dict[str, Any] = {
    "tokens": np.int32,
    "sentences": np.int32,
    "lowest": np.int8,
    "errors": np.int8,
    "degenerate": np.int8,
    "finish": np.int8,
    "decision": np.int8,
    "decided": np.float64,
    "source": np.int32,
    "model": np.int32,
    "author": np.int32,
}
_KEPT_SEARCHES = 32


class Reader(NamedTuple):
    """Who looks, and what is going on meanwhile: a record's state depends on both."""

    name: str
    """The reviewer."""
    busyness: Busyness
    """Drafts and claims of everybody."""
    skipped: Sequence[str]
    """What the reviewer has put off."""


@dataclass
class _View:
    """What one process has read of the index."""

    columns: Columns
    stamp: int
    made_from: tuple[str, int]
    """Fingerprint of the artefacts, and which file it was read from."""
    searches: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


class Catalogue:
    """The rollouts of a workspace; one instance per process, for any number of threads."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is read before it is asked for."""
        self.workspace = workspace
        self._store: ReviewStore | None = None
        self._view: _View | None = None
        self._lock = threading.Lock()
        self._connections = threading.local()

    @property
    def store(self) -> ReviewStore:
        """The store of the reviews, opened (and made) when it is first asked for."""
        with self._lock:
            return self._opened()

    def columns(self) -> Columns:
        """Facts about every rollout as they are now.

        Raises:
            WorkspaceError: if an artefact or the store is damaged.
        """
        return self._looked().columns

    def reader(self, name: str) -> Reader:
        """A reviewer, and what is going on now."""
        return Reader(name, *self.store.places.around(name))

    def find(self, filters: Filters, reader: Reader) -> tuple[Columns, Found]:
        """The records that match, in order, as a reviewer sees them."""
        view = self._looked()
        columns = view.columns
        skipped = [columns.place[rollout] for rollout in reader.skipped if rollout in columns.place]
        matches = self._matches(view, filters.text.strip()) if filters.text.strip() else None
        states = self._states(columns, reader)
        return columns, find(columns, filters, states=states, matches=matches, skipped=skipped)

    def prompt(self, prompt_id: str) -> dict[str, Any] | None:
        """The fields of a prompt; None if there is none of this id."""
        self._looked()
        return index.prompt_body(self._connection(), prompt_id)

    def rollout(self, rollout_id: str) -> dict[str, Any]:
        """The fields of a rollout, its number of tokens in place of their ids.

        Raises:
            NotFound: if there is none of this id.
        """
        return index.rollout_body(self._connection(), self.place(self.columns(), rollout_id))

    def place(self, columns: Columns, rollout_id: str) -> int:
        """The place of a rollout.

        Raises:
            NotFound: if there is none of this id.
        """
        if (place := columns.place.get(rollout_id)) is not None:
            return place
        raise NotFound(
            "There is no such record in this workspace", seen=rollout_id[:80], remedy="choose one from the list"
        )

    def cards(self, columns: Columns, places: Iterable[int]) -> list[dict[str, Any]]:
        """What a list shows of each record: its body, question, scores and author."""
        connection = self._connection()
        query = (
            "SELECT facts.scores, facts.author, facts.degenerate, bodies.body, prompts.body FROM facts"
            " JOIN bodies USING (place) JOIN prompts USING (prompt_id) WHERE place = ?"
        )
        found = [(place, connection.execute(query, (place,)).fetchone()) for place in places]
        return [dict(zip(("place", *_CARD), (place, *row), strict=True)) for place, row in found if row]

    # -- inside ------------------------------------------------------------------------------------------------

    def _opened(self) -> ReviewStore:
        if self._store is None:
            self._store = ReviewStore.of(self.workspace)
        return self._store

    def _looked(self) -> _View:
        """The newest state of the index, made or brought up to date first."""
        with self._lock:
            store = self._opened() if self._store or has_store(self.workspace) else None
            view, fingerprint = self._view, index.fingerprint(self.workspace)
            try:
                if (
                    view is None
                    or view.made_from != (fingerprint, self._file())
                    or (store and not _reaches(store, view.columns.mark))
                ):
                    index.ensure(self.workspace, store)
                    view = self._read(fingerprint)
                if store:
                    view = self._brought_up(view, store)
            except sqlite3.DatabaseError as error:
                path = index.index_path(self.workspace)
                raise WorkspaceError(
                    "The index of the records cannot be read", seen=f"{path}: {error}", remedy=how_to_remake(path)
                ) from error
            self._view = view
            return view

    def _read(self, fingerprint: str) -> _View:
        connection = self._connection()
        names: dict[str, dict[str, int]] = {name: {"": 0} if name == "author" else {} for name in _CODED}
        ids: list[str] = []
        revisions: list[str | None] = []
        rows: list[tuple[Any, ...]] = []
        connection.execute("BEGIN")
        mark = index.read_mark(connection)
        stamp = connection.execute("SELECT max(stamp) FROM facts").fetchone()[0] or 0
        for rollout_id, revision_id, *row in connection.execute(f"{_FACTS} ORDER BY place"):
            ids.append(rollout_id)
            revisions.append(revision_id)
            rows.append(_encoded(row, names))
        connection.execute("COMMIT")
        values = {
            name: np.array([row[position] for row in rows], dtype=kind)
            for position, (name, kind) in enumerate(_KINDS.items())
        }
        place = {rollout_id: position for position, rollout_id in enumerate(ids)}
        labels = {name: list(codes) for name, codes in names.items()}
        return _View(Columns(ids, place, labels, values, revisions, mark), stamp, (fingerprint, self._file()))

    def _brought_up(self, view: _View, store: ReviewStore) -> _View:
        """The view with what was decided since, by this process or another."""
        if store.mark() == view.columns.mark:
            return view
        connection = self._connection()
        mark = index.update(connection, store, view.columns.mark, self.workspace.recipe.build.adjudicators)
        old = view.columns
        names = {name: {label: code for code, label in enumerate(old.names[name])} for name in _CODED}
        values = {name: column.copy() for name, column in old.values.items()}
        revisions = list(old.revisions)
        changed: list[int] = []
        for rollout_id, revision_id, *row in connection.execute(f"{_FACTS} WHERE stamp > ?", (view.stamp,)):
            place = old.place[rollout_id]
            changed.append(place)
            revisions[place] = revision_id
            for name, value in zip(_KINDS, _encoded(row, names), strict=True):
                values[name][place] = value
        stamp = connection.execute("SELECT max(stamp) FROM facts").fetchone()[0] or 0
        searches = {text: mask.copy() for text, mask in view.searches.items()}
        for text, mask in searches.items():
            mask[changed] = False
            mask[index.search(connection, text, changed)] = True
        labels = {name: list(codes) for name, codes in names.items()}
        columns = Columns(old.ids, old.place, labels, values, revisions, mark)
        return _View(columns, stamp, view.made_from, searches)

    def _matches(self, view: _View, text: str) -> NDArray[np.bool_]:
        if text not in view.searches:
            mask = np.zeros(len(view.columns), dtype=bool)
            mask[np.asarray(index.search(self._connection(), text), dtype=np.intp)] = True
            if len(view.searches) >= _KEPT_SEARCHES:
                view.searches.clear()
            view.searches[text] = mask
        return view.searches[text]

    def _states(self, columns: Columns, reader: Reader) -> NDArray[np.int8]:
        """Codes of the states: the decision, or `draft` where somebody is at it now."""
        states = columns["decision"].copy()
        for rollout_id, bases in reader.busyness.drafts.items():
            place = columns.place.get(rollout_id)
            if place is not None and columns.revisions[place] in bases.values():
                states[place] = DRAFT
        for rollout_id, name in reader.busyness.claims.items():
            if name != reader.name and (place := columns.place.get(rollout_id)) is not None:
                states[place] = DRAFT
        return states

    def _file(self) -> int:
        """Which file the index is now: it may be deleted at any time. 0 if there is none."""
        try:
            return index.index_path(self.workspace).stat().st_ino
        except FileNotFoundError:
            return 0

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        own, file = getattr(self._connections, "own", (None, 0))
        if own is None or file != self._file():
            own = index.connect(index.index_path(self.workspace))
            self._connections.own = (own, self._file())
        return own


_CARD = ("scores", "author", "degenerate", "rollout", "prompt")
_FACTS = f"SELECT rollout_id, revision_id, {', '.join(_KINDS)} FROM facts"


def state_name(code: int) -> RecordState:
    """The name of a state's code."""
    return "draft" if code == DRAFT else index.DECISIONS[code]


def _reaches(store: ReviewStore, mark: Mark) -> bool:
    """Whether the store still holds what was seen: cheap where nothing has changed."""
    return store.mark() == mark or store.knows(mark)


def _encoded(row: Sequence[Any], names: dict[str, dict[str, int]]) -> tuple[Any, ...]:
    """A row with names replaced by codes; new names get new codes."""
    encoded = dict(zip(_KINDS, row, strict=True))
    for name in _CODED:
        encoded[name] = names[name].setdefault(encoded[name], len(names[name]))
    return tuple(encoded.values())
