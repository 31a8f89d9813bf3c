"""Readers of nouns: offline by a vocabulary; the authors' own only where their packages are."""

import sys

import pytest

from opadpo.errors import DependencyMissing
from opadpo.evaluation.nouns import nltk_reader, spacy_similarity, vocabulary_reader


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("Dogs and a DOG", ["dog", "dog"]),
        ("Three men; their children’s knives", ["man", "knife"]),
        ("A teddy-bear, a bear.", ["bear"]),
        ("", []),
        ("✨ 犬 Ünïcode ✨", []),
    ],
)
def test_words_of_the_vocabulary_in_any_case_and_number(text: str, nouns: list[str]) -> None:
    assert vocabulary_reader({"dog", "man", "knife", "bear"})(text) == nouns


@pytest.mark.parametrize(
    ("package", "make", "setting"),
    [("nltk", nltk_reader, "evaluate.nouns"), ("spacy", spacy_similarity, "evaluate.similarity")],
)
def test_a_missing_package_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, package: str, make: object, setting: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyMissing, match=rf"pip install {package}(.|\n)*{setting}"):
        make()  # pyright: ignore[reportCallIssue]
