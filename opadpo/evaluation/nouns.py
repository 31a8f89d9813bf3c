"""Which nouns a text names: a reader that works offline, and that of the benchmarks' authors where it is installed."""

import importlib
import re
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

from opadpo.errors import DependencyMissing

NounReader = Callable[[str], list[str]]
"""A text -> its nouns in order, singular, repeats kept."""
Similarity = Callable[[str, str], bool]
"""Whether two nouns count as the same thing."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_THRESHOLD = 0.8
"""Cosine of word vectors above which AMBER takes two nouns for one thing (its `similarity_score`)."""


def vocabulary_reader(vocabulary: Collection[str]) -> NounReader:
    """A reader that keeps the words of a vocabulary, in any case and number.

    A word that is in the vocabulary as it stands is taken as it stands; else its singular by lemminflect, if that is in
    the vocabulary. There is no tagger: a verb that looks like a noun of the vocabulary counts as that noun.
    """
    from lemminflect import getLemma

    known = frozenset(word.lower() for word in vocabulary)

    @lru_cache(maxsize=100_000)
    def noun(word: str) -> str | None:
        if word in known:
            return word
        return next((lemma for lemma in getLemma(word, upos="NOUN") if lemma in known), None)

    def read(text: str) -> list[str]:
        found = (noun(word) for word in _WORD.findall(text.lower().replace("’", "'")))
        return [word for word in found if word is not None]

    return read


def nltk_reader() -> NounReader:
    """The reader of AMBER's authors: NLTK's tokens, those tagged NN*, lemmas of WordNet; capitals are kept.

    Raises:
        DependencyMissing: if NLTK or its data is not there.
    """
    try:
        nltk: Any = importlib.import_module("nltk")
        lemmatize: Callable[[str], str] = nltk.stem.WordNetLemmatizer().lemmatize

        def read(text: str) -> list[str]:
            tagged = nltk.pos_tag(nltk.word_tokenize(text))
            return [lemmatize(word) for word, tag in tagged if tag.startswith("NN")]

        read("a dog")
    except (ImportError, LookupError) as error:
        raise DependencyMissing(
            "The noun reader `nltk` needs NLTK with its tokenizer, tagger and WordNet",
            seen=str(error).strip().splitlines()[0],
            remedy="pip install nltk; python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet;"
            " or set evaluate.nouns to vocabulary",
        ) from error
    return read


def same_word(first: str, second: str) -> bool:
    """The similarity that needs nothing: equality."""
    return first == second


def spacy_similarity(threshold: float = _THRESHOLD) -> Similarity:
    """The similarity of AMBER's authors: word vectors of spaCy's `en_core_web_lg`.

    Raises:
        DependencyMissing: if spaCy or that model is not there.
    """
    try:
        pipeline: Any = importlib.import_module("spacy").load("en_core_web_lg")
    except (ImportError, OSError) as error:
        raise DependencyMissing(
            "The similarity `spacy` needs spaCy with its large English model",
            seen=str(error).strip().splitlines()[0],
            remedy="pip install spacy; python -m spacy download en_core_web_lg; or set evaluate.similarity to exact",
        ) from error
    document = lru_cache(maxsize=100_000)(pipeline)

    @lru_cache(maxsize=1_000_000)
    def similar(first: str, second: str) -> bool:
        return document(first).similarity(document(second)) > threshold

    return similar
