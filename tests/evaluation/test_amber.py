"""AMBER's figures equal the released script's, and what the script does silently is refused or said."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from annotation_files import annotation_files

from opadpo.errors import DataError, MissingArtefact
from opadpo.evaluation.amber import (
    Amber,
    Annotation,
    discriminative,
    discriminative_figures,
    generative,
    generative_figures,
    load_amber,
)
from opadpo.evaluation.figures import total
from opadpo.evaluation.nouns import same_word, vocabulary_reader

VECTORS = Path(__file__).parents[1] / "vectors"
RELEASED_NAMES = {
    "wrong": "chair_score",
    "nouns": "chair_num",
    "covered": "safe_cover_score",
    "truth": "safe_cover_num",
    "lured": "hallu_cover_score",
    "lures": "hallu_cover_num",
    "clean": "non_hallu_score",
    "answers": "non_hallu_num",
}
SECTIONS = {
    "all": "Descriminative Task",
    "existence": "Exsitence",
    "attribute": "Attribute",
    "state": "State",
    "number": "Number",
    "action": "Action",
    "relation": "Relation",
}


def vectors(name: str) -> Any:
    return json.loads((VECTORS / f"amber_{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def small() -> Amber:
    """Two pictures and two questions."""
    rows = [
        Annotation(id=1, type="generative", truth=["man", "car", "car"], hallu=["dog", "cloud"]),
        Annotation(id=2, type="generative", truth=["cup"], hallu=["table"]),
        Annotation(id=3, type="discriminative-hallucination", truth="no"),
        Annotation(id=4, type="discriminative-attribute-state", truth="yes"),
        Annotation(id=5, type="relation", truth="no"),
    ]
    associations = {"man": ["person"], "car": ["vehicle"], "dog": ["animal"], "cloud": [], "cup": [], "table": []}
    return Amber({row.id: row for row in rows}, associations, frozenset({"light"}))


@pytest.mark.annotations
@pytest.mark.parametrize("similarity", ["exact", "table"])
def test_generative_counters_and_totals_are_those_of_the_released_script(similarity: str) -> None:
    amber, recorded = load_amber(annotation_files("amber")), vectors("generative")
    pairs = {frozenset(pair) for pair in recorded["similar_pairs"]}
    lemmas = recorded["lemma_table"]

    def read(text: str) -> list[str]:
        return [lemmas.get(word, word) for word in re.findall("[a-z]+", text.lower())]

    def similar(first: str, second: str) -> bool:
        return first == second or (similarity == "table" and frozenset((first, second)) in pairs)

    items = []
    for number, row in enumerate(recorded["captions"]):
        annotation = Annotation(id=number, type="generative", truth=row["truth"], hallu=row["hallu"])
        own = amber._replace(annotations={number: annotation})
        (item,) = generative([(number, row["response"])], own, read, similar).items
        assert {RELEASED_NAMES[name]: value for name, value in item.counts().items()} == row[similarity], row["note"]
        items.append(item)

    everything = amber._replace(
        annotations={
            number: Annotation(id=number, type="generative", truth=row["truth"], hallu=row["hallu"])
            for number, row in enumerate(recorded["captions"])
        }
    )
    answers = [(number, row["response"]) for number, row in enumerate(recorded["captions"])]
    result = generative(answers, everything, read, similar)
    printed = dict(recorded["totals"][similarity]["printed"])
    printed["repeat_ratio"] = printed.pop("repeat_ratio_printed")
    assert result.printed == printed
    assert result.metrics == pytest.approx(
        {name.lower(): printed[name] for name in ("CHAIR", "Cover", "Hal", "Cog")}, abs=0.06
    )
    assert result.metrics == generative_figures(total(item.counts() for item in items))


@pytest.mark.annotations
def test_discriminative_tables_are_those_of_the_released_script() -> None:
    recorded = vectors("discriminative")
    answers = [(row["id"], row["response"]) for row in recorded["rows"]]
    result = discriminative(answers, load_amber(annotation_files("amber")), as_released=True)
    assert {SECTIONS[kind]: table for kind, table in result.printed.items()} == recorded["printed"]


@pytest.mark.annotations
def test_the_offline_reader_finds_the_singular_of_every_truth_word() -> None:
    amber = load_amber(annotation_files("amber"))
    read = vocabulary_reader(amber.vocabulary)
    for word in ("child", "knife", "bus", "glasses", "person", "shelf"):
        if word in amber.vocabulary:
            assert read(f"The {word.capitalize()}.") == [word]
    assert read("Two women, three men and some children sit on benches.") == ["woman", "man", "child", "bench"]


def test_a_description_is_judged_word_by_word(small: Amber) -> None:
    text = "A person and a man in the light by two vehicles; a dog, another dog and an animal."
    (item,) = generative([(1, text)], small, vocabulary_reader(small.vocabulary)).items
    assert item.nouns == ("person", "man", "vehicle", "dog", "dog", "animal")
    assert item.wrong == ("dog", "dog", "animal")
    assert item.covered == (True, True, False)
    assert item.lured == (True, False)


def test_nothing_said_is_nothing_wrong_and_nothing_covered(small: Amber) -> None:
    result = generative([(1, ""), (2, "Nice!")], small, vocabulary_reader(small.vocabulary))
    assert result.metrics == {"chair": 0.0, "cover": 0.0, "hal": 0.0, "cog": 0.0}
    assert result.printed["CHAIR"] == 0.0


def test_similar_words_excuse_and_cover(small: Amber) -> None:
    def similar(first: str, second: str) -> bool:
        return first == second or {first, second} == {"table", "cup"}

    (item,) = generative([(2, "A table.")], small, vocabulary_reader(small.vocabulary), similar).items
    assert item.counts() == {
        "wrong": 0,
        "nouns": 1,
        "covered": 1,
        "truth": 1,
        "lured": 1,
        "lures": 1,
        "clean": 1,
        "answers": 1,
    }
    (strict,) = generative([(2, "A table.")], small, vocabulary_reader(small.vocabulary), same_word).items
    assert strict.counts()["wrong"] == 1


def test_clean_reading_counts_what_the_released_script_ignores(small: Amber) -> None:
    answers = [(3, "No, there is none."), (4, "yes."), (5, "It cannot be seen.")]
    clean, released = discriminative(answers, small), discriminative(answers, small, as_released=True)
    assert clean.metrics["accuracy"] == pytest.approx(100.0)
    assert released.metrics["accuracy"] == 0.0
    assert released.metrics["answered"] == 0.0
    assert clean.metrics["attribute/accuracy"] == clean.metrics["state/accuracy"] == 100.0
    assert "number/accuracy" not in clean.metrics


def test_an_answer_that_says_neither_is_wrong_and_counted(small: Amber) -> None:
    metrics = discriminative([(3, ""), (4, "A red car.")], small).metrics
    assert (metrics["answered"], metrics["accuracy"], metrics["f1"]) == (0.0, 0.0, 0.0)


def test_figures_are_those_of_the_sums(small: Amber) -> None:
    result = discriminative([(3, "Yes"), (4, "No"), (5, "No")], small)
    assert result.metrics == discriminative_figures(total(item.counts() for item in result.items))
    assert result.metrics["precision"] == result.metrics["recall"] == result.metrics["f1"] == 50.0


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([], "0 answers"),
        ([(1, "a"), (1, "b")], "1 answered twice"),
        ([(99, "a")], r"unknown questions \[99\]"),
        ([(3, "No")], "not generative"),
    ],
)
def test_answers_to_other_questions_are_refused(small: Amber, answers: list[tuple[int, str]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        generative(answers, small, vocabulary_reader(small.vocabulary))


def test_descriptions_are_no_answers(small: Amber) -> None:
    with pytest.raises(DataError, match="not discriminative"):
        discriminative([(1, "No")], small)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingArtefact, match=r"annotations\.json"):
        load_amber(tmp_path)
    (tmp_path / "annotations.json").write_text('[{"id": 1, "type": "gener')
    (tmp_path / "relation.json").write_text("{}")
    (tmp_path / "safe_words.txt").write_text("light\n")
    with pytest.raises(DataError, match="cannot be read"):
        load_amber(tmp_path)
