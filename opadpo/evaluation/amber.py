"""AMBER (arXiv 2311.07397): what its annotation files hold, and the generative and discriminative figures.

The released script starts every denominator at 0.001 and rounds what it prints; `printed` reproduces that to the last
digit, `metrics` has the plain ratios.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.answers import Answer, read_answer, read_answer_as_amber
from opadpo.evaluation.benchmark import Question
from opadpo.evaluation.figures import Sums, detection, percent, total
from opadpo.evaluation.files import reading
from opadpo.evaluation.nouns import NounReader, Similarity, same_word

_START = 0.001
"""Every denominator of the released script starts here instead of at 0."""
_LONG_ANSWER = 800
"""Characters from which the released script takes an answer for one that repeats itself."""


class Annotation(BaseModel):
    """What is known of one question."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    id: int
    """Number of the question."""
    type: str
    """`generative`, or `discriminative-...` with its kind."""
    truth: list[str] | Answer
    """The objects of the image, or the right answer."""
    hallu: list[str] = []
    """Objects that models like to make up there."""


class Amber(NamedTuple):
    """The annotation files."""

    annotations: Mapping[int, Annotation]
    """Number of a question -> what is known of it."""
    associations: Mapping[str, Sequence[str]]
    """relation.json: a word -> words that count as it."""
    safe_words: frozenset[str]
    """Words that are never judged."""

    @property
    def vocabulary(self) -> frozenset[str]:
        """The words that are judged at all: keys and values of relation.json."""
        return frozenset(self.associations).union(*self.associations.values())


class GenerativeItem(BaseModel):
    """How one description did."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: int
    """Number of the question."""
    nouns: tuple[str, ...]
    """Nouns of the description that AMBER judges, in order, repeats kept, safe words included."""
    wrong: tuple[str, ...]
    """Those that are not in the image."""
    covered: tuple[bool, ...]
    """For every word of the annotation's truth, whether it was named."""
    lured: tuple[bool, ...]
    """For every word of the annotation's hallu, whether it was named."""
    long: bool
    """Whether the released script would take it for repetitive."""

    def counts(self) -> dict[str, int]:
        """What `generative_figures` sums; the released names in brackets."""
        return {
            "wrong": len(self.wrong),  # chair_score
            "nouns": len(self.nouns),  # chair_num
            "covered": sum(self.covered),  # safe_cover_score
            "truth": len(self.covered),  # safe_cover_num
            "lured": sum(self.lured),  # hallu_cover_score
            "lures": len(self.lured),  # hallu_cover_num
            "clean": int(not self.wrong),  # non_hallu_score
            "answers": 1,  # non_hallu_num
        }


class DiscriminativeItem(BaseModel):
    """How one question was answered."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: int
    """Number of the question."""
    kind: str
    """existence, state, number, action or relation."""
    label: Answer
    """What is true."""
    predicted: Answer | None
    """What was answered; None: neither."""

    def counts(self) -> dict[str, int]:
        """What `discriminative_figures` sums, for all kinds and for its own (`KIND/...`)."""
        own = {
            "questions": 1,
            "answered": int(self.predicted is not None),
            "correct": int(self.predicted == self.label),
            "no": int(self.label == "no"),
            "said_no": int(self.predicted == "no"),
            "right_no": int(self.predicted == self.label == "no"),
        }
        groups = ["", f"{self.kind}/", *(["attribute/"] if self.kind in ATTRIBUTES else [])]
        return {f"{group}{name}": value for group in groups for name, value in own.items()}


ATTRIBUTES = ("state", "number", "action")
KINDS = ("existence", "attribute", *ATTRIBUTES, "relation")
_KIND_OF_TYPE = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}


ItemT = TypeVar("ItemT", GenerativeItem, DiscriminativeItem)


class AmberResult(BaseModel, Generic[ItemT]):
    """Metrics, the authors' rounding of them, and the row of every answer."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    metrics: dict[str, float]
    """Percentages."""
    printed: dict[str, Any]
    """What the released script prints for the same counts."""
    items: tuple[ItemT, ...]
    """One per answer, in the order given."""


def load_amber(folder: Path) -> Amber:
    """Read annotations.json, relation.json and safe_words.txt.

    Raises:
        MissingArtefact: if one is missing.
        DataError: if one cannot be read.
    """
    associations, safe_words = load_words(folder)
    return Amber(_load_annotations(folder / "annotations.json"), associations, safe_words)


def load_words(folder: Path) -> tuple[dict[str, list[str]], frozenset[str]]:
    """The associations of relation.json and the words of safe_words.txt; raises as `load_amber`."""
    with _reading(folder):
        associations = json.loads((folder / "relation.json").read_text(encoding="utf-8"))
        safe = (folder / "safe_words.txt").read_text(encoding="utf-8").split("\n")
        return associations, frozenset(word.strip() for word in safe if word.strip())


def read_questions(queries: Path, annotations: Path, kind: Literal["generative", "discriminative"]) -> list[Question]:
    """The questions of a query file, each with its annotation.

    Raises:
        MissingArtefact: if a file is missing.
        DataError: if one cannot be read, or a question has no annotation, one of the other kind, or comes twice.
    """
    known = _load_annotations(annotations)
    with _reading(queries.parent):
        rows = json.loads(queries.read_text(encoding="utf-8"))
        numbers = [row["id"] for row in rows]
        strange = [n for n in numbers if n not in known or (known[n].type == "generative") != (kind == "generative")]
        if strange or len(set(numbers)) < len(numbers):
            raise ValueError(f"questions {strange[:5]} have no {kind} annotation, or questions come twice")
        return [Question(row["image"], row["query"], known[row["id"]].model_dump(mode="json")) for row in rows]


def _load_annotations(path: Path) -> dict[int, Annotation]:
    with _reading(path.parent):
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row["id"]: Annotation.model_validate(row) for row in rows}


def _reading(folder: Path) -> AbstractContextManager[None]:
    return reading("AMBER", folder, missing="name the folder with annotations.json, relation.json and safe_words.txt")


def generative(
    answers: Sequence[tuple[int, str]], amber: Amber, read: NounReader, similar: Similarity = same_word
) -> AmberResult[GenerativeItem]:
    """CHAIR, Cover, Hal and Cog of descriptions, pooled over images.

    Args:
        answers: (number of the question, description).
        amber: the annotation files.
        read: finds the nouns of a text.
        similar: whether two nouns count as the same thing.

    Raises:
        DataError: if a number is unknown, is not of a generative question, or comes twice, or there is no answer.
    """
    vocabulary = amber.vocabulary
    items = tuple(
        _describe(text, annotation, amber, [noun for noun in read(text) if noun in vocabulary], similar)
        for text, annotation in _annotated(answers, amber, "generative")
    )
    sums = total(item.counts() for item in items)
    repeats = 100 * sum(item.long for item in items) / len(items)
    return AmberResult[GenerativeItem](
        metrics=generative_figures(sums), printed=_printed_generative(sums, repeats), items=items
    )


def generative_figures(sums: Sums) -> dict[str, Any]:
    """chair, cover, hal and cog in percent from sums of `GenerativeItem.counts`."""
    return {
        "chair": percent(sums["wrong"], sums["nouns"]),
        "cover": percent(sums["covered"], sums["truth"]),
        "hal": percent(sums["answers"] - sums["clean"], sums["answers"]),
        "cog": percent(sums["lured"], sums["lures"]),
    }


def discriminative(
    answers: Sequence[tuple[int, str]], amber: Amber, *, as_released: bool = False
) -> AmberResult[DiscriminativeItem]:
    """Accuracy, precision, recall and F1 of yes-no questions, overall and by kind; no is the positive class.

    Args:
        answers: (number of the question, answer).
        amber: the annotation files.
        as_released: only the exact strings `Yes` and `No` are answers.

    Raises:
        DataError: as `generative`.
    """
    interpret = read_answer_as_amber if as_released else read_answer
    items = tuple(
        DiscriminativeItem(
            id=annotation.id,
            kind=_KIND_OF_TYPE[annotation.type],
            label=annotation.truth,  # pyright: ignore[reportArgumentType]
            predicted=interpret(text),
        )
        for text, annotation in _annotated(answers, amber, "discriminative")
    )
    sums = total(item.counts() for item in items)
    return AmberResult[DiscriminativeItem](
        metrics=discriminative_figures(sums), printed=_printed_discriminative(sums), items=items
    )


def discriminative_figures(sums: Sums) -> dict[str, Any]:
    """accuracy, precision, recall, f1 and answered in percent, then the same as `KIND/...` for every kind there is.

    The positive class of precision and recall is no. What a reader asks is beside them: `false_yes`, the share of
    questions about what is not so that were answered yes, and `true_yes`, that of questions about what is so.
    """
    figures: dict[str, Any] = {}
    for group in ("", *(f"{kind}/" for kind in KINDS)):
        if f"{group}questions" not in sums:
            continue
        right_no, said_no, no = (sums[f"{group}{name}"] for name in ("right_no", "said_no", "no"))
        right_yes = sums[f"{group}correct"] - right_no
        said_yes = sums[f"{group}answered"] - said_no
        precision, recall, f1 = detection(right_no, said_no, no)
        figures |= {
            f"{group}accuracy": percent(sums[f"{group}correct"], sums[f"{group}questions"]),
            f"{group}precision": precision,
            f"{group}recall": recall,
            f"{group}f1": f1,
            f"{group}answered": percent(sums[f"{group}answered"], sums[f"{group}questions"]),
            f"{group}false_yes": percent(said_yes - right_yes, no),
            f"{group}true_yes": percent(right_yes, sums[f"{group}questions"] - no),
        }
    return figures


def _annotated(answers: Sequence[tuple[int, str]], amber: Amber, wanted: str) -> list[tuple[str, Annotation]]:
    numbers = [number for number, _ in answers]
    unknown = [number for number in numbers if number not in amber.annotations]
    repeated = len(numbers) - len(set(numbers))
    if not answers or unknown or repeated:
        raise DataError(
            "The answers do not fit AMBER's annotations",
            seen=f"{len(answers)} answers, unknown questions {unknown[:5]}, {repeated} answered twice",
            remedy="answer AMBER's own queries, each once",
        )
    rows = [(text, amber.annotations[number]) for number, text in answers]
    others = [row.id for _, row in rows if row.type == "generative" and wanted != "generative"]
    others += [row.id for _, row in rows if row.type != "generative" and row.type not in _KIND_OF_TYPE]
    others += [row.id for _, row in rows if row.type != "generative" and wanted == "generative"]
    if others:
        raise DataError(
            f"These questions of AMBER are not {wanted}",
            seen=", ".join(map(str, others[:5])),
            remedy="score descriptions and yes-no answers apart",
        )
    return rows


def _describe(
    text: str, annotation: Annotation, amber: Amber, nouns: Sequence[str], similar: Similarity
) -> GenerativeItem:
    truth = list(annotation.truth)
    there, made_up = _with_associates(truth, amber), _with_associates(annotation.hallu, amber)
    covered, lured = [False] * len(truth), [False] * len(annotation.hallu)
    wrong = []
    for noun in nouns:
        if noun in amber.safe_words:
            continue
        if (place := _first(there, noun, same_word)) is not None:
            covered[place] = True
            continue
        # A noun may mark two made-up words: the one that it is, and the first that it is similar to.
        for rule in (same_word, similar):
            if (place := _first(made_up, noun, rule)) is not None:
                lured[place] = True
        if (place := _first(there, noun, similar)) is not None:
            covered[place] = True
        else:
            wrong.append(noun)
    return GenerativeItem(
        id=annotation.id,
        nouns=tuple(nouns),
        wrong=tuple(wrong),
        covered=tuple(covered),
        lured=tuple(lured),
        long=len(text) >= _LONG_ANSWER,
    )


def _with_associates(words: Sequence[str], amber: Amber) -> list[tuple[str, int]]:
    """(word that counts, place of the word that it counts for): associates of all words first, then the words."""
    associates = [(other, place) for place, word in enumerate(words) for other in amber.associations.get(word, ())]
    return associates + [(word, place) for place, word in enumerate(words)]


def _first(words: Sequence[tuple[str, int]], noun: str, rule: Similarity) -> int | None:
    return next((place for word, place in words if rule(noun, word)), None)


def _printed_generative(sums: Mapping[str, int], repeats: float) -> dict[str, Any]:
    def share(part: str, whole: str) -> float:
        return sums[part] / (_START + sums[whole]) * 100

    return {
        "CHAIR": round(share("wrong", "nouns"), 1),
        "Cover": round(share("covered", "truth"), 1),
        "Hal": round(100 - share("clean", "answers"), 1),
        "Cog": round(share("lured", "lures"), 1),
        "repeat_ratio": f"{round(repeats, 2)}%",
    }


def _printed_discriminative(sums: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Rounded as released: F1 from the rounded precision and recall."""
    tables = {}
    for title, group in (("all", ""), *((kind, f"{kind}/") for kind in KINDS)):
        if f"{group}questions" not in sums:
            continue
        starts = _START * (len(ATTRIBUTES) if group == "attribute/" else 1)
        accuracy = round(sums[f"{group}correct"] / (starts + sums[f"{group}questions"]) * 100, 1)
        precision = round(sums[f"{group}right_no"] / (starts + sums[f"{group}said_no"]) * 100, 1)
        recall = round(sums[f"{group}right_no"] / (starts + sums[f"{group}no"]) * 100, 1)
        guard = 0.001 if group == "existence/" else 0.0001
        f1 = round(2 * (precision / 100) * (recall / 100) / ((precision / 100) + (recall / 100) + guard) * 100, 1)
        tables[title] = {"Accuracy": accuracy, "Precision": precision, "Recall": recall, "F1": f1}
    return tables
