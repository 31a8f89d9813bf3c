"""CHAIR (arXiv 1809.02156), exact: in the toy world the truth is known and every noun can be read."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.figures import Sums, percent, total
from opadpo.toy.captions import mentions


class ChairItem(BaseModel):
    """How one caption did; nouns in order of mention, repeats included."""

    model_config = ConfigDict(frozen=True)

    mentioned: tuple[str, ...]
    """Every noun that the caption names."""
    hallucinated: tuple[str, ...]
    """Those that are not in the scene."""
    covered: tuple[str, ...]
    """Those of the scene that are named, each once, in the scene's order."""
    missed: tuple[str, ...]
    """Those of the scene that are not named."""

    def counts(self) -> dict[str, int]:
        """What `chair_figures` sums."""
        return {
            "mentions": len(self.mentioned),
            "wrong": len(self.hallucinated),
            "captions": 1,
            "bad_captions": int(bool(self.hallucinated)),
            "covered": len(self.covered),
            "things": len(self.covered) + len(self.missed),
        }


class ChairMetrics(BaseModel):
    """Percentages over all captions together."""

    model_config = ConfigDict(frozen=True)

    chair_i: float
    """Hallucinated mentions per 100 mentions."""
    chair_s: float
    """Captions with at least one hallucinated mention, per 100 captions."""
    coverage: float
    """Things of the scenes that are mentioned, per 100 things."""


class ChairResult(BaseModel):
    """Metrics and the row of every caption that they were counted from."""

    model_config = ConfigDict(frozen=True)

    metrics: ChairMetrics
    """The three percentages."""
    items: tuple[ChairItem, ...]
    """One row per caption, in the order given."""


def chair_figures(sums: Sums) -> dict[str, Any]:
    """The three metrics from sums of `ChairItem.counts`; 0 where nothing was counted."""
    return {
        "chair_i": percent(sums["wrong"], sums["mentions"]),
        "chair_s": percent(sums["bad_captions"], sums["captions"]),
        "coverage": percent(sums["covered"], sums["things"]),
    }


def score_item(caption: str, truth: Mapping[str, Any]) -> ChairItem:
    """Compare one caption with what is true of its scene (see `opadpo.toy.world.Scene.truth`)."""
    there = [thing["noun"] for thing in truth["objects"]]
    said = [mention.noun for mention in mentions(caption)]
    return ChairItem(
        mentioned=tuple(said),
        hallucinated=tuple(noun for noun in said if noun not in there),
        covered=tuple(noun for noun in there if noun in said),
        missed=tuple(noun for noun in there if noun not in said),
    )


def score(captions: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> ChairResult:
    """CHAIR_i, CHAIR_s and coverage, in percent, of captions against the truths of their scenes.

    Raises:
        DataError: if there is no caption, or not exactly one truth for each.
    """
    if not captions or len(captions) != len(truths):
        raise DataError(
            "CHAIR needs one truth for every caption, and at least one caption",
            seen=f"{len(captions)} captions, {len(truths)} truths",
            remedy="pass captions and truths of the same rows",
        )
    items = tuple(score_item(caption, truth) for caption, truth in zip(captions, truths, strict=True))
    metrics = ChairMetrics(**chair_figures(total(item.counts() for item in items)))
    return ChairResult(metrics=metrics, items=items)
