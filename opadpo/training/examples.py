"""Preference examples as token ids and token weights, their lengths known before training starts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from opadpo.errors import DataError
from opadpo.images import open_rgb
from opadpo.models.families.base import Aspect, Processing, PromptInputs
from opadpo.progress import Progress
from opadpo.records import PreferenceExample
from opadpo.training.weights import TokenWeights, decode_offsets, lay_weights

if TYPE_CHECKING:
    from datasets import Dataset

KEPT_IN_MEMORY = 512 * 2**20
"""Bytes of image tensors that are kept from one epoch to the next; the rest is decoded again."""


class Response(NamedTuple):
    """A response as the model is trained on it."""

    ids: npt.NDArray[np.int32]
    """Token ids, end-of-sequence included where the response ended."""
    score: npt.NDArray[np.float32]
    """Weight of each token in the revised pair."""
    image: npt.NDArray[np.float32]
    """Weight of each token in the image pair."""


@dataclass(frozen=True)
class TrainingExample:
    """One row of a data set, ready but for its image."""

    example_id: str
    question: str
    image: Path
    prompt_length: int
    """Tokens of the prompt, image included."""
    responses: dict[str, Response]
    """By name: standard, revised, generated."""

    @property
    def longest_response(self) -> int:
        """Tokens of the longest response."""
        return max(len(response.ids) for response in self.responses.values())


EMPTY = "Look at dropped.jsonl of the data set, loosen `build.filters`, and run `opadpo build` again."
REMEDIES = {
    **{
        f"no_{name}_response": f"The rows have no {name} response: train on others, or make data that has them."
        for name in ("standard", "revised", "generated")
    },
    "longer_than_pad_to": "Set train.opadpo.pad_to to the longest response, or to null.",
    "longer_than_the_context": "Use shorter responses (rollout.max_new_tokens), smaller images, or another base.",
}
"""What to do where every row is left out, by reason."""


class LeftOut(NamedTuple):
    """An example that cannot be trained on, and why."""

    example_id: str
    reason: str
    detail: str


@dataclass
class Prompts:
    """Encodes the prompts of examples; keeps what it made while there is room."""

    processing: Processing
    aspect: Aspect | None = None
    room: int = KEPT_IN_MEMORY
    _kept: dict[str, PromptInputs] = field(default_factory=dict)

    def encode(self, example_id: str, question: str, image: Path) -> PromptInputs:
        """Prompt ids and image tensors."""
        if (known := self._kept.get(example_id)) is not None:
            return known
        prompt = self.processing.encode(question, open_rgb(image), self.aspect)
        size = sum(tensor.nbytes for tensor in prompt.model_inputs.values())
        if size <= self.room:
            self.room -= size
            self._kept[example_id] = prompt
        return prompt


class Preparation(NamedTuple):
    """What makes training examples of rows."""

    prompts: Prompts
    image_folder: Path
    """What the rows' image paths are relative to."""
    responses: tuple[str, ...]
    """Which responses are trained on."""
    context: int | None
    """Longest sequence that the model takes; None if it does not say."""
    longest: int | None = None
    """Longest response that is trained on; None for no limit."""
    may_lack: frozenset[str] = frozenset()
    """Responses that a row may lack: it then has no token of them."""
    score_weights: bool = False
    image_weights: bool = False


def prepare_examples(
    rows: "Dataset | Iterable[dict[str, object]]", preparation: Preparation, progress: Progress, *, total: int
) -> tuple[list[TrainingExample], list[LeftOut]]:
    """Tokenize every row and measure it; nothing is truncated.

    Rows that would not fit the model's context are left out, and rows without a response that is needed.

    Raises:
        DataError: if no row is left, or the stored token ids are of another tokenizer.
        ModelError: if the tokenizer has no offsets.
    """
    examples: list[TrainingExample] = []
    left_out: list[LeftOut] = []
    with progress.task("Tokenizing", total) as task:
        for row in rows:
            example = _prepare(PreferenceExample.model_validate(row), preparation)
            (examples if isinstance(example, TrainingExample) else left_out).append(example)  # pyright: ignore[reportArgumentType]
            task.advance()
    if not examples:
        reasons = sorted({item.reason for item in left_out}, key=list(REMEDIES).index)
        raise DataError(
            "There is nothing to train on",
            seen=f"{len(left_out)} rows, all left out: {', '.join(reasons)}" if left_out else "an empty data set",
            remedy=" ".join(REMEDIES[reason] for reason in reasons) or EMPTY,
        )
    return examples, left_out


def context_length(processing: Processing) -> int | None:
    """Positions that the language model was made for, from its config."""
    text = getattr(processing.config, "text_config", processing.config)
    return getattr(text, "max_position_embeddings", None)


def _prepare(row: PreferenceExample, preparation: Preparation) -> TrainingExample | LeftOut:
    for name in set(preparation.responses) - preparation.may_lack:
        if not getattr(row, name).strip():
            return LeftOut(row.example_id, f"no_{name}_response", "")
    image = preparation.image_folder / row.image
    prompt = preparation.prompts.encode(row.example_id, row.question, image)
    responses = {name: _response(name, row, preparation) for name in preparation.responses}
    if row.revised == row.generated:
        # Equal texts prefer nothing: weights of zero take the row out of the revised pair.
        responses = {name: r._replace(score=np.zeros_like(r.score)) for name, r in responses.items()}
    example = TrainingExample(row.example_id, row.question, image, len(prompt.input_ids), responses)
    if preparation.longest is not None and example.longest_response > preparation.longest:
        detail = f"{example.longest_response} tokens, pad_to is {preparation.longest}"
        return LeftOut(row.example_id, "longer_than_pad_to", detail)
    longest = example.prompt_length + example.longest_response
    if preparation.context is not None and longest > preparation.context:
        detail = (
            f"{example.prompt_length} tokens of prompt and image, {example.longest_response} of response,"
            f" the model takes {preparation.context}"
        )
        return LeftOut(row.example_id, "longer_than_the_context", detail)
    return example


def _response(name: str, row: PreferenceExample, preparation: Preparation) -> Response:
    processing = preparation.prompts.processing
    text: str = getattr(row, name)
    if name == "generated":
        ids = row.generated_token_ids
        offsets = decode_offsets(processing.tokenizer, ids, text)
        eos = "zero" if row.generated_finished else None
        weights = lay_weights(offsets, row.generated_spans, text=text, eos=eos)
    elif not text.strip():
        ids, weights = [], TokenWeights([], [])
    else:
        encoded = processing.family.encode_response(processing, text)
        stop = processing.family.stop_token_ids(processing)[0]
        ids, offsets = [*encoded.input_ids, stop], [*encoded.offsets, (len(text), len(text))]
        spans = row.revised_spans if name == "revised" else []
        weights = lay_weights(offsets, spans, text=text, eos="previous")
    ones = [1.0] * len(ids)
    return _as_arrays(
        ids,
        TokenWeights(
            weights.score if preparation.score_weights else ones,
            weights.image if preparation.image_weights else ones,
        ),
    )


def _as_arrays(ids: Sequence[int], weights: TokenWeights) -> Response:
    return Response(
        np.asarray(ids, dtype=np.int32),
        np.asarray(weights.score, dtype=np.float32),
        np.asarray(weights.image, dtype=np.float32),
    )
