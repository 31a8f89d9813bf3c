"""LLaVA-Bench in the wild (arXiv 2304.08485): a judge scores an answer beside a reference answer, 1 to 10 each.

The figure is the model's total as a share of the reference's. The judge sees no image but a description of it. The
wording of the request is the authors' `rule.json`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opadpo.evaluation.benchmark import Question
from opadpo.evaluation.figures import Sums, percent
from opadpo.evaluation.files import json_lines, reading
from opadpo.llm.requests import Message

_REMEDY = (
    "get it from https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild; rule.json is"
    " llava/eval/table/rule.json of https://github.com/haotian-liu/LLaVA"
)
SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
"""As in the authors' script."""

AGAIN = "Answer once more: the first line holds the two scores and nothing else, for example: 7 8"

_SCORE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?")
_FINE = 100
"""Scores are counted in hundredths: judges give halves."""


class Scores(NamedTuple):
    """A judgement, 1 to 10 each."""

    reference: float
    """Of the reference answer."""
    model: float
    """Of the model's."""


def read_questions(questions: Path, contexts: Path, references: Path, rules: Path) -> list[Question]:
    """The questions, each with the image's description, the reference answer and the rule of its category.

    Raises:
        MissingArtefact: if a file is missing.
        DataError: if one cannot be read, or they do not belong together.
    """
    with reading("LLaVA-Bench", questions.parent, missing=_REMEDY):
        captions = {row["image"]: row["caption"] for row in json_lines(contexts)}
        answers = {row["question_id"]: row["text"] for row in json_lines(references)}
        known_rules = json.loads(rules.read_text(encoding="utf-8"))
        found = []
        for row in json_lines(questions):
            rule = known_rules[f"llava_bench_{row['category']}"]
            known = {
                "id": row["question_id"],
                "category": row["category"],
                "context": captions[row["image"]],
                "reference": answers[row["question_id"]],
                "role": rule["role"],
                "rule": rule["prompt"],
            }
            found.append(Question(row["image"], row["text"], known))
    return found


def messages(known: Mapping[str, Any], question: str, answer: str) -> tuple[Message, ...]:
    """What the judge is told about one answer: the reference stands first, as in the authors' script."""
    context, role = known["context"], known["role"]
    context = "\n".join(context) if isinstance(context, list) else context
    said = [f"[{role} {n}]\n{text}\n\n[End of {role} {n}]" for n, text in ((1, known["reference"]), (2, answer))]
    parts = [f"[Context]\n{context}", f"[Question]\n{question}", *said, f"[System]\n{known['rule']}"]
    return (Message("system", SYSTEM), Message("user", "\n\n".join(parts) + "\n\n"))


def read_scores(text: str) -> Scores | None:
    """The two scores in the first line of a judge's answer; None unless there are two from 1 to 10."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    numbers = [float(number) for number in _SCORE.findall(first.replace(",", " "))]
    if len(numbers) != 2 or not all(1 <= number <= 10 for number in numbers):
        return None
    return Scores(*numbers)


def counts(scores: Scores, category: str) -> dict[str, int]:
    """What `figures` sums, for all questions and for those of a category (`CATEGORY/...`)."""
    own = {"answers": 1, "reference": round(_FINE * scores.reference), "model": round(_FINE * scores.model)}
    return {f"{group}{name}": value for group in ("", f"{category}/") for name, value in own.items()}


def figures(sums: Sums) -> dict[str, Any]:
    """relative: the model's scores in percent of the reference's; then the same as `CATEGORY/...`."""
    groups = ["", *sorted(name.removesuffix("answers") for name in sums if name.endswith("/answers"))]
    return {f"{group}relative": percent(sums[f"{group}model"], sums[f"{group}reference"]) for group in groups}
