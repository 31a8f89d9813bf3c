"""TRL's trainer among the rows of `gpu_check.py`."""

from pathlib import Path
from typing import Any

from gpu_parts import GIB, Bench, resident, update_clock


def measure_trl(bench: Bench, count: int, repeats: int) -> dict[str, Any]:
    """TRL's trainer on the same pairs: its checkpointing as ours, nothing truncated; it computes the reference."""
    import tempfile

    import torch

    sequences = bench.batch(count, packing=False, two=True)
    bench.model.delete_adapter("reference")  # TRL makes its own copy
    clock = update_clock(bench)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(bench, sequences, count, repeats + 1, Path(folder))
        trainer.add_callback(clock)
        if bench.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else resident()
    best = min(clock.times[1:])
    return {
        "seconds_recomputed": best,
        "batch": count,
        "examples_per_second": count / best,
        "tokens_per_second": sequences.tokens / best,
        "peak_gib": peak / GIB,
    }


def _trainer(bench: Bench, sequences: Any, count: int, updates: int, folder: Path) -> Any:
    """TRL's trainer, which gets this batch in every update."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    batch = _as_trl_has_it(sequences)
    arguments = DPOConfig(
        str(folder),
        per_device_train_batch_size=count,
        max_steps=updates,
        max_length=None,
        bf16=bench.dtype == "bfloat16",
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=bench.device == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    return DPOTrainer(
        bench.model,
        args=arguments,
        data_collator=lambda rows: dict(batch),
        train_dataset=Dataset.from_dict({"image": [0] * count}),
        processing_class=_processor(),
    )


def _as_trl_has_it(sequences: Any) -> dict[str, Any]:
    import torch

    completion = torch.zeros_like(sequences.attention_mask)
    completion[:, 1:] = sequences.scored[:, :-1].long()
    return {
        "input_ids": sequences.input_ids,
        "attention_mask": sequences.attention_mask,
        "completion_mask": completion,
        **sequences.model_inputs,
    }


def _processor() -> Any:
    """What TRL asks of a processor where the batches come ready-made."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, ProcessorMixin

    class Processor(ProcessorMixin):
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

    pad = "<pad>"
    return Processor(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({pad: 0}, [])), pad_token=pad))
