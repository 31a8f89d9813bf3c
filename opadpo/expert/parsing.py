"""Reading the expert's answer: forgiving about form, strict about sense.

What can only mean one thing is taken so (a code fence, "3" for 3, "Image recognition error", `errorType`, a bare list
of entries, an entry that is there twice in the same words). Whatever is missing, contradicts itself or is about another
sentence becomes a problem that the expert is told of; nothing counts as correct by default.

A sentence with score 4 has to come back unchanged. If it does not, nobody can tell whether the score or the new text is
meant, so that is a problem as well and not a correction.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, get_args

from opadpo.expert.instructions import shown
from opadpo.llm.wire import sound
from opadpo.records import ErrorType
from opadpo.text.revising import Addition, Decision
from opadpo.text.worddiff import changed_share

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
_KEYS = {
    "index": ("id", "idx", "no", "number", "sentence_index", "sentence_number", "sentence_id"),
    "action": ("decision", "verdict"),
    "error_type": ("error", "type"),
    "objects": ("object", "wrong_objects", "objects_in_error"),
    "revised": ("revision", "revised_sentence", "revised_text", "rewritten", "rewritten_sentence", "corrected"),
    "original": ("original_sentence", "original_text"),
    "sentences": ("sentence_reviews", "reviews", "verdicts"),
    "added": ("additions", "added_sentences"),
    "after": ("after_sentence", "after_index"),
    "text": ("sentence", "added_sentence"),
}
"""Field -> other names that models give it, all in lower case with underscores."""
_CANONICAL = {other: name for name, others in _KEYS.items() for other in others}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NUMBER = re.compile(r"\[?\s*(\d+)(?:\.0+)?\s*\]?")
_SCORE = re.compile(r"(\d)\s*(?:/|out of)\s*4")
_NUMBERING = re.compile(r"\A\[\d+\]\s*")
_ARROW = re.compile(r"\s*(?:->|=>|→|⇒)\s*")
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_FAR, _NEAR = 0.7, 0.3
"""Shares of changed words: a rewriting far from its own sentence and near another one is about that one."""
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
    """The first JSON object in `text` that has sentences, whatever stands around it; or the first list of entries."""
    text = text.rsplit("</think>", 1)[-1]
    # Line breaks inside strings are a common slip that changes no meaning.
    decoder = json.JSONDecoder(strict=False)
    complaint = ""
    for match in islice(re.finditer(r"\{|\[(?=\s*\{)", text), _STARTS):
        try:
            value = sound(decoder.raw_decode(text, match.start())[0])
        except (ValueError, RecursionError) as error:
            complaint = complaint or f"it is not valid JSON: {error}"
            continue
        if isinstance(value, dict) and "sentences" in (answer := _fields(value)):
            return answer
        if isinstance(value, list) and all(isinstance(item, dict) and "score" in _fields(item) for item in value):
            return {"sentences": value}
    raise _Problem(complaint or 'there is no JSON object with "sentences" in it')


def _decisions(entries: Any, sentences: Sequence[str], problems: list[str]) -> list[Decision]:
    if isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values()):
        entries = [{"index": key, **entry} for key, entry in entries.items()]
    if not isinstance(entries, list):
        problems.append('"sentences" must be a list with one entry per sentence')
        return []
    found: dict[int, Decision] = {}
    seen: dict[int, dict[str, Any]] = {}
    for number, entry in _numbered(entries, len(sentences)):
        if number is None:
            problems.append(f"an entry has no sentence number as index: {_shortened(entry)}")
        elif not 1 <= number <= len(sentences):
            problems.append(f"index {number}: there is no such sentence; they are numbered 1 to {len(sentences)}")
        elif number in seen:
            if seen[number] != entry:
                problems.append(f"sentence {number} is there twice, and not alike")
        else:
            seen[number] = entry
            try:
                found[number] = _decision(entry, number - 1, sentences)
            except _Problem as problem:
                problems.append(f"sentence {number}: {problem}")
    missing = [number for number in range(1, len(sentences) + 1) if number not in seen]
    if missing:
        problems.append(f"no entry for sentence {', '.join(map(str, missing[:20]))}{' ...' * (len(missing) > 20)}")
    return [found[number] for number in sorted(found)]


def _numbered(entries: Sequence[Any], count: int) -> list[tuple[int | None, Any]]:
    """(sentence number, entry with our names of its fields); numbers from 0 to count - 1 are taken as 1 to count."""
    named = [_fields(entry) if isinstance(entry, dict) else entry for entry in entries]
    numbers = [_number(entry.get("index")) if isinstance(entry, dict) else None for entry in named]
    shift = 1 if None not in numbers and set(numbers) == set(range(count)) else 0
    return [(None if number is None else number + shift, entry) for number, entry in zip(numbers, named, strict=True)]


def _decision(entry: Mapping[str, Any], place: int, sentences: Sequence[str]) -> Decision:
    original = sentences[place]
    quoted = entry.get("original")
    if isinstance(quoted, str) and quoted.strip() and not _same(_revised(quoted, original), original):
        raise _Problem(f"its original is not that sentence but {_shortened(quoted)}")
    kind, score = _kind_and_score(entry)
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
    if kind == "edited" and (other := _meant(revised, place, sentences)) is not None:
        raise _Problem(f"its new text is sentence {other + 1} rewritten; see that every entry has its own number")
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


def _kind_and_score(entry: Mapping[str, Any]) -> tuple[str, int]:
    """What is done with a sentence; where the action is left out, score and text say it."""
    given = entry.get("score")
    match = _SCORE.fullmatch(given.strip()) if isinstance(given, str) else None
    score = int(match[1]) if match else _number(given)
    kind = _ACTIONS.get(_word(entry.get("action")))
    if "action" not in entry and isinstance(entry.get("revised"), str):
        kind = "kept" if score == 4 else "edited" if entry["revised"].strip() else "deleted"
    if kind is None:
        raise _Problem(f"action must be keep, rewrite or delete; seen {_shortened(entry.get('action'))}")
    if score is None or not 1 <= score <= 4:
        raise _Problem(f"score must be 1, 2, 3 or 4; seen {_shortened(given)}")
    return kind, score


def _meant(revised: str, place: int, sentences: Sequence[str]) -> int | None:
    """The place of another sentence that a rewriting is plainly about; None if it is about its own."""
    if changed_share(sentences[place], revised) <= _FAR:
        return None
    # Repeated sentences are alike: any of them may be rewritten into what the other says.
    shares = [(changed_share(other, revised), index) for index, other in enumerate(sentences) if index != place]
    share, index = min(shares, default=(1.0, place))
    return index if share <= _NEAR else None


def _additions(entries: Any, count: int, problems: list[str]) -> list[Addition]:
    if entries is None:
        return []
    if not isinstance(entries, list):
        problems.append('"added" must be a list')
        return []
    additions: list[Addition] = []
    for given in entries:
        entry = _fields(given) if isinstance(given, dict) else given
        after = _number(entry.get("after")) if isinstance(entry, dict) else None
        if after is None or after > count:
            problems.append(f"added: after must be 0 to {count}; seen {_shortened(entry)}")
        elif text := _revised(entry.get("text")):
            additions.append(Addition(after, text, _line(entry.get("reason"))))
    return additions


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An object with our names of its fields; one that has our name already wins over another spelling of it."""
    named = {_word(_CAMEL.sub("_", key)): value for key, value in entry.items()}
    return {_CANONICAL[key]: value for key, value in named.items() if key in _CANONICAL} | {
        key: value for key, value in named.items() if key not in _CANONICAL
    }


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
