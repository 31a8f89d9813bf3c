"""POPE (arXiv 2305.10355): is there such an object in the image? Yes is the positive class."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.answers import Answer, read_answer, read_answer_as_pope
from opadpo.evaluation.figures import Sums, detection, percent, total

PopeSet = Literal["random", "popular", "adversarial"]


class PopeItem(BaseModel):
    """How one question was answered."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    label: Answer
    """What is true."""
    predicted: Answer | None
    """What was answered; None: neither."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.predicted == self.label

    def counts(self) -> dict[str, int]:
        """What `pope_figures` sums."""
        return {
            "questions": 1,
            "answered": int(self.predicted is not None),
            "correct": int(self.correct),
            "yes": int(self.label == "yes"),
            "said_yes": int(self.predicted == "yes"),
            "right_yes": int(self.predicted == self.label == "yes"),
        }


class PopeResult(BaseModel):
    """Metrics in percent, and the row of every question."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    metrics: dict[str, float]
    """accuracy, precision, recall, f1, yes_ratio, answered."""
    items: tuple[PopeItem, ...]
    """One per question, in the order given."""


def pope_figures(sums: Sums) -> dict[str, Any]:
    """Metrics in percent from sums of `PopeItem.counts`; 0 where a denominator is 0."""
    precision, recall, f1 = detection(sums["right_yes"], sums["said_yes"], sums["yes"])
    return {
        "accuracy": percent(sums["correct"], sums["questions"]),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_ratio": percent(sums["said_yes"], sums["questions"]),
        "answered": percent(sums["answered"], sums["questions"]),
    }


def score(answers: Sequence[str], labels: Sequence[str], *, as_released: bool = False) -> PopeResult:
    """Accuracy, precision, recall, F1 and the share of yes.

    Args:
        answers: the model's texts.
        labels: `yes` or `no`, one for each.
        as_released: read answers as the authors' script does; else an answer that says neither is wrong and counts as
            neither yes nor no.

    Raises:
        DataError: if there is not exactly one label for each answer, no answer at all, or another label.
    """
    if not answers or len(answers) != len(labels):
        raise DataError(
            "POPE needs one label for every answer, and at least one answer",
            seen=f"{len(answers)} answers, {len(labels)} labels",
            remedy="caption every question of the file; the authors' script would have paired them by line and cut",
        )
    if strange := sorted(set(labels) - {"yes", "no"}):
        raise DataError("A POPE label is neither yes nor no", seen=", ".join(strange), remedy="use POPE's own files")
    read = read_answer_as_pope if as_released else read_answer
    items = tuple(
        PopeItem(label=label, predicted=read(text))  # pyright: ignore[reportArgumentType]
        for text, label in zip(answers, labels, strict=True)
    )
    return PopeResult(metrics=pope_figures(total(item.counts() for item in items)), items=items)
