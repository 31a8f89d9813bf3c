"""How likely the three responses are before OPA-DPO: the alarm for off-policy data.

DPO only moves probability between responses that the reference gives some probability to. A correction written by
another model is so unlikely under the base that its log-ratio can grow for ever without the text ever being produced
(paper, section 3): the loss falls and the outputs do not change.
"""

import random
from collections.abc import Sequence
from typing import Any

from peft import PeftModel

from opadpo.hashing import derive_seed
from opadpo.training.collate import Batch, Collator, Visit
from opadpo.training.examples import Prompts, TrainingExample
from opadpo.training.logps import response_logps
from opadpo.training.policy import POLICY, computing_as, model_dtype

SAMPLE = 64
"""Examples that are measured."""

REASON = (
    "preference optimisation can only raise responses that the starting model already gives some probability to;"
    " off-policy ones let the loss fall while the outputs stay the same"
)


def measure(
    model: PeftModel,
    examples: Sequence[TrainingExample],
    prompts: Prompts,
    *,
    start: str | None,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """Mean log-prob per token of each response under the base and under the adapter that training starts from.

    Args:
        model: with the starting adapter as its policy, not trained yet.
        examples: of which a seeded sample is taken.
        prompts: their encoder.
        start: name of the starting adapter; None if training starts from the base.
        seed: the recipe's.
        batch_size: examples at a time.
    """
    chosen = random.Random(derive_seed(seed, "onpolicy")).sample(range(len(examples)), min(SAMPLE, len(examples)))
    sample = [examples[index] for index in sorted(chosen)]
    names = tuple(sample[0].responses)
    collator = Collator(sample, prompts, names)
    device = next(model.parameters()).device
    batches: list[Batch] = [
        collator([Visit(index, 0) for index in range(first, min(first + batch_size, len(sample)))]).placed(
            device, model_dtype(model)
        )
        for first in range(0, len(sample), batch_size)
    ]
    under = {}
    for label, adapter in {"base": None, start: POLICY}.items():
        if label is not None:
            with computing_as(model, adapter):
                under[label] = _means(model, batches, names)
    return {"under": under, "examples": len(sample), "start": start or "base"}


def _means(model: PeftModel, batches: Sequence[Batch], names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    totals = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0)
    for batch in batches:
        grouped = response_logps(model, batch.sequences).view(len(names), len(batch.indexes), -1)
        for name, values in zip(names, grouped, strict=True):
            totals[name] += float(values.double().sum())
            counts[name] += int(batch.masks[name].sum())
    return {name: {"mean": totals[name] / max(counts[name], 1), "n": counts[name]} for name in names}
