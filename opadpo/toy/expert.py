"""The judgement of the toy expert: numbered sentences and what is really in the picture in, the answer out.

The answer has the shape that every expert of this package gives; this one is merely cheap and never wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from opadpo.toy.captions import OWN_TEMPLATES, Mention, mentions, parse_sentence

Truth = Mapping[str, Any]


class Judgement(BaseModel):
    """The expert's verdict on one sentence."""

    model_config = ConfigDict(frozen=True)

    index: int
    """The sentence's number in the request, from 1."""
    action: Literal["keep", "rewrite", "delete"]
    """What is to be done with it."""
    score: Literal[1, 2, 3, 4]
    """4 is right as it stands; 1 is beyond repair."""
    error_type: Literal["correct", "image_recognition_error", "language_comprehension_error"]
    """What kind of mistake it is."""
    objects: tuple[str, ...]
    """What was wrong and what is right, each as "wrong -> right"."""
    revised: str
    """The sentence as it should be; empty when it is deleted."""
    reason: str
    """One line for people."""


class Addition(BaseModel):
    """A sentence that the response lacks."""

    model_config = ConfigDict(frozen=True)

    after: int
    """The number of the sentence that it goes after; 0 is the start."""
    text: str
    """The sentence."""
    reason: str
    """One line for people."""


class Answer(BaseModel):
    """What an expert says about one response."""

    model_config = ConfigDict(frozen=True)

    image_description: str
    """What the expert sees, in its own words."""
    sentences: tuple[Judgement, ...]
    """One verdict per numbered sentence, in order."""
    added: tuple[Addition, ...]
    """Sentences that are missing."""


def judge(sentences: Mapping[int, str], truth: Truth, *, add_missed: bool = False) -> Answer:
    """Judge numbered sentences against what is in the picture (`opadpo.toy.sight.truth_of`).

    A noun that is not there: score 2 and a swap for something true and unmentioned of the same quadrant,
    else score 1 and deletion. A wrong quadrant: 3, corrected. A repetition: 2, deleted. Broken grammar: 2,
    said again or deleted. Everything else is kept. With `add_missed`, what is still missing afterwards is
    added at its end.
    """
    places = {thing["noun"]: thing["place"] for thing in truth["objects"]}
    named = {mention.noun for text in sentences.values() for mention in mentions(text)}
    unmentioned = {noun: place for noun, place in places.items() if noun not in named}
    told: set[str] = set()
    judgements: list[Judgement] = []
    for index, text in sentences.items():
        mention = parse_sentence(text)
        if mention is None:
            judgements.append(_broken(index, text, places, told))
        elif mention.noun not in places:
            judgements.append(_hallucinated(index, text, mention, unmentioned))
        elif mention.noun in told:
            judgements.append(_repeated(index, mention))
        else:
            judgements.append(_placed(index, text, mention, places))
        told |= {mention.noun for mention in mentions(judgements[-1].revised)}
    missed = {noun: place for noun, place in places.items() if noun not in told} if add_missed else {}
    last = max(sentences, default=0)
    return Answer(
        image_description=_description(truth),
        sentences=tuple(judgements),
        added=tuple(
            Addition(after=last, text=_own(noun, place), reason=f"The {noun} is not mentioned.")
            for noun, place in missed.items()
        ),
    )


def _hallucinated(index: int, text: str, mention: Mention, unmentioned: dict[str, str]) -> Judgement:
    """A noun that is not in the picture; `unmentioned` loses what a swap uses up."""
    wrong = f"{mention.noun} at the {mention.place}"
    right = next((noun for noun, place in unmentioned.items() if place == mention.place), None)
    if right is None:
        return Judgement(
            index=index,
            action="delete",
            score=1,
            error_type="image_recognition_error",
            objects=(f"{wrong} -> nothing",),
            revised="",
            reason=f"There is no {mention.noun} in the picture.",
        )
    del unmentioned[right]
    return Judgement(
        index=index,
        action="rewrite",
        score=2,
        error_type="image_recognition_error",
        objects=(f"{mention.noun} -> {right}",),
        revised=text.replace(mention.noun, right, 1),
        reason=f"What is at the {mention.place} is a {right}, not a {mention.noun}.",
    )


def _placed(index: int, text: str, mention: Mention, places: Mapping[str, str]) -> Judgement:
    """A noun that is in the picture: in the right quadrant, or not."""
    right = places[mention.noun]
    if mention.place == right:
        return Judgement(
            index=index,
            action="keep",
            score=4,
            error_type="correct",
            objects=(),
            revised=text,
            reason="Correct.",
        )
    return Judgement(
        index=index,
        action="rewrite",
        score=3,
        error_type="image_recognition_error",
        objects=(f"{mention.noun} at the {mention.place} -> {mention.noun} at the {right}",),
        revised=text.replace(str(mention.place), right, 1),
        reason=f"The {mention.noun} is at the {right}.",
    )


def _repeated(index: int, mention: Mention) -> Judgement:
    """A noun that was told before."""
    return Judgement(
        index=index,
        action="delete",
        score=2,
        error_type="language_comprehension_error",
        objects=(f"{mention.noun} -> nothing",),
        revised="",
        reason=f"The {mention.noun} was already mentioned.",
    )


def _broken(index: int, text: str, places: Mapping[str, str], told: set[str]) -> Judgement:
    """A sentence whose grammar is broken: its first true and new noun is said properly, or it goes."""
    meant = next((m.noun for m in mentions(text) if m.noun in places and m.noun not in told), None)
    revised = _own(meant, places[meant]) if meant else ""
    return Judgement(
        index=index,
        action="rewrite" if meant else "delete",
        score=2,
        error_type="language_comprehension_error",
        objects=(),
        revised=revised,
        reason="The sentence is not well formed." if meant else "The sentence says nothing about the picture.",
    )


def _own(noun: str, place: str) -> str:
    """A sentence in the model's own most frequent style, so that revisions stay close to on-policy."""
    return OWN_TEMPLATES[0].format(noun=noun, place=place)


def _description(truth: Truth) -> str:
    """What the expert sees, as one line."""
    things: Sequence[str] = [f"a {thing['noun']} at the {thing['place']}" for thing in truth["objects"]]
    return f"The picture shows {', '.join(things)}." if things else "The picture shows nothing that I know."
