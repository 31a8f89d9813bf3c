"""What the pages read: rollouts with their prompts and current revisions, read again when the workspace changed."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from opadpo.records import Prompt, Revision, Rollout
from opadpo.review.store import ReviewStore, has_store
from opadpo.tables import iter_prompts, iter_rollouts
from opadpo.workspace import Workspace

Sort = Literal["Lowest score first", "Longest first", "As sampled"]
SORTS: tuple[Sort, ...] = ("Lowest score first", "Longest first", "As sampled")


@dataclass(frozen=True)
class Entry:
    """A rollout with what belongs to it."""

    rollout: Rollout
    prompt: Prompt
    revision: Revision | None

    @property
    def lowest_score(self) -> int:
        """Lowest score of a sentence; 5 if it has not been revised."""
        scores = [s.score for s in self.revision.sentences if s.score is not None] if self.revision else []
        return min(scores, default=5)


@dataclass(frozen=True)
class Query:
    """What the user asked for."""

    text: str = ""
    scores: Sequence[int] = ()
    finish: Sequence[str] = ()
    sort: Sort = "Lowest score first"


_SORT_KEYS: dict[Sort, Callable[[Entry], tuple[int, ...]]] = {
    "Lowest score first": lambda e: (e.lowest_score,),
    "Longest first": lambda e: (-len(e.rollout.response_token_ids),),
    "As sampled": lambda e: (),
}


class Library:
    """Rollouts of a workspace, in memory; one instance per app."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.Lock()
        self._version: tuple[str, ...] | None = None
        self._entries: dict[str, Entry] = {}
        self._prompts: dict[str, Prompt] = {}

    def entries(self) -> dict[str, Entry]:
        """Every rollout by its id, in the order of sampling."""
        self._refresh()
        return self._entries

    def prompt(self, prompt_id: str) -> Prompt | None:
        """A prompt by its id."""
        self._refresh()
        return self._prompts.get(prompt_id)

    def find(self, query: Query) -> list[Entry]:
        """The rollouts that match every part of the query, sorted."""
        needle = query.text.casefold()
        found = [
            entry
            for entry in self.entries().values()
            if (not query.scores or entry.lowest_score in query.scores)
            and (not query.finish or entry.rollout.finish_reason in query.finish)
            and (not needle or needle in _haystack(entry))
        ]
        return sorted(found, key=_SORT_KEYS[query.sort])

    def _refresh(self) -> None:
        with self._lock:
            store = ReviewStore.of(self.workspace) if has_store(self.workspace) else None
            version = (
                self.workspace.fingerprint("prompts"),
                self.workspace.fingerprint("rollouts"),
                store.head() if store else "",
            )
            if version == self._version:
                return
            prompts: dict[str, Prompt] = {}
            if version[0]:
                prompts = {p.prompt_id: p for p in iter_prompts(self.workspace)}
            revisions = {r.rollout_id: r for r in store.iter_current()} if store else {}
            entries: dict[str, Entry] = {}
            if version[1]:
                for rollout in iter_rollouts(self.workspace):
                    if rollout.prompt_id in prompts:
                        revision = revisions.get(rollout.rollout_id)
                        entries[rollout.rollout_id] = Entry(rollout, prompts[rollout.prompt_id], revision)
            self._prompts, self._entries, self._version = prompts, entries, version


def _haystack(entry: Entry) -> str:
    revised = entry.revision.text if entry.revision else ""
    return "\n".join([entry.rollout.response, revised, entry.prompt.question, entry.rollout.rollout_id]).casefold()
