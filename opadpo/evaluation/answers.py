"""What a short answer says to a yes-no question."""

import re
from typing import Literal

Answer = Literal["yes", "no"]

_YES = frozenset({"yes", "yeah", "yep", "true", "correct", "是", "sí", "oui", "ja"})
_NO = frozenset({"no", "nope", "not", "none", "never", "cannot", "false", "incorrect", "否", "不", "non", "nein"})
_UNDECIDED = re.compile(
    r"\b(?:unsure|uncertain|unclear|(?:do not|don't) know|not (?:sure|certain|clear|possible to)"
    r"|(?:cannot|can not|can't|could not|couldn't|unable to) (?:\w+ly )?"
    r"(?:tell|say|determine|answer|confirm|assist|help|know))\b"
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def read_answer(text: str) -> Answer | None:
    """Yes, no, or None where the text says neither.

    The first word decides if it is a yes or a no ("Yes." "no!" "NO"). Else the first sentence is searched: one that
    declines to say ("I cannot tell", "not sure") is no answer, and a negation in any other ("There isn't a dog",
    "none") means no. A statement without either ("A dog.") is not an answer. What is none is counted as unanswered,
    never as one of the two.
    """
    words = _words(text)
    first = _words(re.split(r"[.!?。！？\n]", text.strip(), maxsplit=1)[0])
    if words and words[0] in _YES:
        return "yes"
    if words and words[0] in _NO - {"not", "cannot"}:
        return "no"
    if _UNDECIDED.search(" ".join(first)):
        return None
    if any(word in _NO or word.endswith("n't") for word in (*words[:1], *first)):
        return "no"
    return "yes" if any(word in _YES for word in first) else None


def read_answer_as_pope(text: str) -> Answer:
    """As POPE's script reads it: before the first full stop, `No`, `no` or `not` between single spaces means no.

    Everything else is a yes, also `NO`, `No!`, `None` and nothing at all.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in ("No", "no", "not") for word in words) else "yes"


def read_answer_as_amber(text: str) -> Answer | None:
    """As AMBER's script reads it: only the exact strings `Yes` and `No` are answers."""
    return {"Yes": "yes", "No": "no"}.get(text)  # pyright: ignore[reportReturnType]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))
