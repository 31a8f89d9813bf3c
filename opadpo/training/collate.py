"""From a stream of examples to batches of sequences."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from opadpo.hashing import derive_seed
from opadpo.training.examples import Prompts, Response, TrainingExample
from opadpo.training.logps import Sequences, pad_sequences

MASKED = "_masked"
"""Suffix of a response's name under the masked image."""

ImageMask = Callable[[dict[str, Tensor], int], dict[str, Tensor]]
"""Model inputs of a prompt and a seed -> the same with the image masked."""


class Visit(NamedTuple):
    """One example at one moment of training."""

    example: int
    """Position among the examples."""
    epoch: int
    """Passes over the data before this one."""


class ExampleStream(Dataset[Visit]):
    """All visits of a run in order: seeded permutations of the examples, one after another, without a seam.

    Every update has the same number of examples, also where an epoch ends within it, so that neither the number of
    processes nor the micro-batch size decides which examples meet.
    """

    def __init__(self, examples: int, visits: int, seed: int) -> None:
        epochs = -(-visits // examples)
        orders = [torch.randperm(examples, generator=_generator(seed, epoch)) for epoch in range(epochs)]
        self.examples = examples
        self.order = torch.cat(orders)[:visits].tolist()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Visit:
        """The visit at a position."""
        return Visit(self.order[position], position // self.examples)


class Batch(NamedTuple):
    """A micro-batch; rows of `sequences` are grouped by response, in the order of `names`."""

    sequences: Sequences
    indexes: Tensor
    """(batch,): positions among the examples."""
    masks: dict[str, Tensor]
    """Response -> bool (batch, longest response): where it has tokens."""
    weights: dict[str, Tensor]
    """`generated_score`, `revised_score`, `revised_image` -> (batch, longest response), 0 at padding."""

    def placed(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The batch on a device, its images in the model's data type."""
        return Batch(
            self.sequences.placed(device, dtype),
            self.indexes.to(device),
            {name: mask.to(device) for name, mask in self.masks.items()},
            {name: weights.to(device) for name, weights in self.weights.items()},
        )


class Collator:
    """Makes batches: for each example the sequences `names`, those that end in `_masked` under a masked image."""

    def __init__(
        self,
        examples: Sequence[TrainingExample],
        prompts: Prompts,
        names: Sequence[str],
        *,
        mask: ImageMask | None = None,
        mask_seed: Callable[[str, int], int] | None = None,
        padding_side: str = "right",
    ) -> None:
        """`mask_seed` gives the seed of an example's mask in an epoch; both are needed for masked names."""
        self.examples = examples
        self.prompts = prompts
        self.names = tuple(names)
        self.mask = mask
        self.mask_seed = mask_seed
        self.padding_side = padding_side

    def __call__(self, visits: Sequence[Visit]) -> Batch:
        """One micro-batch."""
        rows = [self.examples[visit.example] for visit in visits]
        prompts = [self.prompts.encode(row.example_id, row.question, row.image) for row in rows]
        clean = [prompt.model_inputs for prompt in prompts]
        masked = self._masked(visits, rows, clean) if any(name.endswith(MASKED) for name in self.names) else []
        inputs: list[dict[str, Tensor]] = []
        responses: list[Any] = []
        for name in self.names:
            inputs += masked if name.endswith(MASKED) else clean
            responses += [row.responses[name.removesuffix(MASKED)].ids for row in rows]
        processing = self.prompts.processing
        sequences = pad_sequences(
            [prompt.input_ids for prompt in prompts] * len(self.names),
            responses,
            processing.family.collate_model_inputs(inputs),
            pad_token_id=self._pad_token_id(),
            padding_side=self.padding_side,
        )
        sequences.model_inputs.update(processing.family.sequence_inputs(processing, sequences.input_ids))
        grouped = sequences.response_mask.view(len(self.names), len(rows), -1)
        masks = {name: grouped[place] for place, name in enumerate(self.names) if not name.endswith(MASKED)}
        weights = {
            f"{name}_{kind}": _weights([row.responses[name] for row in rows], kind, masks[name].shape[1])
            for name, kind in (("generated", "score"), ("revised", "score"), ("revised", "image"))
            if name in masks
        }
        return Batch(sequences, torch.tensor([visit.example for visit in visits]), masks, weights)

    def _masked(
        self, visits: Sequence[Visit], rows: Sequence[TrainingExample], clean: Sequence[dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        if self.mask is None or self.mask_seed is None:
            raise ValueError("masked sequences need a mask and its seed")
        seeds = [self.mask_seed(row.example_id, visit.epoch) for row, visit in zip(rows, visits, strict=True)]
        return [self.mask(inputs, seed) for inputs, seed in zip(clean, seeds, strict=True)]

    def _pad_token_id(self) -> int:
        tokenizer = self.prompts.processing.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _weights(responses: Sequence[Response], kind: str, width: int) -> Tensor:
    weights = torch.zeros((len(responses), width))
    for row, response in enumerate(responses):
        weights[row, : len(response.ids)] = torch.from_numpy(getattr(response, kind))
    return weights


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
