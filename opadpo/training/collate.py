"""From a stream of examples to batches of sequences."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from opadpo.hashing import derive_seed
from opadpo.recipe.training import TrainerSection
from opadpo.training.arguments import micro_batch_size
from opadpo.training.examples import Prompts, Response, TrainingExample
from opadpo.training.logps import Scored, pad_sequences, spread
from opadpo.training.microbatches import deal
from opadpo.training.packing import PackedRow, pack_rows

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


class ExampleStream(Dataset[list[Visit]]):
    """All micro-batches of a run in order: seeded permutations of the examples, one after another, without a seam.

    Every update has the same number of examples, also where an epoch ends within it, so that neither the number of
    processes nor the micro-batches decide which examples meet in an update.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        updates: int,
        seed: int,
        *,
        update: int,
        size: int,
        processes: int = 1,
        tokens: int | None = None,
    ) -> None:
        """`lengths` are those of the examples, `update` is the number of visits of each update; the rest as `deal`."""
        examples, visits = len(lengths), updates * update
        epochs = -(-visits // examples)
        orders = [torch.randperm(examples, generator=_generator(seed, epoch)).tolist() for epoch in range(epochs)]
        drawn = [Visit(example, epoch) for epoch, order in enumerate(orders) for example in order]
        groups = [drawn[first : first + update] for first in range(0, visits, update)]
        dealt = deal(
            [[lengths[visit.example] for visit in group] for group in groups],
            processes=processes,
            size=size,
            tokens=tokens,
        )
        self.accumulation = len(dealt[0]) // processes
        """Micro-batches of an update and process."""
        self.batches = [
            [g[place] for place in places] for g, places_of in zip(groups, dealt, strict=True) for places in places_of
        ]

    @property
    def visits(self) -> list[Visit]:
        """All visits in order."""
        return [visit for batch in self.batches for visit in batch]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, position: int) -> list[Visit]:
        """The micro-batch at a position."""
        return self.batches[position]


def stream_of(
    section: TrainerSection,
    examples: Sequence[TrainingExample],
    names: Sequence[str],
    *,
    updates: int,
    seed: int,
    processes: int = 1,
) -> ExampleStream:
    """The micro-batches of a stage that trains on the responses `names`."""
    return ExampleStream(
        [row_tokens(example, names) for example in examples],
        updates,
        seed,
        update=section.batch_size,
        size=micro_batch_size(section, processes),
        processes=processes,
        tokens=section.micro_batch_tokens,
    )


def row_tokens(example: TrainingExample, names: Sequence[str]) -> int:
    """Tokens of an example's packed rows: each image's prompt, and the responses `names` under it."""
    images = {name.endswith(MASKED) for name in names}
    responses = sum(len(example.responses[name.removesuffix(MASKED)].ids) for name in names)
    return len(images) * example.prompt_length + responses


StoredLogps = Callable[[Sequence[Visit], Sequence[str]], Tensor]
"""Visits and names of responses -> their log-probs under the reference, response after response as in a batch."""


class Batch(NamedTuple):
    """A micro-batch; responses of `sequences` are grouped by name, in the order of `names`."""

    sequences: Scored
    indexes: Tensor
    """(batch,): positions among the examples."""
    masks: dict[str, Tensor]
    """Response -> bool (batch, longest response): where it has tokens."""
    weights: dict[str, Tensor]
    """`generated_score`, `revised_score`, `revised_image` -> (batch, longest response), 0 at padding."""
    reference: Tensor | None = None
    """float32 (responses, longest response): log-probs under the reference, 0 at padding; None: not known yet."""

    def placed(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The batch on a device, its images in the model's data type."""
        return Batch(
            self.sequences.placed(device, dtype),
            self.indexes.to(device),
            {name: mask.to(device) for name, mask in self.masks.items()},
            {name: weights.to(device) for name, weights in self.weights.items()},
            None if self.reference is None else self.reference.to(device),
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
        packing: bool = False,
    ) -> None:
        """`mask_seed` gives the seed of an example's mask in an epoch; both are needed for masked names.

        With `packing` all responses under one image share a row.
        """
        self.examples = examples
        self.prompts = prompts
        self.names = tuple(names)
        self.mask = mask
        self.mask_seed = mask_seed
        self.padding_side = padding_side
        self.packing = packing
        self.reference: StoredLogps | None = None
        """Where batches take the reference's log-probs from, once they are computed."""

    def __call__(self, visits: Sequence[Visit]) -> Batch:
        """One micro-batch."""
        rows = [self.examples[visit.example] for visit in visits]
        prompts = [self.prompts.encode(row.example_id, row.question, row.image) for row in rows]
        clean = [prompt.model_inputs for prompt in prompts]
        masked = self._masked(visits, rows, clean) if any(name.endswith(MASKED) for name in self.names) else []
        put_together = self._packed if self.packing else self._apart
        sequences = put_together(rows, [prompt.input_ids for prompt in prompts], {False: clean, True: masked})
        grouped = sequences.response_mask.view(len(self.names), len(rows), -1)
        masks = {name: grouped[place] for place, name in enumerate(self.names) if not name.endswith(MASKED)}
        weights = {
            f"{name}_{kind}": _weights([row.responses[name] for row in rows], kind, masks[name].shape[1])
            for name, kind in (("generated", "score"), ("revised", "score"), ("revised", "image"))
            if name in masks
        }
        stored = None if self.reference is None else self.reference(visits, self.names)
        reference = None if stored is None else spread(stored, sequences.response_mask)
        return Batch(sequences, torch.tensor([visit.example for visit in visits]), masks, weights, reference)

    def only(self, batches: Sequence[Sequence[Visit]]) -> Batch:
        """The micro-batch of a list of one, as a loader of micro-batches gives it."""
        (visits,) = batches
        return self(visits)

    def _apart(
        self,
        rows: Sequence[TrainingExample],
        prompts: Sequence[Sequence[int]],
        images: dict[bool, list[dict[str, Tensor]]],
    ) -> Scored:
        """Every response in a sequence of its own; `images` are the clean ones (False) and the masked ones (True)."""
        processing = self.prompts.processing
        inputs = [one for name in self.names for one in images[name.endswith(MASKED)]]
        sequences = pad_sequences(
            [prompt for _ in self.names for prompt in prompts],
            [_ids(row, name) for name in self.names for row in rows],
            processing.family.collate_model_inputs(inputs),
            pad_token_id=self._pad_token_id(),
            padding_side=self.padding_side,
        )
        sequences.model_inputs.update(processing.family.sequence_inputs(processing, sequences.input_ids))
        return sequences

    def _packed(
        self,
        rows: Sequence[TrainingExample],
        prompts: Sequence[Sequence[int]],
        images: dict[bool, list[dict[str, Tensor]]],
    ) -> Scored:
        """One row for each example and image."""
        processing = self.prompts.processing
        packed: list[PackedRow] = []
        inputs: list[dict[str, Tensor]] = []
        places: dict[str, list[tuple[int, int]]] = {}
        for masked in (False, True):
            names = [name for name in self.names if name.endswith(MASKED) == masked]
            for place, name in enumerate(names):
                places[name] = [(len(packed) + number, place) for number in range(len(rows))]
            if names:
                inputs += images[masked]
                packed += [
                    PackedRow(prompt, [_ids(row, name) for name in names])
                    for row, prompt in zip(rows, prompts, strict=True)
                ]
        return pack_rows(
            packed,
            [place for name in self.names for place in places[name]],
            processing.family.collate_model_inputs(inputs),
            processing=processing,
            pad_token_id=self._pad_token_id(),
            padding_side=self.padding_side,
        )

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


def _ids(row: TrainingExample, name: str) -> Any:
    return row.responses[name.removesuffix(MASKED)].ids


def _weights(responses: Sequence[Response], kind: str, width: int) -> Tensor:
    weights = torch.zeros((len(responses), width))
    for row, response in enumerate(responses):
        weights[row, : len(response.ids)] = torch.from_numpy(getattr(response, kind))
    return weights


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
