"""Which records are wanted, and in which order: masks and ranks over columns of facts about all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from opadpo.records import ErrorType, FinishReason
from opadpo.review.index import DECISIONS, DEGENERATE, ERRORS, FINISHES, UNREVISED
from opadpo.review.store import Mark

RecordState = Literal["open", "draft", "accepted", "flagged", "rejected", "disagreed"]
Sort = Literal["queue", "lowest_score", "longest", "shortest", "sampled", "newest"]

DRAFT = len(DECISIONS)
"""Code of `draft` in a column of states; the others are places in `DECISIONS`."""

BINS = 20

MAX_SEARCH = 1000
"""Characters of a text to search for."""

Name = Annotated[str, StringConstraints(max_length=500)]
Mask = NDArray[np.bool_]


class Filters(BaseModel):
    """What is asked for. Values of one filter are alternatives; different filters must all hold; empty: any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[str, StringConstraints(max_length=MAX_SEARCH)] = ""
    """Part of the response, the revision, the question or the id, whatever its case."""
    source: list[Name] = Field(default=[], max_length=200)
    """Where the prompt comes from."""
    model: list[Name] = Field(default=[], max_length=200)
    """What sampled the response."""
    score: list[Annotated[int, Field(ge=1, le=UNREVISED)]] = Field(default=[], max_length=5)
    """The record's lowest score; 5 where it has not been revised."""
    error_type: list[ErrorType] = Field(default=[], max_length=3)
    """Among the changed sentences."""
    state: list[RecordState] = Field(default=[], max_length=6)
    """Where its review stands."""
    finish: list[FinishReason] = Field(default=[], max_length=2)
    """How the response ended."""
    degenerate: list[Literal["repeated_last_sentence", "repeated_last_word"]] = Field(default=[], max_length=2)
    """Filters of degenerate text that the response meets."""
    min_tokens: int = Field(default=0, ge=0, le=10_000_000)
    """Least length of the response."""
    max_tokens: int | None = Field(default=None, ge=0, le=10_000_000)
    """Greatest length of the response."""
    sort: Sort = "queue"
    """`queue`: lowest score first, what the reviewer has skipped at the end."""


@dataclass(frozen=True)
class Columns:
    """One value per rollout, in the order of sampling; never changed in place."""

    ids: list[str]
    """Rollout ids."""
    place: Mapping[str, int]
    """Rollout id -> place."""
    names: Mapping[str, Sequence[str]]
    """What the codes in `source`, `model` and `author` stand for."""
    values: Mapping[str, NDArray[Any]]
    """tokens, sentences, lowest, errors, degenerate, finish, source, model, decision, author, decided."""
    revisions: Sequence[str | None]
    """The revision in force."""
    mark: Mark
    """How far into the store these facts go."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.values[name]


@dataclass(frozen=True)
class Found:
    """The records that match, in order."""

    order: NDArray[np.intp]
    """Their places."""
    rank: NDArray[np.intp]
    """Rank of every record in this order, also of those that do not match."""
    masks: Mapping[str, Mask]
    """What each filter lets through, by its name."""
    states: NDArray[np.int8]
    """State of every record, as its reader sees it."""

    def before(self, place: int) -> int:
        """How many of the records found come before the one at `place`, which need not be one of them."""
        return int(np.searchsorted(self.rank[self.order], self.rank[place]))

    def neighbour(self, place: int, step: Literal[-1, 1]) -> int | None:
        """The place of the record found before or after the one at `place`."""
        at = self.before(place)
        here = at < len(self.order) and self.order[at] == place
        wanted = at - 1 if step < 0 else at + here
        return int(self.order[wanted]) if 0 <= wanted < len(self.order) else None


def find(
    columns: Columns,
    filters: Filters,
    *,
    states: NDArray[np.int8],
    matches: Mask | None,
    skipped: Sequence[int],
) -> Found:
    """Apply filters. `matches` is the mask of the text search; `skipped` are places to put at the end of a queue."""
    masks = _masks(columns, filters, states)
    if matches is not None:
        masks["text"] = matches
    keep = np.ones(len(columns), dtype=bool)
    for mask in masks.values():
        keep &= mask
    sequence = _sequence(columns, filters.sort)
    if filters.sort == "queue" and len(skipped):
        late = np.asarray(skipped, dtype=np.intp)
        sequence = np.concatenate([sequence[~np.isin(sequence, late)], late])
    rank = np.empty(len(columns), dtype=np.intp)
    rank[sequence] = np.arange(len(columns))
    return Found(sequence[keep[sequence]], rank, masks, states)


def facets(columns: Columns, found: Found) -> dict[str, dict[str, int]]:
    """How many records there are of each value, each filter counted under all the others."""

    def under(name: str) -> Mask:
        keep = np.ones(len(columns), dtype=bool)
        for other, mask in found.masks.items():
            if other != name:
                keep &= mask
        return keep

    def coded(name: str, codes: NDArray[Any], labels: Sequence[str]) -> dict[str, int]:
        counts = np.bincount(codes[under(name)], minlength=len(labels))
        return {label: int(count) for label, count in zip(labels, counts, strict=False) if label}

    def flagged(name: str, bits: NDArray[Any], labels: Sequence[str]) -> dict[str, int]:
        kept = bits[under(name)]
        return {label: int(np.count_nonzero(kept & (1 << bit))) for bit, label in enumerate(labels)}

    scores = ["", *(str(score) for score in range(1, UNREVISED + 1))]
    return {
        "score": coded("score", columns["lowest"], scores),
        "state": coded("state", found.states, [*DECISIONS, "draft"]),
        "error_type": flagged("error_type", columns["errors"], ERRORS),
        "source": coded("source", columns["source"], columns.names["source"]),
        "model": coded("model", columns["model"], columns.names["model"]),
        "finish": coded("finish", columns["finish"], FINISHES),
        "degenerate": flagged("degenerate", columns["degenerate"], DEGENERATE),
    }


def histograms(columns: Columns, found: Found) -> dict[str, list[dict[str, int]]]:
    """Counts by tokens, sentences and lowest score; bins are those of all records, so that they stay while filtering.

    `from` is in a bin, `to` is not.
    """
    return {
        "tokens": _bins(columns["tokens"], found.order),
        "sentences": _bins(columns["sentences"], found.order),
        "score": [
            {"from": score, "to": score + 1, "count": int(np.count_nonzero(columns["lowest"][found.order] == score))}
            for score in range(1, UNREVISED + 1)
        ],
    }


def medians(columns: Columns, found: Found) -> dict[str, float]:
    """Medians of tokens and sentences over the records found; empty if there are none."""
    if not len(found.order):
        return {}
    return {name: float(np.median(columns[name][found.order])) for name in ("tokens", "sentences")}


def _bins(values: NDArray[Any], places: NDArray[np.intp]) -> list[dict[str, int]]:
    if not len(values):
        return []
    low, high = int(values.min()), int(values.max()) + 1
    width = max(1, -(-(high - low) // BINS))
    edges = np.arange(low, high + width, width)
    counts, _ = np.histogram(values[places], bins=edges)
    return [
        {"from": int(edges[i]), "to": int(edges[i + 1]), "count": int(count)} for i, count in enumerate(counts.tolist())
    ]


def _masks(columns: Columns, filters: Filters, states: NDArray[np.int8]) -> dict[str, Mask]:
    masks: dict[str, Mask] = {}
    if filters.score:
        masks["score"] = np.isin(columns["lowest"], filters.score)
    if filters.state:
        masks["state"] = np.isin(states, [DRAFT if s == "draft" else DECISIONS.index(s) for s in filters.state])
    if filters.finish:
        masks["finish"] = np.isin(columns["finish"], [FINISHES.index(name) for name in filters.finish])
    for name in ("source", "model"):
        if wanted := getattr(filters, name):
            codes = [code for code, label in enumerate(columns.names[name]) if label in wanted]
            masks[name] = np.isin(columns[name], codes)
    if filters.error_type:
        masks["error_type"] = (columns["errors"] & sum({1 << ERRORS.index(e) for e in filters.error_type})) > 0
    if filters.degenerate:
        bits = sum({1 << DEGENERATE.index(name) for name in filters.degenerate})
        masks["degenerate"] = (columns["degenerate"] & bits) > 0
    if filters.min_tokens or filters.max_tokens is not None:
        most = filters.max_tokens if filters.max_tokens is not None else np.iinfo(np.int32).max
        masks["tokens"] = (columns["tokens"] >= filters.min_tokens) & (columns["tokens"] <= most)
    return masks


def _sequence(columns: Columns, sort: Sort) -> NDArray[np.intp]:
    """Places of all records in order; what is equal stays in the order of sampling."""
    keys: dict[Sort, Any] = {
        "longest": lambda: -columns["tokens"],
        "shortest": lambda: columns["tokens"],
        "newest": lambda: -columns["decided"],
    }
    if sort == "sampled":
        return np.arange(len(columns))
    return np.argsort(keys.get(sort, lambda: columns["lowest"])(), kind="stable")
