"""How far the expert can be trusted: its verdicts against those of people, sentence by sentence."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field
from rapidfuzz.distance import Levenshtein

from opadpo.records import ErrorType, Revision, SentenceReview
from opadpo.review.store import ReviewStore
from opadpo.text.worddiff import words

SCORES = ("1", "2", "3", "4")
ERROR_TYPES: tuple[str, ...] = get_args(ErrorType)


class Trust(BaseModel):
    """What people did with the expert's verdicts. Counts are of sentences unless they say otherwise."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    responses: int = 0
    """Responses that the expert revised and a person checked."""
    untouched: int = 0
    """Of these, responses in which every verdict was accepted and nothing added or taken out."""
    sentences: int = 0
    """Sentences of these responses."""
    accepted: int = 0
    """Sentences that people left as the expert revised (or kept) them."""
    added: int = 0
    """Sentences that the expert added."""
    added_accepted: int = 0
    """Of these, sentences that people left word for word."""
    words_changed: int = 0
    """Words that people inserted, deleted or replaced in the sentences that they did not accept."""
    words: int = 0
    """Words of those sentences, of the longer version."""
    scores: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Expert's score -> people's score -> sentences."""
    error_types: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Expert's error type -> people's error type -> sentences."""

    @property
    def acceptance(self) -> float:
        """Share of sentences that were accepted, 0 to 1."""
        return self.accepted / self.sentences if self.sentences else 0.0

    @property
    def edit_distance(self) -> float:
        """Words changed in a sentence that was not accepted, on average."""
        changed = self.sentences - self.accepted
        return self.words_changed / changed if changed else 0.0

    def text(self) -> str:
        """The figures in one line."""
        return (
            f"people checked {self.responses} of the expert's responses: {100 * self.acceptance:.0f} % of"
            f" {self.sentences} sentences accepted, {self.edit_distance:.1f} words changed in each of the others;"
            f" same score {_agreeing(self.scores)} of {self.sentences}, same error type {_agreeing(self.error_types)}"
        )


def trust(pairs: Iterable[tuple[Revision, Revision]]) -> Trust:
    """Compare revisions, (expert's, person's) of the same response each."""
    tally: Counter[str] = Counter()
    scores: Counter[tuple[str, str]] = Counter()
    error_types: Counter[tuple[str, str]] = Counter()
    for expert, person in pairs:
        tally["responses"] += 1
        untouched = _additions(expert) == _additions(person)
        theirs = {sentence.index: sentence for sentence in _own(person)}
        for ours in _own(expert):
            other = theirs.get(ours.index)
            if other is None:
                continue
            tally["sentences"] += 1
            scores[str(ours.score), str(other.score)] += 1
            error_types[ours.error_type, other.error_type] += 1
            if other.revised.strip() == ours.revised.strip():
                tally["accepted"] += 1
                continue
            untouched = False
            before, after = words(ours.revised), words(other.revised)
            tally["words_changed"] += Levenshtein.distance(before, after)
            tally["words"] += max(len(before), len(after))
        tally["untouched"] += untouched
        tally["added"] += _additions(expert).total()
        tally["added_accepted"] += (_additions(expert) & _additions(person)).total()
    return Trust(
        **tally,
        scores={row: {column: scores[row, column] for column in SCORES} for row in SCORES},
        error_types={row: {column: error_types[row, column] for column in ERROR_TYPES} for row in ERROR_TYPES},
    )


def checked_pairs(store: ReviewStore) -> Iterator[tuple[Revision, Revision]]:
    """(expert's, person's) revisions of every response on which a person has the last word.

    The expert's is the one that the person started from, by the chain of parents; a person who started from nothing
    did not check the expert.
    """
    for person in store.iter_current():
        if person.author_kind != "human":
            continue
        known = {revision.revision_id: revision for revision in store.history(person.rollout_id)}
        revision: Revision | None = person
        while revision is not None and revision.author_kind != "expert":
            revision = known.get(revision.parent_revision_id or "")
        if revision is not None:
            yield revision, person


def _own(revision: Revision) -> list[SentenceReview]:
    return [sentence for sentence in revision.sentences if sentence.kind != "added"]


def _additions(revision: Revision) -> Counter[str]:
    return Counter(sentence.revised.strip() for sentence in revision.sentences if sentence.kind == "added")


def _agreeing(matrix: dict[str, dict[str, int]]) -> int:
    return sum(row[name] for name, row in matrix.items())
