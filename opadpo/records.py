"""The records that travel from step to step: one per arrow of the pipeline.

All are frozen, carry a `schema_version`, and name their parent. Ids are content hashes, so the same
content made twice has the same id. A changed record is a new record.
"""

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from opadpo.hashing import content_id

SCHEMA_VERSION = 1

Split = Literal["train", "heldout"]
SentenceKind = Literal["kept", "edited", "deleted", "added"]
ErrorType = Literal["correct", "image_recognition_error", "language_comprehension_error"]
AuthorKind = Literal["expert", "human", "import"]
RevisionStatus = Literal["done", "failed", "rejected", "flagged"]
FinishReason = Literal["stop", "length"]


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: int = SCHEMA_VERSION
    """Version of the record's fields; readers refuse a newer one."""


class Prompt(Record):
    """One question about one image: what `prepare` writes."""

    prompt_id: str
    """Content hash of image and question."""
    image_id: str
    """SHA-256 (64 hex digits) of the stored image file."""
    image_file: str
    """Path of the image, relative to the workspace's `prompts/` folder."""
    question: str
    """What the model is asked; no image placeholder."""
    reference: str
    """A good answer (the "standard" response of the paper); empty if there is none."""
    source: str
    """Where the row comes from (origin data set or folder); subsets are proportional by it."""
    split: Split
    """`train` and `heldout` never share an image."""
    subset: str
    """Name of the seeded, disjoint subset within the split."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Anything else the source had: the rejected answer, ids, or the toy world's truth."""

    @classmethod
    def create(cls, *, image_id: str, question: str, **fields: Any) -> Self:
        """Make a prompt with its content id."""
        return cls(prompt_id=content_id("p", [image_id, question]), image_id=image_id, question=question, **fields)


class Sampling(Record):
    """How responses are decoded. `temperature` 0 is greedy."""

    temperature: float = Field(ge=0)
    """Softmax temperature; 0 takes the most probable token."""
    top_k: int = Field(ge=0)
    """Sample among the k most probable tokens; 0 switches this off."""
    top_p: float = Field(gt=0, le=1)
    """Sample among the smallest set of tokens with this total probability."""
    max_new_tokens: int = Field(ge=1)
    """Stop after this many tokens (`finish_reason` is then `length`)."""


class Generated(Record):
    """What is stored with every text that a model made, so that it can be made again."""

    prompt_id: str
    """Parent."""
    response: str
    """The text, special tokens removed."""
    response_token_ids: list[int]
    """The sampled ids without prompt; the end-of-sequence id is the last one if `finish_reason` is `stop`."""
    model: str
    """Base model (hub id or name) and revision, `id@revision`."""
    adapter: str
    """Name of the adapter, or "base"."""
    adapter_hash: str
    """SHA-256 of the adapter's weights and config; empty for the base."""
    template: str
    """`prompt.template` in effect."""
    image_aspect: str
    """`image.aspect` in effect."""
    sampling: Sampling
    """Decoding settings."""
    finish_reason: FinishReason
    """`stop`: the model ended; `length`: it was cut."""


class Rollout(Generated):
    """One sampled response of the model that will be trained."""

    rollout_id: str
    """Content hash of prompt, settings and token ids."""
    sample_index: int
    """0 for the first sample of a prompt, 1 for the second, ..."""
    token_ids_exact: bool = True
    """False where a server returned text only and the ids come from tokenizing it again."""
    seed: int
    """Seed of this row's sampling."""

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make a rollout with its content id."""
        settings = {k: (v.model_dump() if isinstance(v, BaseModel) else v) for k, v in fields.items()}
        return cls(rollout_id=content_id("r", settings), **fields)


class Caption(Generated):
    """One description of a held-out image by the base or by an aligned model."""

    prompt_set: str
    """Name of the set of prompts, as in `captions/<model>/<set>.parquet`."""

    @property
    def token_count(self) -> int:
        """Number of generated tokens, end-of-sequence included."""
        return len(self.response_token_ids)


class SentenceReview(Record):
    """What the expert or a person did with one sentence of the response."""

    index: int = Field(ge=0)
    """Position among the sentences of the response; an added sentence has the index it follows."""
    kind: SentenceKind
    """kept (unchanged), edited, deleted, or added."""
    start: int = Field(ge=0)
    """First character of the sentence in the response; for an added one, where it goes in. A deleted sentence's
    span takes one separator along, so that no double space is left."""
    end: int = Field(ge=0)
    """One past the last character; equals `start` for an added sentence."""
    original: str
    """The response's own characters start:end; empty for an added sentence."""
    revised: str
    """The text after revision; empty if deleted."""
    score: int | None = Field(default=None, ge=1, le=4)
    """1 (very wrong) to 4 (right, unchanged); None for an added sentence."""
    error_type: ErrorType = "correct"
    """Why it was changed."""
    objects: list[str] = Field(default_factory=list)
    """Objects in error, each "wrong -> right"."""
    reason: str = ""
    """One line of explanation."""
    not_minimal: bool = False
    """True where the rewriting touches more words than the recipe allows without a second look."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        if self.kind == "added":
            if self.score is not None or self.original or self.start != self.end or not self.revised.strip():
                raise ValueError("an added sentence has no score, no original, an empty span and some text")
            return self
        if self.score is None:
            raise ValueError(f"a {self.kind} sentence needs a score")
        if (self.kind == "kept") != (self.score == 4):
            raise ValueError(f"score 4 means kept and only that; seen {self.kind} with score {self.score}")
        if self.kind == "kept" and self.revised != self.original:
            raise ValueError("a kept sentence must be unchanged")
        if (self.kind == "deleted") != (self.revised == ""):
            raise ValueError(f"deleted means empty revised text and only that; seen {self.kind}")
        return self


class Usage(Record):
    """What a request cost."""

    prompt_tokens: int = 0
    """Tokens of the request, image included, as the server counts them."""
    completion_tokens: int = 0
    """Tokens of the answer."""
    requests: int = 0
    """HTTP requests made for the row, retries and repairs included."""
    cost_usd: float = 0.0
    """US dollars by the recipe's price table; 0 if it has none."""


class Revision(Record):
    """A version of one rollout's text, by the expert or by a person. Append-only."""

    revision_id: str
    """Content hash."""
    rollout_id: str
    """The rollout that is revised."""
    parent_revision_id: str | None = None
    """The revision that this one changes; None for the first."""
    author_kind: AuthorKind
    """expert, human or import."""
    author: str
    """Model name as the server reports it, or the person's name."""
    created_at: datetime
    """UTC."""
    image_description: str = ""
    """What the expert saw before judging."""
    sentences: list[SentenceReview]
    """In reading order; together with the separators between them they cover the response."""
    text: str
    """The response with the sentences' spans replaced and the original separators kept."""
    status: RevisionStatus = "done"
    """done, failed (with the reason in `note`), rejected from training, or flagged for a second look."""
    usage: Usage = Field(default_factory=Usage)
    """Cost of the expert's requests; zero for people."""
    note: str = ""
    """Reason of a failure or rejection, or a reviewer's remark."""

    @classmethod
    def create(cls, *, created_at: datetime | None = None, **fields: Any) -> Self:
        """Make a revision with its content id; `created_at` defaults to now."""
        moment = created_at or datetime.now(UTC)
        draft = cls(revision_id="", created_at=moment, **fields)
        return draft.model_copy(
            update={"revision_id": content_id("v", draft.model_dump(mode="json", exclude={"revision_id"}))}
        )


class WeightSpan(Record):
    """Weights of a stretch of characters in the generated or the revised text."""

    start: int = Field(ge=0)
    """First character."""
    end: int = Field(ge=0)
    """One past the last character."""
    score_weight: float = Field(ge=0)
    """Weight in the revised pair: 2.5, 2.0, 1.5, 1.0 for scores 1, 2, 3, 4."""
    image_weight: float = Field(ge=0)
    """Weight in the image pair: 3.0 for image recognition errors, else 1.0."""


class PreferenceExample(Record):
    """One training example: an image, a question and three responses."""

    example_id: str
    """Content hash; not of `revision_id`, which holds a time: masks are drawn by it, the same in every run."""
    prompt_id: str
    """The prompt."""
    rollout_id: str
    """The rollout that `generated` comes from."""
    revision_id: str
    """The revision that `revised` comes from."""
    question: str
    """As in the prompt."""
    image: str
    """Path of the image relative to the workspace's `prompts/` folder."""
    standard: str
    """The reference answer; may be empty only if the recipe's standard pair is off."""
    revised: str
    """The corrected response."""
    generated: str
    """The model's own response."""
    generated_token_ids: list[int]
    """Exactly the ids that were sampled."""
    generated_finished: bool
    """True if the ids end with the end-of-sequence id."""
    generated_spans: list[WeightSpan]
    """Weights over the characters of `generated`."""
    revised_spans: list[WeightSpan]
    """Weights over the characters of `revised`."""
    human_verified: bool
    """True if a person made or accepted the revision."""

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make an example with its content id."""
        draft = cls(example_id="", **fields)
        return draft.model_copy(
            update={"example_id": content_id("e", draft.model_dump(mode="json", exclude={"example_id", "revision_id"}))}
        )


def assemble(response: str, sentences: list[SentenceReview]) -> str:
    """The response with every sentence's span replaced by its revised text; all other characters stay.

    Joining spaces are part of the records: the span of a deleted sentence takes one separator along and the text
    of an added one brings its own (`opadpo.text.revising.compose` makes them so).

    Raises:
        ValueError: if a span does not hold the sentence's original text, or spans overlap.
    """
    return "".join(text for text, _ in assembled_pieces(response, sentences))


def assembled_pieces(response: str, sentences: list[SentenceReview]) -> list[tuple[str, SentenceReview | None]]:
    """The pieces of the revised text in order, each with its sentence (None for what lies between sentences).

    Raises:
        ValueError: as `assemble`.
    """
    pieces: list[tuple[str, SentenceReview | None]] = []
    position = 0
    for sentence in sorted(sentences, key=lambda s: (s.start, s.end)):
        if sentence.start < position:
            raise ValueError(f"sentence {sentence.index} overlaps the one before it at character {sentence.start}")
        seen = response[sentence.start : sentence.end]
        if seen != sentence.original:
            raise ValueError(
                f"sentence {sentence.index}: characters {sentence.start}:{sentence.end} of the response are"
                f" {seen!r}, not {sentence.original!r}"
            )
        pieces.append((response[position : sentence.start], None))
        pieces.append((sentence.revised, sentence))
        position = sentence.end
    pieces.append((response[position:], None))
    return [(text, sentence) for text, sentence in pieces if text]
