"""Log-probs of responses: every response in a sequence of its own, [prompt | response].

`packing` has the faster layout, which gives the same; this one is what it is tested against.
Only the positions that predict a response token are scored: neither the prompt nor padding goes through the head.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LANES = 16
"""float32 numbers in the widest vector of a CPU (AVX-512)."""

CHUNK = 4096
"""Positions whose log-softmax is held in float32 at once."""


class Scored(Protocol):
    """Responses that can be scored, however they are put together."""

    @property
    def response_mask(self) -> Tensor:
        """bool (responses, longest response): where the responses have tokens."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of all sequences, each with its prompt; the same in every layout."""
        ...

    def placed(self, device: torch.device, dtype: torch.dtype) -> "Scored":
        """The same on a device, floating-point inputs in the model's data type."""
        ...

    def prepared(self, model: nn.Module) -> "Scored":
        """The same with what depends on the frozen part of the model alone, computed once for policy and reference."""
        ...

    def logps(self, model: nn.Module) -> Tensor:
        """Log-prob of every response token, float32 (responses, longest response); 0 at padding."""
        ...


class Sequences(NamedTuple):
    """A batch of sequences of one length; row order and what the rows mean are the caller's."""

    input_ids: Tensor
    """(rows, length): prompt, response, padding."""
    attention_mask: Tensor
    """(rows, length): 1 where there is a token."""
    scored: Tensor
    """bool (rows, length): positions whose logits predict a response token, the last one of the prompt included."""
    targets: Tensor
    """(scored positions,): the response tokens, row after row."""
    response_mask: Tensor
    """bool (rows, longest response): where the responses have tokens."""
    model_inputs: dict[str, Tensor]
    """Whatever else the model takes (pixels, sizes), batched."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.attention_mask.sum())

    def placed(self, device: torch.device, dtype: torch.dtype) -> "Sequences":
        """The batch on a device, floating-point inputs (pixels) in the model's data type."""
        inputs = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self.model_inputs.items()
        }
        return Sequences(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.scored.to(device),
            self.targets.to(device),
            self.response_mask.to(device),
            inputs,
        )

    def prepared(self, model: nn.Module) -> "Sequences":
        """The batch as it is: every sequence is computed by itself."""
        return self

    def logps(self, model: nn.Module) -> Tensor:
        """Log-prob of every response token, float32 (rows, longest response); 0 at padding."""
        output: Any = model(
            input_ids=self.input_ids,
            attention_mask=self.attention_mask,
            logits_to_keep=self.scored,
            use_cache=False,
            **self.model_inputs,
        )
        return spread(token_logps(output.logits, self.targets), self.response_mask)


def pad_sequences(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    model_inputs: Mapping[str, Tensor],
    *,
    pad_token_id: int,
    padding_side: str = "right",
) -> Sequences:
    """Put prompts and responses together; nothing is cut."""
    rows = len(prompts)
    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    length, width = padded_length(lengths), max(map(len, responses))
    input_ids = torch.full((rows, length), pad_token_id)
    attention_mask = torch.zeros((rows, length), dtype=torch.long)
    scored = torch.zeros((rows, length), dtype=torch.bool)
    response_mask = torch.zeros((rows, width), dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start = length - lengths[row] if padding_side == "left" else 0
        middle, end = start + len(prompt), start + lengths[row]
        input_ids[row, start:middle] = torch.as_tensor(prompt)
        input_ids[row, middle:end] = torch.as_tensor(response)
        attention_mask[row, start:end] = 1
        scored[row, middle - 1 : end - 1] = True
        response_mask[row, : len(response)] = True
    targets = torch.cat([torch.as_tensor(response, dtype=torch.long) for response in responses])
    return Sequences(input_ids, attention_mask, scored, targets, response_mask, dict(model_inputs))


def padded_length(lengths: Sequence[int]) -> int:
    """Length that sequences of these lengths are padded to together.

    A multiple of the widest vector of float32. Attention kernels sum what does not fill a vector in another order: with
    full vectors only, padding adds zeros at the end, and a sequence scores the same to the last bit whatever else is in
    its batch. (GPU kernels copy a mask whose rows are not aligned.)
    """
    return -(-max(lengths) // LANES) * LANES


def response_logps(model: nn.Module, batch: Scored) -> Tensor:
    """Log-prob of every response token, float32 (responses, longest response); 0 at padding."""
    return batch.logps(model)


def spread(values: Tensor, response_mask: Tensor) -> Tensor:
    """Values of the response tokens, response after response, where the mask has them; 0 elsewhere."""
    logps = torch.zeros(response_mask.shape, dtype=values.dtype, device=values.device)
    return logps.masked_scatter(response_mask, values)


def token_logps(logits: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Log-softmax of `logits` (positions, vocabulary) at `targets` (positions,), float32 (float64 stays).

    Where there are more positions than `chunk`, the float32 copies of only so many exist at a time, in the backward
    pass as well (they are recomputed there).
    """
    if len(targets) <= chunk:
        return _chosen(logits, targets)
    pieces = zip(logits.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([checkpoint(_chosen, piece, target, use_reentrant=False) for piece, target in pieces])


def _chosen(logits: Tensor, targets: Tensor) -> Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
