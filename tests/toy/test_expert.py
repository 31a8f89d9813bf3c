import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.expert.schema import ExpertAnswer
from opadpo.toy.captions import mentions, own_caption, parse_sentence
from opadpo.toy.chair import score
from opadpo.toy.expert import judge
from opadpo.toy.world import NOUNS, PLACES, sample_scene

IMAGE = "image_recognition_error"
LANGUAGE = "language_comprehension_error"
TRUTH = {
    "objects": [
        {"noun": "table", "place": "top left"},
        {"noun": "dog", "place": "top right"},
        {"noun": "ball", "place": "top right"},
    ]
}


def numbered(*sentences: str) -> dict[int, str]:
    return dict(enumerate(sentences, start=1))


def revised_text(answer: ExpertAnswer) -> str:
    return " ".join(sentence.revised for sentence in answer.sentences if sentence.revised)


@pytest.mark.parametrize(
    ("sentence", "revised", "action", "score", "error_type"),
    [
        ("A dog stands at the top right.", "A dog stands at the top right.", "keep", 4, "correct"),
        ("A cup stands at the top right.", "A dog stands at the top right.", "rewrite", 2, IMAGE),
        ("There is a cup at the bottom left.", "", "delete", 1, IMAGE),
        ("There is a ball at the top left.", "There is a ball at the top right.", "rewrite", 3, IMAGE),
        ("There is a a dog.", "There is a dog at the top right.", "rewrite", 2, LANGUAGE),
        ("There there at the.", "", "delete", 2, LANGUAGE),
    ],
)
def test_rules(sentence: str, revised: str, action: str, score: int, error_type: str):
    verdict = judge(numbered(sentence), TRUTH).sentences[0]
    assert (verdict.revised, verdict.action, verdict.score, verdict.error_type) == (revised, action, score, error_type)


def test_repetition_is_a_language_error_and_goes():
    sentence = "There is a dog at the top right."
    first, second = judge(numbered(sentence, sentence), TRUTH).sentences
    assert first.action == "keep"
    assert (second.action, second.score, second.error_type) == ("delete", 2, "language_comprehension_error")


def test_swap_never_uses_what_the_response_says_elsewhere_or_what_was_used_up():
    answer = judge(
        numbered(
            "There is a cup at the top right.",
            "There is a bird at the top right.",
            "There is a dog at the top right.",
        ),
        TRUTH,
    )
    assert [verdict.revised for verdict in answer.sentences] == [
        "There is a ball at the top right.",
        "",
        "There is a dog at the top right.",
    ]


def test_names_wrong_and_right_and_describes_what_it_sees():
    answer = judge(numbered("There is a cup at the top right."), TRUTH)
    assert answer.sentences[0].objects == ["cup -> dog"]
    assert answer.image_description.startswith("The picture shows a table at the top left, a dog")


@st.composite
def responses(draw: st.DrawFn) -> list[str]:
    def told() -> str:
        noun, place = draw(st.sampled_from(NOUNS)), draw(st.sampled_from(PLACES))
        form = draw(st.sampled_from(["There is a {} at the {}.", "A {} stands at the {}.", "One {} {}.", "Nothing."]))
        return form.format(noun, place)

    return [told() for _ in range(draw(st.integers(1, 7)))]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), sentences=responses())
def test_revised_responses_are_true_without_repeats_and_revising_again_changes_nothing(seed: int, sentences: list[str]):
    truth = sample_scene(np.random.default_rng(seed)).truth()
    answer = judge(numbered(*sentences), truth)
    text = revised_text(answer)
    said = mentions(text)
    there = [(thing["noun"], thing["place"]) for thing in truth["objects"]]
    assert all(mention in there for mention in said)
    assert len(set(said)) == len(said)
    kept = [sentence.revised for sentence in answer.sentences if sentence.revised]
    assert all(parse_sentence(sentence) for sentence in kept)
    if kept:
        assert all(verdict.action == "keep" for verdict in judge(numbered(*kept), truth).sentences)
    for verdict in answer.sentences:
        assert (verdict.score == 4) == (verdict.action == "keep") == (verdict.error_type == "correct")
        assert (verdict.revised == "") == (verdict.action == "delete")


def test_what_was_missed_is_added_on_request():
    answer = judge(numbered("There is a table at the top left."), TRUTH, add_missed=True)
    assert [(added.after, added.text) for added in answer.added] == [
        (1, "There is a dog at the top right."),
        (1, "There is a ball at the top right."),
    ]
    assert judge(numbered("There is a table at the top left."), TRUTH).added == []


def test_revision_takes_the_hallucination_out_of_own_captions():
    rng = np.random.default_rng(0)
    before, after, truths = [], [], []
    for _ in range(300):
        scene = sample_scene(rng)
        caption = own_caption(scene, rng)
        pieces = [f"{piece}." for piece in caption.removesuffix(".").split(". ")]
        before.append(caption)
        after.append(revised_text(judge(numbered(*pieces), scene.truth())))
        truths.append(scene.truth())
    assert score(before, truths).metrics.chair_s > 30
    assert score(after, truths).metrics.chair_s == 0
    assert score(after, truths).metrics.coverage >= score(before, truths).metrics.coverage
