"""Sampling responses: batched, with a random stream per row, so that a row's sample does not depend on its batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from opadpo.errors import StepFailed
from opadpo.models.families.base import Processing, PromptInputs
from opadpo.records import FinishReason, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPACT_BELOW = 0.75
"""Finished rows leave the batch when no more than this share of its rows is still going on."""


class Generation(NamedTuple):
    """One response."""

    token_ids: list[int]
    """Without prompt; a stop id is the last one if the model ended by itself."""
    text: str
    """Special tokens removed."""
    finish_reason: FinishReason
    """`stop` or `length`."""


def generate(
    model: "PreTrainedModel | Any",
    processing: Processing,
    rows: Sequence[tuple[PromptInputs, int]],
    sampling: Sampling,
) -> list[Generation]:
    """Sample one response per row of (prompt, seed), all in one batch.

    The sample is the arg max of the filtered log-probabilities plus Gumbel noise, which is an exact draw from them;
    the noise at each position comes from the row's own CPU generator. So the same seed gives the same response alone
    or in any batch, on a CPU or a GPU, as long as rounding does not tip a near tie. With temperature 0 the noise is
    left out and the result is the library's greedy one.

    Raises:
        StepFailed: if the device's memory is not enough.
    """
    if not rows:
        return []
    try:
        with torch.inference_mode():
            return _generate(model, processing, rows, sampling)
    except torch.OutOfMemoryError as error:
        raise StepFailed(
            "The device has not enough memory for this batch",
            seen=f"{len(rows)} prompts of up to {max(len(p.input_ids) for p, _ in rows)} tokens",
            remedy="lower batch_size of the step in the recipe; what is done is kept",
        ) from error


def filtered_logits(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits (rows, vocabulary) after temperature, top-k and top-p in this order, as in transformers; -inf is out."""
    logits = logits.float() / sampling.temperature
    if not sampling.top_k and sampling.top_p >= 1:
        return logits
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if sampling.top_k:
        last = min(sampling.top_k, ordered.shape[-1]) - 1
        keep &= ordered >= ordered[:, last : last + 1]
    if sampling.top_p < 1:
        probabilities = ordered.masked_fill(~keep, -torch.inf).softmax(-1)
        keep &= probabilities.cumsum(-1) - probabilities < sampling.top_p
    return logits.masked_fill(~torch.zeros_like(keep).scatter(-1, order, keep), -torch.inf)


def _generate(
    model: Any, processing: Processing, rows: Sequence[tuple[PromptInputs, int]], sampling: Sampling
) -> list[Generation]:
    stops = set(processing.family.stop_token_ids(processing))
    generators = [torch.Generator().manual_seed(seed) for _, seed in rows]
    responses: list[list[int]] = [[] for _ in rows]
    state = _Decoding(model, processing, [prompt for prompt, _ in rows])
    active = list(range(len(rows)))
    """Indices of the rows in the model's batch; finished ones stay until the batch is made smaller."""
    done: set[int] = set()
    while True:
        tokens = _choose(state.logits, [generators[i] for i in active], sampling)
        for row, token in zip(active, tokens, strict=True):
            if row not in done:
                responses[row].append(token)
                if token in stops or len(responses[row]) == sampling.max_new_tokens:
                    done.add(row)
        left = [place for place, row in enumerate(active) if row not in done]
        if not left:
            break
        if len(left) <= COMPACT_BELOW * len(active):
            state.keep(left)
            active = [active[place] for place in left]
            tokens = [tokens[place] for place in left]
        state.advance(tokens)
    return [
        Generation(ids, processing.family.decode(processing, ids), "stop" if ids[-1] in stops else "length")
        for ids in responses
    ]


def _choose(logits: torch.Tensor, generators: Sequence[torch.Generator], sampling: Sampling) -> list[int]:
    """The next token of every row of `logits` (rows, vocabulary)."""
    if sampling.temperature == 0:
        return logits.float().argmax(-1).tolist()
    noise = torch.empty(logits.shape, dtype=torch.float32)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    noise = -noise.to(logits.device).log()
    return (filtered_logits(logits, sampling) + noise).argmax(-1).tolist()


class _Decoding:
    """The model's side of decoding: left-padded prompts, key-value cache, logits of the next position."""

    def __init__(self, model: Any, processing: Processing, prompts: Sequence[PromptInputs]) -> None:
        from transformers import DynamicCache

        self.model = model
        self.cache = DynamicCache(config=model.config)
        length = max(len(prompt.input_ids) for prompt in prompts)
        pad = processing.tokenizer.pad_token_id
        ids = torch.full((len(prompts), length), 0 if pad is None else pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            start = length - len(prompt.input_ids)
            ids[row, start:] = torch.tensor(prompt.input_ids)
            mask[row, start:] = 1
        images = processing.family.collate_model_inputs([prompt.model_inputs for prompt in prompts])
        inputs = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in (images | processing.family.sequence_inputs(processing, ids)).items()
        }
        self.image_token = processing.family.image_token_id(processing)
        self.mask, ids = mask.to(model.device), ids.to(model.device)
        self.positions = processing.family.position_ids(model, ids, self.mask, inputs)
        """(rows, length) or (axes, rows, length)"""
        self._forward(ids, inputs)

    def advance(self, tokens: Sequence[int]) -> None:
        """Append one token per row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[..., -1:] + 1
        self._forward(torch.tensor(tokens, device=self.mask.device)[:, None], {})

    def keep(self, places: Sequence[int]) -> None:
        """Leave only these rows of the batch."""
        index = torch.tensor(places, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.positions = self.mask[index], self.positions[..., index, :]

    def _forward(self, ids: torch.Tensor, inputs: dict[str, torch.Tensor]) -> None:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **inputs,
        )
        self.logits = output.logits[:, -1]
        # A response with an image token in it could not be trained on: the model would look for its image.
        self.logits[:, self.image_token] = -torch.inf
