"""Second stage, OPA-DPO, and the ablations from the base: the policy against its frozen starting point."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from opadpo.errors import StepFailed
from opadpo.hashing import derive_seed
from opadpo.models.families.base import Processing
from opadpo.recipe.training import OpadpoSection
from opadpo.training.collate import MASKED, Batch, ExampleStream, ImageMask, Visit
from opadpo.training.logps import response_logps
from opadpo.training.loss import (
    Logps,
    LossOutput,
    Masks,
    Weights,
    expected_loss_at_start,
    loss_counts,
    opadpo_loss,
    summarise,
)
from opadpo.training.loss_inputs import Values
from opadpo.training.masking import mask_image
from opadpo.training.policy import computing_as, reference_name
from opadpo.training.reference import Part
from opadpo.training.trainer import Output, StageTrainer

START_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest log-ratio of a token before the first update, by the data type of the computation."""


class OpadpoTrainer(StageTrainer):
    """Preference optimisation against the frozen reference."""

    def __init__(self, *, section: OpadpoSection, compute_dtype: torch.dtype, **arguments: Any) -> None:
        """`compute_dtype` is what the forward pass computes in; the check before the first update depends on it."""
        super().__init__(**arguments)
        self.section = section
        self.compute_dtype = compute_dtype

    @property
    def has_masked(self) -> bool:
        """Whether the image terms are on."""
        return self.section.loss.image_coef > 0

    def count(self, batch: Batch, width: int) -> Values:
        """Denominators of the pairs and anchors."""
        masks, weights = _masks(batch), _weights(batch)
        return loss_counts(masks, weights, self.section.loss, has_masked=self.has_masked, pad_to=width)

    def batch_output(self, model: nn.Module, batch: Batch, width: int) -> LossOutput:
        """Five log-probs under the reference, stored or without gradients, then five under the policy, and the loss."""
        reference = self._reference(batch)
        policy = self._logps(response_logps(model, batch.sequences), batch)
        return self._loss(policy, reference, batch, width)

    def summarise(self, sums: Values, counts: Values) -> dict[str, float]:
        """The loss, its parts and the metrics."""
        loss, parts, metrics = summarise(sums, counts, self.section.loss)
        named = {"loss": loss, **{f"parts/{name}": value for name, value in parts.items()}, **metrics}
        return {key: float(value) for key, value in named.items()}

    def check_start(self, batch: Batch, width: int, output: Output) -> None:
        """Before the first update policy and reference are the same model: every log-ratio is 0, the loss is known.

        Raises:
            StepFailed: if not, as when the reference is not what training started from.
        """
        self.model.eval()  # without dropout
        with torch.no_grad():
            policy = self._logps(response_logps(self.model, batch.sequences), batch)
        self.model.train()
        reference = self._reference(batch)
        pairs = zip(policy, reference, strict=True)
        largest = max(float((p - r).abs().max()) for p, r in pairs if p is not None and r is not None)
        tolerance = START_TOLERANCE[self.compute_dtype]
        if not largest <= tolerance:
            raise StepFailed(
                "Before the first update policy and reference differ; the reference is not what training started from",
                seen=f"largest log-ratio of a token {largest:.3g}, tolerance {tolerance:.3g}",
                remedy="check that the adapter in adapters/ was not replaced while training started, and run again",
            )
        loss = self._loss(policy, reference, batch, width)
        expected = expected_loss_at_start(self.section.loss, self.has_masked, loss.counts)
        # Each log-ratio enters with a weight of a few and a slope below beta; a sequence sums them.
        spread = 10 * self.section.loss.beta * largest * (1 if self.section.loss.reduction == "token" else width)
        if expected is not None and not abs(float(loss.loss) - expected) <= 1e-4 * (1 + abs(expected)) + spread:
            raise StepFailed(
                "Before the first update the loss is not what it must be where policy and reference agree",
                seen=f"loss {float(loss.loss):.6f}, expected {expected:.6f}",
                remedy="this is a fault of the program: report it with the recipe",
            )

    @property
    def train_visits(self) -> list[Visit]:
        """All visits of the run, over all processes, in order."""
        return cast("ExampleStream", self.train_dataset).visits

    def parts(self) -> list[Part]:
        """What is visited, in the micro-batches of `train` and `evaluate`."""
        parts = [Part(self.collator, cast("ExampleStream", self.train_dataset).batches)]
        if self.eval_collator is not None:
            shares = [self.held_out_visits(process) for process in range(self.args.world_size)]
            size = self.args.per_device_eval_batch_size
            parts.append(Part(self.eval_collator, [batch for share in shares for batch in _split(share, size)]))
        return parts

    def logps_under(self, adapter: str | None, batch: Batch) -> Tensor:
        """Log-probs of a batch as the collator gives it, under an adapter or the base, computed as in training."""
        prepared = self._prepare_inputs(batch)
        with self.accelerator.autocast(), computing_as(self.model, adapter):
            return response_logps(self.model, prepared.sequences)

    def _reference(self, batch: Batch) -> Logps:
        if batch.reference is not None:
            return self._logps(batch.reference, batch)
        with computing_as(self.model, reference_name(self.model)):
            return self._logps(response_logps(self.model, batch.sequences), batch)

    def _loss(self, policy: Logps, reference: Logps, batch: Batch, width: int) -> LossOutput:
        return opadpo_loss(policy, reference, _weights(batch), self.section.loss, masks=_masks(batch), pad_to=width)

    def _logps(self, logps: Tensor, batch: Batch) -> Logps:
        """Log-probs by response; one that is not computed, because nothing depends on it, is 0."""
        grouped = logps.view(len(self.collator.names), len(batch.indexes), -1)
        by_name = dict(zip(self.collator.names, grouped, strict=True))
        zero = torch.zeros_like(grouped[0])
        masked = [by_name.get(name + MASKED, zero) if self.has_masked else None for name in ("standard", "revised")]
        return Logps(*(by_name.get(name, zero) for name in Masks._fields), *masked)


def opadpo_names(section: OpadpoSection) -> tuple[str, ...]:
    """The sequences that the loss depends on."""
    loss = section.loss
    standard, revised = (coef > 0 for coef in (loss.standard_pair_coef, loss.revised_pair_coef))
    anchored = loss.anchor is not None and loss.anchor_coef > 0
    names = {
        "standard": standard or anchored,
        "revised": revised or anchored,
        "generated": True,
        "standard" + MASKED: standard and loss.image_coef > 0,
        "revised" + MASKED: revised and loss.image_coef > 0,
    }
    return tuple(name for name, wanted in names.items() if wanted)


def mask_seeds(section: OpadpoSection, seed: int) -> Callable[[str, int], int]:
    """Seed of an example's masked image in an epoch."""
    afresh = section.masking.resample == "epoch"
    return lambda example_id, epoch: derive_seed(seed, example_id, epoch if afresh else "")


def image_mask(section: OpadpoSection, processing: Processing) -> ImageMask:
    """Masks the pixels of a prompt's model inputs, however the model's family lays them out."""
    masking, family = section.masking, processing.family
    patch = family.patch_size(processing)

    def mask(inputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        pixels = mask_image(family.pixels(processing, inputs), masking.ratio, masking.mode, patch, seed=seed)
        return family.with_pixels(processing, inputs, pixels)

    return mask


def _split(visits: Sequence[Visit], size: int) -> list[Sequence[Visit]]:
    return [visits[first : first + size] for first in range(0, len(visits), size)]


def _masks(batch: Batch) -> Masks:
    none = torch.zeros_like(next(iter(batch.masks.values())))
    return Masks(*(batch.masks.get(name, none) for name in Masks._fields))


def _weights(batch: Batch) -> Weights:
    none = torch.zeros_like(next(iter(batch.masks.values())), dtype=torch.float32)
    return Weights(*(batch.weights.get(name, none) for name in Weights._fields))
