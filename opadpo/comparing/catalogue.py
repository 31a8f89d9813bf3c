"""Captions of a workspace, read when they are asked for and again when their files have changed."""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from opadpo.comparing.columns import Column, Questions, benchmark_of_set, read_column, read_questions
from opadpo.comparing.messages import Asked, Change, Filters, ModelOut, SetOut
from opadpo.errors import NotFound
from opadpo.steps import plans
from opadpo.steps.evaluate import command_for
from opadpo.steps.sets import HELDOUT, folder_of_set
from opadpo.tables import PROMPTS_FILE
from opadpo.workspace import Workspace

T = TypeVar("T")

_KEPT = 24
"""Columns, sets and comparisons that are held in memory."""


@dataclass(frozen=True)
class Pair:
    """How one model's captions differ from the reference's, in the order of the set."""

    questions: Questions
    """The set."""
    target: Column
    """Which is compared ..."""
    reference: Column
    """... with which."""

    @cached_property
    def same(self) -> list[bool]:
        """Whether both say the same, or one says nothing at all yet."""
        return [one is None or other is None or one == other for one, other in self._texts]

    @cached_property
    def words(self) -> list[int | None]:
        """Words, as white space parts them, that are inserted, deleted or replaced."""
        from rapidfuzz.distance import Levenshtein

        return [
            None if one is None or other is None else Levenshtein.distance(other.split(), one.split())
            for one, other in self._texts
        ]

    @cached_property
    def deltas(self) -> list[float | None]:
        """Things wrong more than in the reference, or points of a judge less."""
        rows = [
            (self.target.found.get(q.prompt_id), self.reference.found.get(q.prompt_id)) for q in self.questions.rows
        ]
        return [one.wrong - other.wrong if one and other else None for one, other in rows]

    @property
    def _texts(self) -> list[tuple[str | None, str | None]]:
        return [
            (self.target.captions[name].text if name in self.target.captions else None,
             self.reference.captions[name].text if name in self.reference.captions else None)
            for name in (question.prompt_id for question in self.questions.rows)
        ]  # fmt: skip


class View(NamedTuple):
    """What was asked for, at one moment."""

    questions: Questions
    """The set."""
    columns: list[Column]
    """One per model asked for."""
    pair: Pair | None
    """The last model against the reference; None if only one was asked for."""


class Matches(NamedTuple):
    """What a search found."""

    places: list[int]
    """Of the records that match, in order."""
    counts: dict[Change, int]
    """Of those with the text asked for."""


@dataclass
class Memory:
    """The newest values by key, each with the stamp of what it was made from."""

    values: dict[Hashable, tuple[Hashable, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def get(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """The value, made if it is not there or out of date; whoever asks meanwhile waits for it."""
        with self.lock:
            kept = self.values.pop(key, None)
            value = kept[1] if kept and kept[0] == stamp else make()
            self.values[key] = (stamp, value)
            if len(self.values) > _KEPT:
                del self.values[next(iter(self.values))]
            return value


class Catalogue:
    """The captions of a workspace; one instance per process, for any number of threads."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is read before it is asked for."""
        self.workspace = workspace
        self.memory = Memory()

    def sets(self) -> list[SetOut]:
        """Every set that has captions, with the models that have some."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.workspace.root.glob("captions/*/*.parquet")):
            found.setdefault(path.stem, []).append(path.parent.name)
        return [
            self._set(name, models)
            for name, models in sorted(found.items(), key=lambda one: (one[0] != HELDOUT, one[0]))
        ]

    def _set(self, name: str, models: Sequence[str]) -> SetOut:
        benchmark = benchmark_of_set(name)
        listed = []
        for model in sorted(models, key=plans.place_of):
            plan = plans.captions(self.workspace, model, name)
            manifest = self.workspace.manifest(plan.artefact)
            if manifest is None:
                continue
            scored = False
            if benchmark:
                figures = self.workspace.manifest(f"evaluations/{model}/{benchmark.name}.json")
                scored = figures is not None and figures.inputs.get(plan.artefact) == manifest.fingerprint
            listed.append(
                ModelOut(
                    name=model,
                    captions=manifest.counts.get("captions", 0),
                    scored=scored,
                    stale=self.workspace.state(plan) == "stale",
                )
            )
        return SetOut(name=name, benchmark=benchmark.title if benchmark else None, models=listed)

    def view(self, asked: Asked) -> View:
        """The captions asked for.

        Raises:
            NotFound: if a model has no captions of the set.
            UserError: if the set is not there, or files are damaged.
        """
        models = list(dict.fromkeys(asked.model))
        columns = [self.column(model, asked.set) for model in models]
        questions = self.questions(asked.set)
        reference = reference_of(models)
        if reference is None:
            return View(questions, columns, None)
        by_name = {column.model: column for column in columns}
        one, other = by_name[target_of(models)], by_name[reference]
        return View(questions, columns, self.pair(questions, one, other))

    def pair(self, questions: Questions, target: Column, reference: Column) -> Pair:
        """Two columns of a set compared."""
        key = ("pair", id(questions), id(target), id(reference))
        # The pair holds its columns, so an id stays theirs for as long as the pair is remembered.
        return self.memory.get(key, None, lambda: Pair(questions, target, reference))

    def questions(self, name: str) -> Questions:
        """The prompts of a set; raises as `prompts_of_set`."""
        path = folder_of_set(self.workspace, name) / PROMPTS_FILE
        return self.memory.get(("set", name), _stamp(path), lambda: read_questions(self.workspace, name))

    def column(self, model: str, name: str) -> Column:
        """A model's captions of a set.

        Raises:
            NotFound: if it has none.
            UserError: if files are damaged.
        """
        path = self.workspace.captions(model, name)
        if not path.is_file():
            raise NotFound(
                "The model has no captions of this set",
                seen=f"{model}, {name}",
                remedy=f"run `{command_for(self.workspace, model, name)}`",
            )
        benchmark = benchmark_of_set(name)
        figures = (self.workspace.evaluation(model, benchmark.name),) if benchmark else ()
        stamp = tuple(map(_stamp, (path, *figures)))
        return self.memory.get(("column", model, name), stamp, lambda: read_column(self.workspace, model, name))


def find(view: View, filters: Filters) -> Matches:
    """The records that match, in the order asked for; without a reference, in the set's."""
    places = list(range(len(view.questions.rows)))
    text = filters.text.strip().casefold()
    if text:
        places = [place for place in places if _holds(view, place, text)]
    if view.pair is None:
        return Matches(places if filters.only is None else [], {"changed": 0, "improved": 0, "worse": 0})
    same, deltas = view.pair.same, view.pair.deltas
    having: dict[Change, list[int]] = {
        "changed": [place for place in places if not same[place]],
        "improved": [place for place in places if (deltas[place] or 0) < 0],
        "worse": [place for place in places if (deltas[place] or 0) > 0],
    }
    chosen = having[filters.only] if filters.only else places
    if filters.sort == "changed":
        words = view.pair.words
        chosen = sorted(chosen, key=lambda place: -(words[place] or 0))
    elif filters.sort != "prompted":
        sign = 1 if filters.sort == "improved" else -1
        # Captions that nothing is known of go to the end of either order.
        chosen = sorted(chosen, key=lambda place: (deltas[place] is None, sign * (deltas[place] or 0), same[place]))
    return Matches(chosen, {name: len(found) for name, found in having.items()})


def target_of(models: Sequence[str]) -> str:
    """The model that is compared: the last one that is not the reference."""
    return next(model for model in reversed(models) if model != reference_of(models))


def reference_of(models: Sequence[str]) -> str | None:
    """The model that the others are compared with: the base, or else the first; None if there is one model only."""
    if len(models) < 2:
        return None
    return plans.BASE if plans.BASE in models else models[0]


def _holds(view: View, place: int, text: str) -> bool:
    question = view.questions.rows[place]
    if text in question.question.casefold() or text == question.prompt_id.casefold():
        return True
    return any(text in column.folded.get(question.prompt_id, "") for column in view.columns)


def _stamp(path: Path) -> tuple[int, int, int]:
    """Changes whenever a file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_size, found.st_ino
