"""From what a page sends about the sentences of a record to the records of a revision and its text."""

import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from opadpo.errors import UserError
from opadpo.records import ErrorType, Revision, SentenceKind, SentenceReview
from opadpo.text.revising import Addition, Decision, compose, core_span
from opadpo.text.sentences import split_sentences

MAX_TEXT = 100_000
MAX_NOTE = 4_000
MAX_SENTENCES = 2_000
MAX_OBJECTS = 50


def _no_nul(text: str) -> str:
    # PostgreSQL cannot hold it, and no reviewer types it.
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_no_nul)]
Thing = Annotated[str, StringConstraints(max_length=500), AfterValidator(_no_nul)]
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE), AfterValidator(_no_nul)]


class SentenceEdit(BaseModel):
    """A sentence as a page sends it: the fields of a `SentenceReview`, complete or not, and the page's own mark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    """As in the record that the page was given."""
    index: int = Field(default=0, ge=0, le=MAX_SENTENCES)
    """Position among the sentences of the response; of no meaning for an added one."""
    kind: SentenceKind
    """kept, edited, deleted or added."""
    start: int = 0
    """Not read: the server knows the spans."""
    end: int = 0
    """Not read."""
    original: Text = ""
    """Not read: the server knows the response."""
    revised: Text = ""
    """The text after revision; read of edited and added sentences."""
    score: int | None = Field(default=None, ge=1, le=4)
    """1 to 4; None for an added one, or in a draft."""
    error_type: ErrorType = "correct"
    """Why it is changed."""
    objects: list[Thing] = Field(default=[], max_length=MAX_OBJECTS)
    """Objects in error."""
    reason: Note = ""
    """One line of explanation."""
    not_minimal: bool = False
    """Not read."""
    checked: bool = False
    """The reviewer has looked at it; part of drafts only."""


class SentenceProblem(UserError):
    """A sentence that was sent is inconsistent; `position` is its place in the list, None for the list itself."""

    def __init__(self, position: int | None, what: str, seen: object, remedy: str) -> None:
        """`what` is a sentence about it."""
        self.position = position
        super().__init__(what, seen=seen, remedy=remedy)


def starting_point(response: str, current: Revision | None) -> list[SentenceReview]:
    """What an edit starts from: the sentences of the revision in force, else those of the response, all kept."""
    if current and (current.sentences or not response.strip()):
        return list(current.sentences)
    return compose(response, [Decision()] * len(split_sentences(response)))[0]


def as_edit(record: SentenceReview) -> SentenceEdit:
    """A record as a page would send it, unchanged."""
    return SentenceEdit(**record.model_dump())


def revised(
    response: str, start: Sequence[SentenceReview], edits: Sequence[SentenceEdit]
) -> tuple[list[SentenceReview], str]:
    """Records and text of a revision that starts from the sentences `start`.

    Every sentence of the response must be among the edits once, in order; an added one stands where it goes in.

    Raises:
        SentenceProblem: for the first edit that is inconsistent.
    """
    spans = {record.index: core_span(record) for record in start if record.kind != "added"}
    decisions: list[Decision] = []
    additions: list[Addition] = []
    expected = sorted(spans)
    for position, edit in enumerate(edits):
        if edit.kind == "added":
            additions.append(_addition(position, edit, len(decisions)))
            continue
        if len(decisions) == len(expected) or edit.index != expected[len(decisions)]:
            raise _out_of_step(position, edit, expected, len(decisions))
        span = spans[edit.index]
        decisions.append(_decision(position, edit, response[span.start : span.end]))
    if len(decisions) < len(expected):
        raise SentenceProblem(
            None,
            "A sentence of the response is missing",
            f"sentence {expected[len(decisions)]} of {len(expected)}",
            "send every sentence; one that is to go has kind deleted",
        )
    return compose(response, decisions, additions, spans=[spans[index] for index in expected])


def _blank(text: str) -> bool:
    """True if nothing of it can be seen: spaces, controls, marks of direction or without width."""
    return all(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs") for character in text)


def _out_of_step(position: int, edit: SentenceEdit, expected: Sequence[int], done: int) -> SentenceProblem:
    due = f"sentence {expected[done]}" if done < len(expected) else "no further sentence"
    return SentenceProblem(
        position,
        "The sentences are not those of the response, in its order",
        f"index {edit.index} where {due} is due",
        "open the record again",
    )


def _addition(position: int, edit: SentenceEdit, after: int) -> Addition:
    if _blank(edit.revised):
        raise SentenceProblem(position, "An added sentence is empty", repr(edit.revised), "write it, or remove it")
    if edit.score is not None:
        raise SentenceProblem(
            position, "An added sentence has no score", edit.score, "leave its score empty: the model did not say it"
        )
    return Addition(after, edit.revised, edit.reason)


def _decision(position: int, edit: SentenceEdit, original: str) -> Decision:
    assert edit.kind != "added"
    if edit.kind == "kept" and edit.score not in (4, None):
        raise SentenceProblem(position, "A kept sentence has score 4", edit.score, "score it 4, or change its text")
    if edit.kind == "kept":
        if edit.revised not in ("", original):
            raise SentenceProblem(position, "A kept sentence is unchanged", edit.revised[:80], "send it as edited")
        return Decision("kept", "", 4, edit.error_type, edit.objects, edit.reason)
    if edit.score is None or edit.score == 4:
        raise SentenceProblem(
            position, "A changed sentence has a score from 1 to 3", edit.score, "say how wrong it was: 1, 2 or 3"
        )
    if edit.kind == "edited" and (_blank(edit.revised) or edit.revised.strip() == original):
        empty = _blank(edit.revised)
        raise SentenceProblem(
            position,
            f"An edited sentence is {'empty' if empty else 'unchanged'}",
            edit.revised[:80],
            "send it as deleted" if empty else "send it as kept, with score 4",
        )
    if edit.kind == "deleted" and edit.revised:
        raise SentenceProblem(position, "A deleted sentence has no text", edit.revised[:80], "send it as edited")
    return Decision(edit.kind, edit.revised, edit.score, edit.error_type, edit.objects, edit.reason)
