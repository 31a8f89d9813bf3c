"""Reading the expert's answer: forgiving about form, strict about sense.

What can only mean one thing is taken so (a code fence, "3" for 3, "Image recognition error"). Whatever is missing,
repeated or contradicts itself becomes a problem that the expert is told of; nothing counts as correct by default.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, get_args

from opadpo.expert.instructions import shown
from opadpo.records import ErrorType
from opadpo.text.revising import Addition, Decision

_ACTIONS = {
    "keep": "kept",
    "kept": "kept",
    "unchanged": "kept",
    "rewrite": "edited",
    "rewritten": "edited",
    "edit": "edited",
    "edited": "edited",
    "delete": "deleted",
    "deleted": "deleted",
    "remove": "deleted",
    "removed": "deleted",
}
_ERROR_TYPES: dict[str, ErrorType] = {name: name for name in get_args(ErrorType)}
_NUMBER = re.compile(r"\[?\s*(\d+)(?:\.0+)?\s*\]?")
_NUMBERING = re.compile(r"\A\[\d+\]\s*")
_ARROW = re.compile(r"\s*(?:->|=>|→|⇒)\s*")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_SHORT = 80
_STARTS = 20


class Reading(NamedTuple):
    """An answer as it was understood."""

    image_description: str
    """What the expert saw."""
    decisions: list[Decision]
    """One per sentence; only complete if there are no problems."""
    additions: list[Addition]
    """Added sentences."""
    problems: list[str]
    """What makes the answer unusable, in words for the expert; empty if it can be used."""


class _Problem(Exception):
    """One reason why an entry cannot be used."""


def read_answer(text: str, sentences: Sequence[str]) -> Reading:
    """Understand the expert's answer about `sentences`; never raises."""
    try:
        answer = _json_object(text)
    except _Problem as problem:
        return Reading("", [], [], [str(problem)])
    problems: list[str] = []
    decisions = _decisions(answer.get("sentences"), sentences, problems)
    additions = _additions(answer.get("added"), len(sentences), problems)
    description = answer.get("image_description")
    return Reading(description if isinstance(description, str) else "", decisions, additions, problems)


def _json_object(text: str) -> dict[str, Any]:
    """The first JSON object in `text` that has sentences, whatever stands around it."""
    text = text.rsplit("</think>", 1)[-1]
    # Line breaks inside strings are a common slip that changes no meaning.
    decoder = json.JSONDecoder(strict=False)
    complaint = ""
    for match in islice(re.finditer(r"\{", text), _STARTS):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError) as error:
            complaint = complaint or f"it is not valid JSON: {error}"
            continue
        if isinstance(value, dict) and "sentences" in value:
            return value
    raise _Problem(complaint or 'there is no JSON object with "sentences" in it')


def _decisions(entries: Any, sentences: Sequence[str], problems: list[str]) -> list[Decision]:
    if not isinstance(entries, list):
        problems.append('"sentences" must be a list with one entry per sentence')
        return []
    found: dict[int, Decision] = {}
    seen: set[int] = set()
    for entry in entries:
        number = _number(entry.get("index")) if isinstance(entry, dict) else None
        if number is None:
            problems.append(f"an entry has no sentence number as index: {_shortened(entry)}")
        elif not 1 <= number <= len(sentences):
            problems.append(f"index {number}: there is no such sentence; they are numbered 1 to {len(sentences)}")
        elif number in seen:
            problems.append(f"sentence {number} is there twice")
        else:
            seen.add(number)
            try:
                found[number] = _decision(entry, sentences[number - 1])
            except _Problem as problem:
                problems.append(f"sentence {number}: {problem}")
    missing = [number for number in range(1, len(sentences) + 1) if number not in seen]
    if missing:
        problems.append(f"no entry for sentence {', '.join(map(str, missing[:20]))}{' ...' * (len(missing) > 20)}")
    return [found[number] for number in sorted(found)]


def _decision(entry: Mapping[str, Any], original: str) -> Decision:
    kind = _ACTIONS.get(_word(entry.get("action")))
    if kind is None:
        raise _Problem(f"action must be keep, rewrite or delete; seen {_shortened(entry.get('action'))}")
    score = _number(entry.get("score"))
    if score is None or not 1 <= score <= 4:
        raise _Problem(f"score must be 1, 2, 3 or 4; seen {_shortened(entry.get('score'))}")
    revised = _revised(entry.get("revised"), original)
    unchanged = _same(revised, original) or _same(revised, shown(original))
    if kind == "edited" and score == 4 and unchanged:
        kind = "kept"
    if (kind == "kept") != (score == 4):
        raise _Problem(f"score {score} does not fit: 4 means kept as it is, and only that")
    if kind == "kept":
        if revised and not unchanged:
            raise _Problem("it is kept with score 4, but the revised text differs; keep it letter by letter")
        return Decision(reason=_line(entry.get("reason")))
    if kind == "edited" and revised in ("", original):
        raise _Problem(f"it is rewritten with score {score}, but the text is {'unchanged' if revised else 'empty'}")
    error_type = _ERROR_TYPES.get(_word(entry.get("error_type")))
    if error_type is None or error_type == "correct":
        raise _Problem(
            "error_type must be image_recognition_error or language_comprehension_error for a changed sentence;"
            f" seen {_shortened(entry.get('error_type'))}"
        )
    return Decision(
        "edited" if kind == "edited" else "deleted",
        revised if kind == "edited" else "",
        score,
        error_type,
        _objects(entry.get("objects")),
        _line(entry.get("reason")),
    )


def _additions(entries: Any, count: int, problems: list[str]) -> list[Addition]:
    if entries is None:
        return []
    if not isinstance(entries, list):
        problems.append('"added" must be a list')
        return []
    additions: list[Addition] = []
    for entry in entries:
        after = _number(entry.get("after")) if isinstance(entry, dict) else None
        if after is None or after > count:
            problems.append(f"added: after must be 0 to {count}; seen {_shortened(entry)}")
        elif text := _revised(entry.get("text")):
            additions.append(Addition(after, text, _line(entry.get("reason"))))
    return additions


def _number(value: Any) -> int | None:
    """A whole number, also as "3", "[3]", 3.0; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and value >= 0 else None
    if isinstance(value, int):
        return value if value >= 0 else None
    match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    return int(match[1]) if match and len(match[1]) < 10 else None


def _word(value: Any) -> str:
    """An enumeration's value without differences of case, spaces and hyphens."""
    return re.sub(r"[\s_-]+", "_", value.strip().lower()) if isinstance(value, str) else ""


def _revised(value: Any, original: str = "") -> str:
    """A sentence without white space around it and without the number that we put before it."""
    text = value.strip() if isinstance(value, str) else ""
    return text if _NUMBERING.match(original) else _NUMBERING.sub("", text, count=1)


def _same(first: str, second: str) -> bool:
    """True if two sentences differ in white space and typographic variants at most."""
    return _plain(first) == _plain(second)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).translate(_QUOTES).split())


def _objects(value: Any) -> list[str]:
    items = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [_ARROW.sub(" -> ", _line(item)) for item in items if isinstance(item, str) and item.strip()]


def _line(value: Any) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."
