"""Captions that got better and captions that got worse, with what each names that is not there."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opadpo.images import data_uri, open_rgb
from opadpo.records import Caption, Prompt
from opadpo.steps.reporting.facts import Table
from opadpo.steps.sets import folder_of_set, prompts_of_set
from opadpo.tables import read_records
from opadpo.text.worddiff import Change, word_diff
from opadpo.workspace import Workspace

SIDE = 320
"""Longest side of an example's image, pixels."""


class Told(NamedTuple):
    """A caption and what was found in it."""

    model: str
    """Who wrote it."""
    text: str
    """The caption."""
    made_up: list[str]
    """Objects in it that are not in the image."""
    grounded: list[str]
    """Objects in it that are."""
    changes: list[Change]
    """How the other caption became this one; of the first caption, itself."""


class Example(NamedTuple):
    """One image with the captions of two models."""

    prompt_id: str
    """Its prompt."""
    question: str
    """What was asked."""
    image: str
    """The picture as a data URI; empty where the file is gone."""
    before: Told
    """The base's caption."""
    after: Told
    """The aligned model's."""


class Examples(NamedTuple):
    """How the captions of two models differ."""

    improved: int
    """Captions with fewer objects that are not there."""
    worse: int
    """Captions with more of them."""
    less_told: int
    """Captions with fewer of the objects that are there."""
    compared: int
    """Captions of both."""
    best: list[Example]
    """Of the improved ones, those with the largest difference."""
    worst: list[Example]
    """Of those that got worse, the same."""


def examples(workspace: Workspace, table: Table, before: str, after: str, count: int = 4) -> Examples | None:
    """Examples of a benchmark whose items name what is made up; None where they do not, or a model was not scored."""
    first, second = table.evaluations.get(before), table.evaluations.get(after)
    if first is None or second is None or "hallucinated" not in first.items[0]:
        return None
    one, two = ({item["prompt_id"]: item for item in each.items} for each in (first, second))
    differences = {key: len(two[key]["hallucinated"]) - len(one[key]["hallucinated"]) for key in one if key in two}
    order = sorted(differences, key=lambda key: differences[key])
    improved = [key for key in order if differences[key] < 0]
    worse = [key for key in reversed(order) if differences[key] > 0]
    chosen = [*improved[:count], *worse[:count]]
    texts = [_texts(workspace, model, table.benchmark.prompt_set, chosen) for model in (before, after)]
    prompts = {p.prompt_id: p for p in prompts_of_set(workspace, table.benchmark.prompt_set) if p.prompt_id in chosen}
    folder = folder_of_set(workspace, table.benchmark.prompt_set)

    def shown(keys: Iterable[str]) -> list[Example]:
        return [
            _example(prompts[key], folder, (before, texts[0][key], one[key]), (after, texts[1][key], two[key]))
            for key in keys
            if key in prompts and all(key in each for each in texts)
        ]

    less_told = sum(len(two[key]["covered"]) < len(one[key]["covered"]) for key in differences)
    return Examples(
        len(improved), len(worse), less_told, len(differences), shown(improved[:count]), shown(worse[:count])
    )


def _texts(workspace: Workspace, model: str, prompt_set: str, wanted: list[str]) -> dict[str, str]:
    rows = read_records(workspace.captions(model, prompt_set), Caption)
    return {row.prompt_id: row.response for row in rows if row.prompt_id in wanted}


def _example(
    prompt: Prompt, folder: Path, before: tuple[str, str, Mapping[str, Any]], after: tuple[str, str, Mapping[str, Any]]
) -> Example:
    return Example(
        prompt.prompt_id,
        prompt.question,
        thumbnail(folder / prompt.image_file),
        _told(*before, before[1]),
        _told(*after, before[1]),
    )


def _told(model: str, text: str, item: Mapping[str, Any], other: str) -> Told:
    made_up = list(dict.fromkeys(item["hallucinated"]))
    grounded = [word for word in dict.fromkeys(item["mentioned"]) if word not in made_up]
    return Told(model, text, made_up, grounded, word_diff(other, text))


def thumbnail(path: Path) -> str:
    """A small JPEG of an image as a data URI; empty where there is no such file."""
    if not path.exists():
        return ""
    return data_uri(open_rgb(path), SIDE)
