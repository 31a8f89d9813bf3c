"""What both stages share, on `transformers.Trainer`.

The loss is normalised by sums and counts over the whole optimizer step: every micro-batch of every process contributes
its share of one loss, so that neither micro-batch size nor order, padding side or the number of processes changes it.
"""

import json
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from opadpo.errors import StepFailed
from opadpo.models.base import BasePin
from opadpo.training.checkpoints import keep_newest, mark_complete, saving
from opadpo.training.collate import Batch, Collator, Visit
from opadpo.training.loss import add_up
from opadpo.training.loss_inputs import Values
from opadpo.training.policy import load_policy, model_dtype, policy_weights, save_adapter
from opadpo.training.stopping import in_groups_of_their_own

BAD_BATCH_FILE = "bad_batch.json"


class StepTotals(NamedTuple):
    """What one optimizer step holds, over all its micro-batches and processes."""

    counts: Values
    """Denominators of the loss terms."""
    width: int
    """Length that responses count as padded to."""


class Output(Protocol):
    """A batch's loss as sums and counts."""

    @property
    def sums(self) -> Values:
        """Numerators."""
        ...

    @property
    def counts(self) -> Values:
        """Denominators under the same keys."""
        ...

    def scaled(self, total_counts: Mapping[str, Tensor]) -> Tensor:
        """This batch's share of the loss of a step with these counts."""
        ...


class RunSettings(NamedTuple):
    """What a trainer knows of its run beside the arguments of `transformers.Trainer`."""

    pin: BasePin
    """The base, named in every checkpoint."""
    keep_checkpoints: int
    """Complete checkpoints that stay."""
    pad_to: int | None = None
    """Length that responses count as padded to; None: the longest of the step."""


class StageTrainer(Trainer):
    """What both stages share: normalisation, metrics, checkpoints with a marker, plain errors."""

    loss_is_scaled_for_ga = True  # `compute_loss` divides by the whole step's counts already
    model: PeftModel  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        collator: Collator,
        eval_collator: Collator | None,
        settings: RunSettings,
        **arguments: Any,
    ) -> None:
        """`arguments` are those of `transformers.Trainer`."""
        super().__init__(data_collator=collator.only, **arguments)  # pyright: ignore[reportArgumentType]
        self.remove_callback(PrinterCallback)
        self.collator = collator
        self.eval_collator = eval_collator
        self.settings = settings
        self.run = Path(str(self.args.output_dir))
        self._step_examples: list[str] = []
        self._forget_window()

    @abstractmethod
    def count(self, batch: Batch, width: int) -> Values:
        """Denominators of the loss terms of a batch whose responses count as padded to `width`."""

    @abstractmethod
    def batch_output(self, model: nn.Module, batch: Batch, width: int) -> Output:
        """Forward passes and loss of a batch."""

    @abstractmethod
    def summarise(self, sums: Values, counts: Values) -> dict[str, float]:
        """`loss` and all metrics from sums and counts of any number of batches."""

    def check_start(self, batch: Batch, width: int, output: Output) -> None:
        """Before the first update: raise if something is not as it must be there."""

    # -- one optimizer step ------------------------------------------------------------------------------------

    def get_batch_samples(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], StepTotals]:
        """The micro-batches of one update, and what all processes hold together."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self._step_examples = [self.collator.examples[i].example_id for b in batches for i in b.indexes.tolist()]
        self._tokens += sum(batch.sequences.tokens for batch in batches)
        widths = [batch.sequences.response_mask.shape[1] for batch in batches]
        width = self.settings.pad_to or int(self._over_processes(torch.tensor([max(widths)], device=device)).max())
        counts = add_up(self.count(batch, width) for batch in batches)
        keys = sorted(counts)
        total = self._over_processes(torch.stack([counts[key] for key in keys])).view(-1, len(keys)).sum(0)
        return batches, StepTotals(dict(zip(keys, total, strict=True)), width)

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: StepTotals | None = None,
    ) -> Tensor:
        """This micro-batch's share of the update's loss."""
        if num_items_in_batch is None:
            raise ValueError("the totals of the step are needed")
        output = self.batch_output(model, inputs, num_items_in_batch.width)
        loss = output.scaled(num_items_in_batch.counts)
        if not torch.isfinite(loss):
            ids = [self.collator.examples[i].example_id for i in inputs.indexes.tolist()]
            self._stop_on_bad_numbers("loss", float(loss.detach()), ids)
        if self.state.global_step == 0 and not self._start_checked:
            self.check_start(inputs, num_items_in_batch.width, output)
            self._start_checked = True
        self._sums = add_up([self._sums, {key: value.detach() for key, value in output.sums.items()}])
        self._counts = add_up([self._counts, output.counts])
        # Gradients are averaged over processes; each holds its share of a sum.
        return loss * self.args.world_size

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        # With float16 an overflow is expected: the scaler skips the update and lowers the scale.
        if norm is not None and not self.args.fp16 and not math.isfinite(float(norm)):
            self._stop_on_bad_numbers("gradient", float(norm), self._step_examples)
        return norm

    def _stop_on_bad_numbers(self, what: str, value: float, examples: Sequence[str]) -> None:
        path = self.run / BAD_BATCH_FILE
        report = {"step": self.state.global_step + 1, "what": what, "value": str(value), "example_ids": list(examples)}
        path.write_text(json.dumps(report, indent=2), encoding="utf-8")
        raise StepFailed(
            f"The {what} is not finite at update {self.state.global_step + 1}; nothing was updated with it",
            seen=f"{value}; the batch's example ids are in {path}",
            remedy="lower the learning rate, train in bfloat16 or float32, or look at those examples; the last"
            " checkpoint is intact",
        )

    def _over_processes(self, value: Tensor) -> Tensor:
        return self.accelerator.gather(value) if self.args.world_size > 1 else value  # pyright: ignore[reportReturnType]

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        return int(self._over_processes(torch.tensor([number], device=self.args.device)).max())

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Its workers heed no signals to the group of processes."""
        loader = super().get_train_dataloader()
        in_groups_of_their_own(loader)
        return loader

    def _prepare_inputs(self, inputs: Batch) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        batch = inputs.placed(self.args.device, model_dtype(self.model))
        with self.accelerator.autocast():
            return batch._replace(sequences=batch.sequences.prepared(self.model))

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate of transformers does not hold for several sequences per example."""
        return 0

    # -- metrics -----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the metrics of the updates since the last line."""
        if "loss" in logs and self._sums:
            sums, counts = self._gathered(self._sums, self._counts)
            logs |= {key: value for key, value in self.summarise(sums, counts).items() if key != "loss"}
            tokens = sum(gather_object([self._tokens]))
            logs["tokens_per_second"] = tokens / max(time.monotonic() - self._window_start, 1e-9)
            self._forget_window()
        super().log(logs, start_time)

    def _forget_window(self) -> None:
        self._sums: Values = {}
        self._counts: Values = {}
        self._tokens = 0
        self._window_start = time.monotonic()
        self._start_checked = getattr(self, "_start_checked", False)

    def _gathered(self, sums: Values, counts: Values) -> tuple[Values, Values]:
        """Sums and counts of all processes, float64 on the CPU."""
        keys = sorted(sums)
        if keys:
            values = torch.stack([sums[key].double() for key in keys] + [counts[key].double() for key in keys]).tolist()
        else:
            values = []
        parts = gather_object([(keys, values)])
        all_sums: Values = {}
        all_counts: Values = {}
        for part_keys, part in parts:
            numbers = torch.tensor(part, dtype=torch.float64)
            all_sums = add_up([all_sums, dict(zip(part_keys, numbers[: len(part_keys)], strict=True))])
            all_counts = add_up([all_counts, dict(zip(part_keys, numbers[len(part_keys) :], strict=True))])
        return all_sums, all_counts

    def evaluate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss and metrics of the held-out examples, exact whatever the batch size and number of processes."""
        collator = self.eval_collator
        if collator is None:
            raise ValueError("no held-out examples")
        own = self.held_out_visits(self.args.process_index)
        width = self.settings.pad_to or max(example.longest_response for example in collator.examples)
        sums: Values = {}
        counts: Values = {}
        self.model.eval()
        with torch.no_grad():
            for batch in DataLoader(own, self.args.per_device_eval_batch_size, collate_fn=collator):  # pyright: ignore[reportArgumentType]
                output = self.batch_output(self.model, self._prepare_inputs(batch), width)
                sums, counts = add_up([sums, output.sums]), add_up([counts, output.counts])
        values = self.summarise(*self._gathered(sums, counts))
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._window_start = time.monotonic()
        return metrics

    def held_out_visits(self, process: int) -> list[Visit]:
        """The share of a process in the held-out examples."""
        count = len(self.eval_collator.examples) if self.eval_collator is not None else 0
        return [Visit(index, 0) for index in range(process, count, self.args.world_size)]

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.run / f"checkpoint-{self.state.global_step}"
        with saving(folder):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(folder)
        if self.args.should_save:
            keep_newest(self.run, self.settings.keep_checkpoints)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the policy; every process takes part where it is sharded."""
        weights = policy_weights(self.model)
        if self.args.should_save:
            save_adapter(self.model, weights, Path(output_dir) if output_dir else self.run, self.settings.pin)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_policy(self.model, Path(resume_from_checkpoint))
