"""POPE (arXiv 2305.10355): is there such an object in the image? Yes is the positive class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.answers import Answer, read_answer, read_answer_as_pope
from opadpo.evaluation.benchmark import Question
from opadpo.evaluation.figures import Sums, detection, percent, total
from opadpo.evaluation.files import json_lines, reading

Category = Literal["random", "popular", "adversarial"]
"""How the objects were chosen that are not in the image."""
CATEGORIES: tuple[Category, ...] = get_args(Category)


class PopeItem(BaseModel):
    """How one question was answered."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    label: Answer
    """What is true."""
    predicted: Answer | None
    """What was answered; None: neither."""
    category: Category | None = None
    """The file that asks; None where it does not matter."""

    @property
    def correct(self) -> bool:
        """Whether the answer is the label."""
        return self.predicted == self.label

    def counts(self) -> dict[str, int]:
        """What `pope_figures` sums, for all questions and for those of its category (`CATEGORY/...`)."""
        own = {
            "questions": 1,
            "answered": int(self.predicted is not None),
            "correct": int(self.correct),
            "yes": int(self.label == "yes"),
            "said_yes": int(self.predicted == "yes"),
            "right_yes": int(self.predicted == self.label == "yes"),
        }
        groups = ["", *([f"{self.category}/"] if self.category else [])]
        return {f"{group}{name}": value for group in groups for name, value in own.items()}


class PopeResult(BaseModel):
    """Metrics in percent, and the row of every question."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    metrics: dict[str, float]
    """accuracy, precision, recall, f1, yes_ratio, answered, false_yes; the same as `CATEGORY/...`."""
    items: tuple[PopeItem, ...]
    """One per question, in the order given."""


def pope_figures(sums: Sums) -> dict[str, Any]:
    """Metrics in percent from sums of `PopeItem.counts`; 0 where a denominator is 0.

    `false_yes` is the share of questions about absent objects that were answered yes. Without a category, all questions
    are pooled.
    """
    figures: dict[str, Any] = {}
    for group in ("", *(f"{category}/" for category in CATEGORIES)):
        if f"{group}questions" not in sums:
            continue
        questions, yes = sums[f"{group}questions"], sums[f"{group}yes"]
        said_yes, right_yes = sums[f"{group}said_yes"], sums[f"{group}right_yes"]
        precision, recall, f1 = detection(right_yes, said_yes, yes)
        figures |= {
            f"{group}accuracy": percent(sums[f"{group}correct"], questions),
            f"{group}precision": precision,
            f"{group}recall": recall,
            f"{group}f1": f1,
            f"{group}yes_ratio": percent(said_yes, questions),
            f"{group}answered": percent(sums[f"{group}answered"], questions),
            f"{group}false_yes": percent(said_yes - right_yes, questions - yes),
        }
    return figures


def read_questions(path: Path, category: Category) -> list[Question]:
    """The questions of one of POPE's files (one JSON object per line).

    Raises:
        MissingArtefact: if it is missing.
        DataError: if it cannot be read, or a number comes twice.
    """
    with reading("POPE", path, missing="get it from https://github.com/AoiDragon/POPE"):
        rows = json_lines(path)
        numbers = [row["question_id"] for row in rows]
        if len(set(numbers)) < len(numbers):
            raise ValueError("a question_id comes twice")
        return [
            Question(row["image"], row["text"], {"id": row["question_id"], "category": category, "label": row["label"]})
            for row in rows
        ]


def score(
    answers: Sequence[str],
    labels: Sequence[str],
    *,
    categories: Sequence[Category] | None = None,
    as_released: bool = False,
) -> PopeResult:
    """Accuracy, precision, recall, F1 and the share of yes.

    Args:
        answers: the model's texts.
        labels: `yes` or `no`, one for each.
        categories: of the questions, for figures of each category beside those of all; None: all are one.
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
        PopeItem(label=label, predicted=read(text), category=category)  # pyright: ignore[reportArgumentType]
        for text, label, category in zip(answers, labels, categories or [None] * len(labels), strict=True)
    )
    return PopeResult(metrics=pope_figures(total(item.counts() for item in items)), items=items)
