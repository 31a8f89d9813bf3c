"""Single records and tables as HTML."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, singledispatch
from pathlib import Path
from typing import Any

from opadpo.images import data_uri, open_rgb
from opadpo.manifest import in_words
from opadpo.records import PreferenceExample, Revision, Rollout, WeightSpan
from opadpo.steps.result import StepResult
from opadpo.steps.status import WorkspaceStatus
from opadpo.text.worddiff import word_diff

SIDE = 192
"""Longest side of a picture, pixels: twice what it takes on the page."""

SMALL = 128
"""Pictures up to this side are shown with their pixels."""


@dataclass(frozen=True)
class Html:
    """A piece of HTML that notebooks show, with a line of text for those who cannot."""

    body: str
    """Without its style sheet."""
    text: str = ""
    """The same in words."""

    @property
    def markup(self) -> str:
        """Everything that it needs, the style sheet included."""
        return f"<style>{_style_sheet()}</style>{self.body}"

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.text or "a piece of HTML"

    def __add__(self, other: "Html") -> "Html":
        """Both, one below the other."""
        return Html(self.body + other.body, f"{self.text}\n{other.text}".strip())


@dataclass(frozen=True)
class Picture:
    """A small picture."""

    uri: str
    """The pixels, as a data URI."""
    small: bool = False
    """Whether the pixels are to be seen as such."""
    alt: str = "the image"
    """What it shows, for those who cannot see it."""


def picture(path: Path) -> Picture | None:
    """An image file as a small picture; None where it is not there any more."""
    if not path.exists():
        return None
    image = open_rgb(path)
    return Picture(data_uri(image, SIDE), max(image.size) <= SMALL)


@singledispatch
def show(record: Any, **_: Any) -> Html:
    """A record as HTML: a rollout, a revision, a preference example, a step's result, a workspace's status.

    With `image` (a `Picture`) beside it and, for rollouts and revisions, the `question` above it.
    """
    raise TypeError(f"nothing is known about showing {type(record).__name__}")


@show.register
def _(record: Rollout, *, question: str = "", image: Picture | None = None) -> Html:
    return piece("rollout", record.response, record=record, question=question, image=image)


@show.register
def _(record: Revision, *, question: str = "", image: Picture | None = None, description: bool = False) -> Html:
    sentences = [(each, word_diff(each.original, each.revised)) for each in record.sentences]
    values = {"record": record, "sentences": sentences, "question": question, "image": image}
    return piece("revision", record.text, **values, description=description)


@show.register
def _(record: PreferenceExample, *, image: Picture | None = None) -> Html:
    generated = list(_weighted(record.generated, record.generated_spans))
    revised = list(_weighted(record.revised, record.revised_spans))
    text = f"{record.generated}\n-> {record.revised}"
    return piece("example", text, record=record, image=image, generated=generated, revised=revised)


@show.register
def _(record: StepResult) -> Html:
    return piece("step", f"{record.step}: {record.status}", result=record, counts=_told(record.counts))


@show.register
def _(record: WorkspaceStatus) -> Html:
    rows = [
        (
            each.state,
            each.artefact,
            ", ".join(_told(each.counts)),
            each.reasons,
        )
        for each in record.artefacts
    ]
    following = (record.next or "").replace(record.workspace, "WORKSPACE")
    return piece("status", f"{len(rows)} artefacts", rows=rows, following=following)


def show_figure(uri: str, alt: str) -> Html:
    """A figure, given as a data URI, that goes by the page's light or dark."""
    return piece("figure", alt, kind="figure", uri=uri, alt=alt)


def table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Rows with the same keys as a table; numbers to the right, `Picture` values as pictures."""
    names = list(rows[0]) if rows else []
    columns = [(name, all(isinstance(row[name], int | float) for row in rows)) for name in names]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    return piece("table", f"{len(rows)} rows", columns=columns, rows=cells)


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


def error_box(what: str, *, seen: object = None, remedy: str | None = None) -> Html:
    """What is wrong, what was seen, and what to do."""
    text = "\n".join([what, *([f"seen: {seen}"] if seen is not None else []), *([remedy] if remedy else [])])
    return piece("error", text, kind="err", what=what, seen=seen, remedy=remedy)


def note(message: str) -> Html:
    """Something that a reader should know."""
    return piece("note", message, kind="note", message=message)


def piece(name: str, text: str, *, kind: str = "", **values: Any) -> Html:
    """A macro of the templates with its values, in a box that brings its style sheet along."""
    inner = getattr(_templates(), name)(**values)
    return Html(f'<div class="opadpo {kind}">{inner}</div>', text)


@cache
def _style_sheet() -> str:
    """The style sheet in one line, without its comments: every cell that shows something has a copy."""
    tokens, pieces = ((Path(__file__).parent / name).read_text("utf-8") for name in ("tokens.css", "pieces.css"))
    text = tokens.replace(":root", ".opadpo") + pieces  # the page around a cell has colours of its own
    return " ".join(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split())


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("pieces.html.j2").module


def _told(counts: Mapping[str, int]) -> list[str]:
    """Counts worth telling, in words."""
    told: list[str] = []
    groups: dict[str, list[str]] = {}
    for name, number in counts.items():
        group, _, what = name.rpartition("/")
        if not number or "dropped/" in name:
            continue
        if group:
            groups.setdefault(group, []).append(in_words(what, number))
        else:
            told.append(in_words(what, number))
    return [*told, *(f"{group}: {', '.join(words)}" for group, words in groups.items())]


def _weighted(text: str, spans: Sequence[WeightSpan]) -> Iterator[tuple[str, int, str]]:
    """(text, shade, weight) of a text's pieces; shade 0 where the weight is 1."""
    done = 0
    for span in sorted(spans, key=lambda span: span.start):
        if span.start > done:
            yield text[done : span.start], 0, "1"
        weight = span.score_weight
        shade = 1 if weight >= 2.5 else 2 if weight >= 2 else 3 if weight > 1 else 0
        yield text[max(span.start, done) : span.end], shade, f"{weight:g}"
        done = max(span.end, done)
    if done < len(text):
        yield text[done:], 0, "1"
