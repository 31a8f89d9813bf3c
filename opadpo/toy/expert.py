"""The judgement of the toy expert: numbered sentences and what is really in the picture in, the answer out.

It is the answer that every expert gives (`opadpo.expert.schema`); this one is merely cheap and never wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from opadpo.expert.schema import AddedSentence, ExpertAnswer, Verdict
from opadpo.toy.captions import OWN_TEMPLATES, Mention, mentions, parse_sentence

Truth = Mapping[str, Any]


def judge(sentences: Mapping[int, str], truth: Truth, *, add_missed: bool = False) -> ExpertAnswer:
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
    verdicts: list[Verdict] = []
    for index, text in sentences.items():
        mention = parse_sentence(text)
        if mention is None:
            verdicts.append(_broken(index, text, places, told))
        elif mention.noun not in places:
            verdicts.append(_hallucinated(index, text, mention, unmentioned))
        elif mention.noun in told:
            verdicts.append(_repeated(index, mention))
        else:
            verdicts.append(_placed(index, text, mention, places))
        told |= {mention.noun for mention in mentions(verdicts[-1].revised)}
    missed = {noun: place for noun, place in places.items() if noun not in told} if add_missed else {}
    last = max(sentences, default=0)
    return ExpertAnswer(
        image_description=_description(truth),
        sentences=verdicts,
        added=[
            AddedSentence(after=last, text=_own(noun, place), reason=f"The {noun} is not mentioned.")
            for noun, place in missed.items()
        ],
    )


def _hallucinated(index: int, text: str, mention: Mention, unmentioned: dict[str, str]) -> Verdict:
    """A noun that is not in the picture; `unmentioned` loses what a swap uses up."""
    wrong = f"{mention.noun} at the {mention.place}"
    right = next((noun for noun, place in unmentioned.items() if place == mention.place), None)
    if right is None:
        return Verdict(
            index=index,
            action="delete",
            score=1,
            error_type="image_recognition_error",
            objects=[f"{wrong} -> nothing"],
            revised="",
            reason=f"There is no {mention.noun} in the picture.",
        )
    del unmentioned[right]
    return Verdict(
        index=index,
        action="rewrite",
        score=2,
        error_type="image_recognition_error",
        objects=[f"{mention.noun} -> {right}"],
        revised=text.replace(mention.noun, right, 1),
        reason=f"What is at the {mention.place} is a {right}, not a {mention.noun}.",
    )


def _placed(index: int, text: str, mention: Mention, places: Mapping[str, str]) -> Verdict:
    """A noun that is in the picture: in the right quadrant, or not."""
    right = places[mention.noun]
    if mention.place == right:
        return Verdict(
            index=index,
            action="keep",
            score=4,
            error_type="correct",
            objects=[],
            revised=text,
            reason="Correct.",
        )
    return Verdict(
        index=index,
        action="rewrite",
        score=3,
        error_type="image_recognition_error",
        objects=[f"{mention.noun} at the {mention.place} -> {mention.noun} at the {right}"],
        revised=text.replace(str(mention.place), right, 1),
        reason=f"The {mention.noun} is at the {right}.",
    )


def _repeated(index: int, mention: Mention) -> Verdict:
    """A noun that was told before."""
    return Verdict(
        index=index,
        action="delete",
        score=2,
        error_type="language_comprehension_error",
        objects=[f"{mention.noun} -> nothing"],
        revised="",
        reason=f"The {mention.noun} was already mentioned.",
    )


def _broken(index: int, text: str, places: Mapping[str, str], told: set[str]) -> Verdict:
    """A sentence whose grammar is broken: its first true and new noun is said properly, or it goes."""
    meant = next((m.noun for m in mentions(text) if m.noun in places and m.noun not in told), None)
    revised = _own(meant, places[meant]) if meant else ""
    return Verdict(
        index=index,
        action="rewrite" if meant else "delete",
        score=2,
        error_type="language_comprehension_error",
        objects=[],
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
