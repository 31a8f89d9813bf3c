"""How far people who reviewed the same records on their own agree about the scores of sentences."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from opadpo.review.store import ReviewStore
from opadpo.review.verdicts import bodies_of, independent, reviewed


class Agreement(BaseModel):
    """Agreement about the scores of sentences between people who did not see each other's review."""

    model_config = ConfigDict(frozen=True)

    records: int
    """Records that two or more people accepted independently."""
    sentences: int
    """Sentences of these records that at least two people scored."""
    equal_scores: float
    """Share of the pairs of scores of a sentence that are equal, 0 to 1."""
    alpha: float | None
    """Krippendorff's alpha of the scores as ranks: 1 is full agreement, 0 what chance would give; None where all
    scores are the same."""

    def text(self) -> str:
        """The figures in one line."""
        alpha = "" if self.alpha is None else f" (Krippendorff's alpha {self.alpha:.2f})"
        return (
            f"people who reviewed the same {self.records} records on their own gave {100 * self.equal_scores:.0f} % of"
            f" {self.sentences} sentences the same score{alpha}"
        )


def agreement(store: ReviewStore) -> Agreement | None:
    """Agreement between the reviewers of a store; None if no record was reviewed twice independently."""
    with store.database.reading() as connection:
        several = [alone for _, acts in reviewed(connection) if len(alone := independent(acts)) > 1]
        several = [acts for acts in several if all(act.status == "done" for act in acts)]
        bodies = bodies_of(connection, [act for acts in several for act in acts])
    units: list[list[int]] = []
    for acts in several:
        scores: dict[int, list[int]] = {}
        for act in acts:
            for sentence in bodies[act.revision_id]["sentences"]:
                if sentence["score"] is not None:
                    scores.setdefault(sentence["index"], []).append(sentence["score"])
        units += [given for given in scores.values() if len(given) > 1]
    if not units:
        return None
    return Agreement(
        records=len(several),
        sentences=len(units),
        equal_scores=_share_of_equal(units),
        alpha=ordinal_alpha(coincidences(units)),
    )


def coincidences(units: Sequence[Sequence[int]]) -> np.ndarray:
    """Coincidence matrix [n, n] of scores 1 to n: each ordered pair from a unit of m scores adds 1 / (m - 1)."""
    highest = max(max(given) for given in units)
    pairs = np.zeros((highest, highest))
    for given in units:
        counts = np.bincount(np.asarray(given) - 1, minlength=highest)
        pairs += (np.outer(counts, counts) - np.diag(counts)) / (len(given) - 1)
    return pairs


def ordinal_alpha(pairs: np.ndarray) -> float | None:
    """Krippendorff's alpha for ranks from a coincidence matrix; None where all scores are the same.

    Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), ordinal metric.
    """
    each = pairs.sum(axis=0)
    upto = np.cumsum(each)
    # Ranks between two scores, each of the two counted by half.
    middle = upto - each / 2
    distance = (middle[:, None] - middle[None, :]) ** 2
    expected = float((np.outer(each, each) * distance).sum())
    if expected == 0:
        return None
    return 1 - (float(each.sum()) - 1) * float((pairs * distance).sum()) / expected


def _share_of_equal(units: Sequence[Sequence[int]]) -> float:
    equal = total = 0
    for given in units:
        equal += sum(given.count(score) * (given.count(score) - 1) for score in set(given))
        total += len(given) * (len(given) - 1)
    return equal / total
