"""First stage, OPA: supervised fine-tuning that makes references and corrections likely under the policy."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from opadpo.training.collate import Batch
from opadpo.training.logps import response_logps
from opadpo.training.loss_inputs import Values
from opadpo.training.trainer import StageTrainer


class SftOutput(NamedTuple):
    """Negative log-likelihood of a batch."""

    sums: Values
    counts: Values

    def scaled(self, total_counts: Mapping[str, Tensor]) -> Tensor:
        """This batch's share of the mean over the tokens of a step."""
        return self.sums["loss"] / total_counts["loss"]


class OpaTrainer(StageTrainer):
    """Supervised fine-tuning on the standard and the revised response; only their tokens count."""

    def count(self, batch: Batch, width: int) -> Values:
        """Response tokens."""
        return {"loss": batch.sequences.response_mask.sum()}

    def batch_output(self, model: nn.Module, batch: Batch, width: int) -> SftOutput:
        """Cross-entropy of all responses, and their log-probs for the log."""
        logps = response_logps(model, batch.sequences)
        sums: Values = {"loss": -logps.sum()}
        counts = self.count(batch, width)
        grouped = logps.detach().view(len(self.collator.names), len(batch.indexes), -1)
        for name, values in zip(self.collator.names, grouped, strict=True):
            sums[f"logps/{name}"], counts[f"logps/{name}"] = values.sum(), batch.masks[name].sum()
        return SftOutput(sums, counts)

    def summarise(self, sums: Values, counts: Values) -> dict[str, float]:
        """Mean negative log-likelihood per token, and the mean log-prob of each response."""
        return {key: float(value / counts[key]) for key, value in sums.items()}
