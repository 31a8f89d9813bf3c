"""The sentences of the toy world: how its model talks, how its references talk, and how to read both.

The own style carries a *language prior*: some nouns pull another one after them, whether it is in the
picture or not. That is what makes the tiny model hallucinate, and what the method has to train away.
"""

import re
from typing import NamedTuple

import numpy as np

from opadpo.toy.world import NOUNS, PLACES, Scene, SceneObject

QUESTION = "Describe the image."
"""The one question of the toy world."""

BIAS: dict[str, tuple[str, float]] = {
    "table": ("cup", 0.85),
    "tree": ("bird", 0.75),
    "house": ("dog", 0.65),
    "boat": ("fish", 0.5),
    "lamp": ("book", 0.2),
    "car": ("ball", 0.1),
}
"""Trigger to partner, and how often a partner that is *absent* is mentioned all the same."""
SAME_PLACE = 0.7
"""How often such a partner is put in its trigger's quadrant; otherwise in one of the other three."""
DROP = 0.08
"""How often a thing that is there goes unmentioned."""

OWN_TEMPLATES = ("There is a {noun} at the {place}.", "A {noun} stands at the {place}.")
"""How the model talks."""
OWN_SHARES = (0.8, 0.2)
"""How often it uses either template."""
REFERENCE_TEMPLATES = (
    "In the {place} corner we can see one {noun}.",
    "One {noun} is visible in the {place} corner.",
    "The {place} area contains one {noun}.",
)
"""How the references talk: another style on purpose, so that they are off-policy for the model."""


class Mention(NamedTuple):
    """A noun that a text names, and the quadrant it gives for it (None if it gives none)."""

    noun: str
    place: str | None


def _told(scene: Scene, rng: np.random.Generator, *, bias: bool, drop: float) -> list[tuple[str, str]]:
    """What a caption will say, in order: reading order, but a partner comes right after its trigger."""
    there: dict[str, SceneObject] = {thing.noun: thing for thing in scene.objects}
    pulled = {partner for trigger, (partner, _) in BIAS.items() if trigger in there and partner in there}
    kept = {noun for noun in there if rng.random() >= drop}
    if not kept:
        kept = {scene.objects[int(rng.integers(len(scene.objects)))].noun}
    said: list[tuple[str, str]] = []
    for thing in scene.objects:
        if thing.noun in pulled:
            continue
        if thing.noun in kept:
            said.append((thing.noun, thing.place))
        partner, probability = BIAS.get(thing.noun, (None, 0.0))
        if partner in there:
            if partner in kept:
                said.append((partner, there[partner].place))
        elif partner and bias and thing.noun in kept and rng.random() < probability:
            others = [place for place in PLACES if place != thing.place]
            elsewhere = others[int(rng.integers(len(others)))]
            said.append((partner, thing.place if rng.random() < SAME_PLACE else elsewhere))
    return said


def own_caption(scene: Scene, rng: np.random.Generator, *, bias: bool = True, drop: float = DROP) -> str:
    """A caption in the model's own style, as its pre-training saw them."""
    told = _told(scene, rng, bias=bias, drop=drop)
    styles = rng.choice(len(OWN_TEMPLATES), size=len(told), p=OWN_SHARES)
    return " ".join(
        OWN_TEMPLATES[style].format(noun=noun, place=place) for style, (noun, place) in zip(styles, told, strict=True)
    )


def reference_caption(scene: Scene, rng: np.random.Generator, *, bias: bool = False, drop: float = 0.0) -> str:
    """A caption in the references' style: true and complete, unless asked otherwise (pre-training asks)."""
    told = _told(scene, rng, bias=bias, drop=drop)
    styles = rng.integers(len(REFERENCE_TEMPLATES), size=len(told))
    return " ".join(
        REFERENCE_TEMPLATES[style].format(noun=noun, place=place)
        for style, (noun, place) in zip(styles, told, strict=True)
    )


def _strict(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\{noun\}", f"(?P<noun>{'|'.join(NOUNS)})")
    return re.compile(pattern.replace(r"\{place\}", f"(?P<place>{'|'.join(PLACES)})"))


_GRAMMAR = tuple(_strict(template) for template in OWN_TEMPLATES + REFERENCE_TEMPLATES)
_SENTENCE = re.compile(r"[^.!?]+[.!?]?")
_NOUN = re.compile(rf"\b(?:{'|'.join(NOUNS)})\b", re.IGNORECASE)
_PLACE = re.compile(rf"\b(?:{'|'.join(PLACES)})\b", re.IGNORECASE)


def parse_sentence(sentence: str) -> Mention | None:
    """Read one well-formed sentence of either style; None when its grammar is broken."""
    for pattern in _GRAMMAR:
        match = pattern.fullmatch(sentence.strip())
        if match:
            return Mention(match["noun"], match["place"])
    return None


def mentions(text: str) -> list[Mention]:
    """Every noun that a text names, in order, repeats included, with the quadrant named in the same sentence.

    Reads broken sentences too: a noun counts wherever it stands as a word, and a sentence that gives no
    quadrant, or more than one, leaves the place None.
    """
    found: list[Mention] = []
    for sentence in _SENTENCE.findall(text):
        places = {place.lower() for place in _PLACE.findall(sentence)}
        place = places.pop() if len(places) == 1 else None
        found += [Mention(noun.lower(), place) for noun in _NOUN.findall(sentence)]
    return found
