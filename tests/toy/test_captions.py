from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.toy.captions import BIAS, Mention, mentions, own_caption, parse_sentence, reference_caption
from opadpo.toy.world import sample_scene

seeds = st.integers(0, 2**32)


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_reference_says_exactly_what_is_there(seed: int):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    told = mentions(reference_caption(scene, rng))
    assert Counter(told) == Counter((thing.noun, thing.place) for thing in scene.objects)


@settings(max_examples=100, deadline=None)
@given(seed=seeds, reference=st.booleans(), bias=st.booleans())
def test_strict_and_loose_reading_agree_on_captions(seed: int, reference: bool, bias: bool):
    rng = np.random.default_rng(seed)
    caption = (reference_caption if reference else own_caption)(sample_scene(rng), rng, bias=bias, drop=0.08)
    sentences = [f"{piece}." for piece in caption.removesuffix(".").split(". ")]
    assert [parse_sentence(sentence) for sentence in sentences] == mentions(caption)


@pytest.mark.slow
def test_own_style_hallucinates_partners_as_often_as_it_should_and_nothing_else():
    rng = np.random.default_rng(0)
    open_triggers: Counter[str] = Counter()
    pulled: Counter[str] = Counter()
    for _ in range(2000):
        scene = sample_scene(rng)
        there = {thing.noun for thing in scene.objects}
        said = [mention.noun for mention in mentions(own_caption(scene, rng))]
        partners = {partner: trigger for trigger, (partner, _) in BIAS.items()}
        for noun in said:
            assert noun in there or partners[noun] in said
        for trigger, (partner, _) in BIAS.items():
            if trigger in said and partner not in there:
                open_triggers[trigger] += 1
                pulled[trigger] += partner in said
    for trigger, (_, probability) in BIAS.items():
        assert abs(pulled[trigger] / open_triggers[trigger] - probability) < 0.08, trigger


def test_present_partner_follows_its_trigger():
    rng = np.random.default_rng(1)
    followed = 0
    for _ in range(500):
        scene = sample_scene(rng)
        said = [mention.noun for mention in mentions(own_caption(scene, rng, drop=0.0))]
        for trigger, (partner, _) in BIAS.items():
            if {trigger, partner} <= {thing.noun for thing in scene.objects}:
                assert said.index(partner) == said.index(trigger) + 1
                followed += 1
    assert followed > 50


def test_unbiased_captions_name_nothing_that_is_not_there():
    rng = np.random.default_rng(2)
    for _ in range(300):
        scene = sample_scene(rng)
        said = {mention.noun for mention in mentions(own_caption(scene, rng, bias=False))}
        assert said
        assert said <= {thing.noun for thing in scene.objects}


def test_broken_sentences_are_refused_by_the_strict_reading_and_counted_by_the_loose_one():
    text = "There is a a cup at the. A dog stands at the top left or top right. Bookish! There is a BALL."
    assert parse_sentence("There is a a cup at the.") is None
    assert parse_sentence("There is a unicorn at the top left.") is None
    assert mentions(text) == [Mention("cup", None), Mention("dog", None), Mention("ball", None)]
    assert mentions("") == []
