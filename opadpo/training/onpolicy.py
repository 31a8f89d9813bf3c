"""How likely the three responses are before OPA-DPO: the alarm for off-policy data.

DPO only moves probability between responses that the reference gives some probability to. A correction written by
another model is so unlikely under the base that its log-ratio can grow for ever without the text ever being produced
(paper, section 3): the loss falls and the outputs do not change.
"""

import copy
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from opadpo.hashing import derive_seed
from opadpo.training.collate import MASKED, Batch, Visit
from opadpo.training.policy import reference_name

if TYPE_CHECKING:
    from opadpo.training.opadpo import OpadpoTrainer

SAMPLE = 64
"""Examples that are measured, of those that the run visits."""

REASON = (
    "preference optimisation can only raise responses that the starting model already gives some probability to;"
    " off-policy ones let the loss fall while the outputs stay the same"
)


def measure(trainer: "OpadpoTrainer", *, start: str | None, seed: int) -> dict[str, Any]:
    """Mean log-prob per token of each response under the base and under the adapter that training starts from.

    Computed as in training, in the same layout; what the reference's stored log-probs say is read there.

    Args:
        trainer: of a run that has not begun.
        start: name of the starting adapter; None if training starts from the base.
        seed: the recipe's.
    """
    collator = copy.copy(trainer.collator)
    collator.names = tuple(name for name in collator.names if not name.endswith(MASKED))
    visited = sorted({visit.example for visit in trainer.train_visits})
    chosen = sorted(random.Random(derive_seed(seed, "onpolicy")).sample(visited, min(SAMPLE, len(visited))))
    size = trainer.args.per_device_eval_batch_size
    reference = reference_name(trainer.model)
    adapters = {"base": None} | ({} if start is None else {start: reference})
    totals = {label: dict.fromkeys(collator.names, 0.0) for label in adapters}
    counts = dict.fromkeys(collator.names, 0)
    for first in range(0, len(chosen), size):
        batch = collator([Visit(index, 0) for index in chosen[first : first + size]])
        for name, mask in batch.masks.items():
            counts[name] += int(mask.sum())
        for label, adapter in adapters.items():
            known = batch.reference if adapter == reference else None
            logps = trainer.logps_under(adapter, batch) if known is None else known
            for name, values in _by_name(collator.names, logps, batch):
                totals[label][name] += float(values.double().sum())
    means = {
        label: {name: {"mean": total[name] / max(counts[name], 1), "n": counts[name]} for name in collator.names}
        for label, total in totals.items()
    }
    return {"under": means, "examples": len(chosen), "start": start or "base"}


def _by_name(names: tuple[str, ...], logps: Tensor, batch: Batch) -> Iterator[tuple[str, Tensor]]:
    return zip(names, logps.view(len(names), len(batch.indexes), -1), strict=True)
