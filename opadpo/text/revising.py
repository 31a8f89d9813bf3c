"""From decisions about the sentences of a response to the records of a revision and its text.

`opadpo.records.assemble` only replaces spans, so everything about joining is settled here: which white space goes
with a deleted sentence, and what an added one brings along.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from opadpo.records import ErrorType, SentenceReview, assemble
from opadpo.text.sentences import Span, split_sentences
from opadpo.text.worddiff import changed_share, is_unspaced

__all__ = ["Addition", "Decision", "changed_share", "compose", "core_span"]


class Decision(NamedTuple):
    """What is to be done with one sentence of a response."""

    kind: Literal["kept", "edited", "deleted"] = "kept"
    """What."""
    revised: str = ""
    """The new sentence if `edited`, else unused; white space around it is dropped."""
    score: int = 4
    """4 if kept, else 1 to 3."""
    error_type: ErrorType = "correct"
    """Why it is changed."""
    objects: Sequence[str] = ()
    """Objects in error, each "wrong -> right"."""
    reason: str = ""
    """One line of explanation."""


class Addition(NamedTuple):
    """A sentence that the response lacks."""

    after: int
    """How many sentences of the response come before it; 0 puts it at the start."""
    text: str
    """The sentence; white space around it is dropped."""
    reason: str = ""
    """One line of explanation."""


def compose(
    response: str,
    decisions: Sequence[Decision],
    additions: Sequence[Addition] = (),
    *,
    minimal_share: float = 1.0,
    language: str = "en",
    spans: Sequence[Span] | None = None,
) -> tuple[list[SentenceReview], str]:
    """Records in reading order, and the revised text; `assemble(response, records)` is that text.

    `decisions` has one entry per sentence: those at `spans`, else those of `split_sentences(response)`. Of the white
    space around a run of deleted sentences exactly one stretch stays: the last one, unless only an earlier one holds
    a line break (or only an earlier one holds anything). At the start of the text the white space after them goes; at
    its end, that before them. If nothing is left, neither is white space. An edited sentence is flagged `not_minimal`
    if more than `minimal_share` of its words are touched.

    Raises:
        ValueError: if the number of decisions is not that of the sentences, an edited sentence is empty or unchanged,
            an added one is empty or after a sentence that does not exist, or a score does not fit its kind.
    """
    spans = split_sentences(response, language) if spans is None else spans
    if len(decisions) != len(spans):
        raise ValueError(f"{len(decisions)} decisions for {len(spans)} sentences")
    taken = _taken_spans(response, spans, [decision.kind != "deleted" for decision in decisions])
    records = [
        _reviewed(response, index, span, decision, minimal_share)
        for index, (span, decision) in enumerate(zip(taken, decisions, strict=True))
    ]
    records += _added(records, additions)
    records.sort(key=lambda record: (record.start, record.end))
    return records, assemble(response, records)


def core_span(record: SentenceReview) -> Span:
    """The sentence's own characters in the response, without the separator that a deleted one takes along."""
    before = len(record.original) - len(record.original.lstrip())
    return Span(record.start + before, record.start + max(before, len(record.original.rstrip())))


def _taken_spans(response: str, spans: Sequence[Span], survives: Sequence[bool]) -> list[Span]:
    """The span of each sentence; deleted ones take the white space along that would be one too many."""
    taken = list(spans)
    survivors = [index for index, alive in enumerate(survives) if alive]
    if not spans:
        return []
    if not survivors:
        edges = [0, *[span.end for span in spans[:-1]], len(response)]
        return [Span(*edge) for edge in pairwise(edges)]
    first, last = survivors[0], survivors[-1]
    for index in range(first):
        taken[index] = Span(spans[index].start, spans[index + 1].start)
    for index in range(last + 1, len(spans)):
        taken[index] = Span(spans[index - 1].end, spans[index].end)
    for left, right in pairwise(survivors):
        gaps = [response[spans[index].end : spans[index + 1].start] for index in range(left, right)]
        stays = left + max(range(len(gaps)), key=lambda k: (_breaks(gaps[k]), gaps[k] != "", k))
        for index in range(left + 1, right):
            if index <= stays:
                taken[index] = Span(spans[index - 1].end, spans[index].end)
            else:
                taken[index] = Span(spans[index].start, spans[index + 1].start)
    return taken


def _breaks(gap: str) -> bool:
    return gap != "" and gap.splitlines() != [gap]


def _reviewed(response: str, index: int, span: Span, decision: Decision, minimal_share: float) -> SentenceReview:
    original = response[span.start : span.end]
    revised = {"kept": original, "deleted": "", "edited": decision.revised.strip()}[decision.kind]
    if decision.kind == "edited" and revised in ("", original):
        raise ValueError(f"sentence {index} is edited, but its new text is {'empty' if not revised else 'unchanged'}")
    return SentenceReview(
        index=index,
        kind=decision.kind,
        start=span.start,
        end=span.end,
        original=original,
        revised=revised,
        score=decision.score,
        error_type=decision.error_type,
        objects=list(decision.objects),
        reason=decision.reason,
        not_minimal=decision.kind == "edited" and changed_share(original, revised) > minimal_share,
    )


def _added(reviewed: Sequence[SentenceReview], additions: Sequence[Addition]) -> list[SentenceReview]:
    """Records of the additions: right after the last surviving sentence before them, else before the first one."""
    survivors = [record for record in reviewed if record.kind != "deleted"]
    groups: dict[int, list[Addition]] = {}
    for addition in sorted(additions, key=lambda a: a.after):
        if not addition.text.strip() or not 0 <= addition.after <= len(reviewed):
            raise ValueError(f"cannot add {addition.text!r} after sentence {addition.after} of {len(reviewed)}")
        before = sum(record.index < addition.after for record in survivors)
        groups.setdefault(before, []).append(addition)
    records: list[SentenceReview] = []
    for before, group in groups.items():
        left = survivors[before - 1] if before else None
        right = survivors[before] if before < len(survivors) else None
        place = left.end if left else right.start if right else 0
        for addition, text in zip(group, _joined([a.text.strip() for a in group], left, right, reviewed), strict=True):
            records.append(
                SentenceReview(
                    index=max(addition.after - 1, 0),
                    kind="added",
                    start=place,
                    end=place,
                    original="",
                    revised=text,
                    reason=addition.reason,
                )
            )
    return records


def _joined(
    texts: list[str], left: SentenceReview | None, right: SentenceReview | None, reviewed: Sequence[SentenceReview]
) -> list[str]:
    """Added sentences between two surviving ones, each with the separators that it brings along."""
    chain = [left.revised if left else "", *texts]
    joined = [(_separator(a, b) if a else "") + b for a, b in pairwise(chain)]
    if right is None:
        return joined
    if left is not None:
        between = sum(len(record.original) for record in reviewed[left.index + 1 : right.index])
        if right.start - left.end > between:
            return joined
    # No white space of the response's own follows.
    joined[-1] += _separator(texts[-1], right.revised)
    return joined


def _separator(left: str, right: str) -> str:
    """What joins two sentences: a space, or nothing between two that are written without."""
    return "" if is_unspaced(left[-1]) and is_unspaced(right[0]) else " "
