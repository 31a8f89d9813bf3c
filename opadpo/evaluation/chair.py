"""CHAIR on COCO's annotations (arXiv 1809.02156): objects that captions name and the images do not hold.

The truth of an image is what its instances are of and what people's captions of it name, as in the paper.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from opadpo.errors import DataError
from opadpo.evaluation.benchmark import Question
from opadpo.evaluation.coco_words import CATEGORY_WORDS, NOT_THE_THING
from opadpo.evaluation.figures import Sums, percent, total
from opadpo.evaluation.files import json_lines, reading
from opadpo.hashing import bytes_digest

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")

Truth = Mapping[int, frozenset[str]]
"""COCO's id of an image -> its categories."""


class ChairItem(BaseModel):
    """How one caption did."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    image_id: int
    """COCO's id."""
    mentioned: tuple[tuple[str, str], ...]
    """(word, category) of every mention, repeats kept."""
    hallucinated: tuple[tuple[str, str], ...]
    """Those whose category is not in the image."""
    covered: tuple[str, ...]
    """Categories of the image that are named."""
    missed: tuple[str, ...]
    """Categories of the image that are not."""
    words: int
    """Length of the caption."""

    def counts(self) -> dict[str, int]:
        """What `chair_figures` sums."""
        return {
            "mentions": len(self.mentioned),
            "wrong": len(self.hallucinated),
            "captions": 1,
            "bad_captions": int(bool(self.hallucinated)),
            "covered": len(self.covered),
            "truth": len(self.covered) + len(self.missed),
            "words": self.words,
        }


class ChairResult(BaseModel):
    """Metrics, and the row of every caption."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    metrics: dict[str, float]
    """chair_i, chair_s and recall in percent; length in words."""
    items: tuple[ChairItem, ...]
    """One per caption, in the order given."""


def chair_figures(sums: Sums) -> dict[str, Any]:
    """Metrics from sums of `ChairItem.counts`."""
    return {
        "chair_i": percent(sums["wrong"], sums["mentions"]),
        "chair_s": percent(sums["bad_captions"], sums["captions"]),
        "recall": percent(sums["covered"], sums["truth"]),
        "length": percent(sums["words"], sums["captions"]) / 100,
    }


class CategoryReader:
    """Finds the words of categories in a text: the longest phrase first, in the singular or the plural."""

    def __init__(self, words: Mapping[str, Sequence[str]] = CATEGORY_WORDS, passed: Iterable[str] = NOT_THE_THING):
        """`words`: category -> other words for it; `passed`: phrases in which they name something else."""
        self._phrases: dict[tuple[str, ...], str | None] = {tuple(phrase.split()): None for phrase in passed}
        for category, others in words.items():
            for phrase in (category, *others):
                self._phrases[tuple(phrase.split())] = category
        self._longest = max(map(len, self._phrases))

    def read(self, text: str) -> list[tuple[str, str]]:
        """(word as listed, category) of every mention, in order."""
        words = _WORD.findall(text.lower().replace("’", "'").replace("-", " "))
        found: list[tuple[str, str]] = []
        place = 0
        while place < len(words):
            for size in range(min(self._longest, len(words) - place), 0, -1):
                piece = words[place : place + size]
                phrase = next(
                    (p for p in ((*piece[:-1], form) for form in _forms(piece[-1])) if p in self._phrases), None
                )
                if phrase is not None:
                    category = self._phrases[phrase]
                    if category is not None:
                        found.append((" ".join(phrase), category))
                    place += size
                    break
            else:
                place += 1
        return found


@lru_cache(maxsize=100_000)
def _forms(word: str) -> tuple[str, ...]:
    """The word as it stands, then its singulars."""
    from lemminflect import getLemma

    return tuple(dict.fromkeys((word, *getLemma(word, upos="NOUN"))))


def score(captions: Sequence[tuple[int, str]], truth: Truth, reader: CategoryReader | None = None) -> ChairResult:
    """CHAIR_i, CHAIR_s, recall and length of captions of COCO images.

    Args:
        captions: (COCO's id of the image, caption).
        truth: what is in the images; see `load_truth`.
        reader: finds categories in a text.

    Raises:
        DataError: if there is no caption, an image is unknown, or one is captioned twice.
    """
    numbers = [number for number, _ in captions]
    unknown = [number for number in numbers if number not in truth]
    if not captions or unknown or len(set(numbers)) < len(numbers):
        raise DataError(
            "The captions do not fit COCO's annotations",
            seen=f"{len(captions)} captions, unknown images {unknown[:5]},"
            f" {len(numbers) - len(set(numbers))} captioned twice",
            remedy="caption images of the annotated split, each once",
        )
    reader = reader or CategoryReader()
    items = tuple(_score(number, text, truth[number], reader) for number, text in captions)
    return ChairResult(metrics=chair_figures(total(item.counts() for item in items)), items=items)


def load_truth(
    folder: Path, *, instances: str = "instances_val2014.json", captions: str = "captions_val2014.json"
) -> Truth:
    """Categories of every image from COCO's annotation files.

    Raises:
        MissingArtefact: if a file is missing.
        DataError: if one cannot be read.
    """
    with _reading(folder):
        boxes = json.loads((folder / instances).read_text(encoding="utf-8"))
        texts = json.loads((folder / captions).read_text(encoding="utf-8"))
        return _truth(boxes, texts, {row["id"] for row in boxes["images"]})


def read_questions(instances: Path, captions: Path, count: int, question: str) -> list[Question]:
    """One question about each of `count` images, with what is in them; raises as `load_truth`.

    The images are those whose ids have the smallest SHA-256: an arbitrary choice, the same for everybody, and a larger
    one holds every smaller one. Images without an annotated instance are left out: nothing could be covered there.
    """
    with _reading(instances.parent):
        boxes = json.loads(instances.read_text(encoding="utf-8"))
        texts = json.loads(captions.read_text(encoding="utf-8"))
        annotated = {row["image_id"] for row in boxes["annotations"]}
        images = {row["id"]: row["file_name"] for row in boxes["images"] if row["id"] in annotated}
        chosen = sorted(images, key=lambda number: bytes_digest(str(number).encode()))[:count]
        truth = _truth(boxes, texts, set(chosen))
    return [
        Question(images[number], question, {"id": number, "truth": sorted(truth[number])}) for number in sorted(chosen)
    ]


def read_objhal_questions(instances: Path, captions: Path, questions: Path) -> list[Question]:
    """Object HalBench's questions about images of COCO val2014, with what is in them; raises as `load_truth`.

    The file has a JSON object per line; its `image_id` is COCO's. The image in it is left alone.
    """
    with _reading(instances.parent):
        boxes = json.loads(instances.read_text(encoding="utf-8"))
        texts = json.loads(captions.read_text(encoding="utf-8"))
        rows = json_lines(questions)
        numbers = [int(row["image_id"]) for row in rows]
        names = {row["id"]: row["file_name"] for row in boxes["images"]}
        if unknown := [number for number in numbers if number not in names]:
            raise ValueError(f"there are questions about images that it does not hold: {unknown[:5]}")
        truth = _truth(boxes, texts, set(numbers))
        return [
            Question(names[number], row["question"], {"id": line, "truth": sorted(truth[number])})
            for line, (number, row) in enumerate(zip(numbers, rows, strict=True), start=1)
        ]


def _truth(boxes: Mapping[str, Any], texts: Mapping[str, Any], wanted: Set[int]) -> Truth:
    """What is in the wanted images: categories of their boxes, and those that people's captions name."""
    reader = CategoryReader()
    found: dict[int, set[str]] = {number: set() for number in wanted}
    names = {row["id"]: row["name"] for row in boxes["categories"]}
    for row in boxes["annotations"]:
        if row["image_id"] in wanted:
            found[row["image_id"]].add(names[row["category_id"]])
    for row in texts["annotations"]:
        if row["image_id"] in wanted:
            found[row["image_id"]].update(category for _, category in reader.read(row["caption"]))
    return {number: frozenset(categories) for number, categories in found.items()}


def _reading(folder: Path) -> AbstractContextManager[None]:
    remedy = "unpack annotations_trainval2014.zip of cocodataset.org and name its folder"
    return reading("COCO's annotations", folder, missing=remedy)


def _score(number: int, text: str, there: frozenset[str], reader: CategoryReader) -> ChairItem:
    mentioned = tuple(reader.read(text))
    named = {category for _, category in mentioned}
    return ChairItem(
        image_id=number,
        mentioned=mentioned,
        hallucinated=tuple(mention for mention in mentioned if mention[1] not in there),
        covered=tuple(sorted(there & named)),
        missed=tuple(sorted(there - named)),
        words=len(text.split()),
    )
