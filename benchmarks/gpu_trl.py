"""TRL's trainer among the rows of `gpu_check.py`."""

import time
from typing import Any

from gpu_parts import GIB, Bench, resident


def measure_trl(bench: Bench, count: int, repeats: int) -> dict[str, Any]:
    """TRL's trainer on the same pairs: its checkpointing as ours, nothing truncated; it computes the reference."""
    import tempfile

    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, ProcessorMixin, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Processor(ProcessorMixin):
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            bench.finish()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            bench.finish()
            self.times.append(time.perf_counter() - self.started)

    sequences = bench.batch(count, packing=False, two=True)
    completion = torch.zeros_like(sequences.attention_mask)
    completion[:, 1:] = sequences.scored[:, :-1].long()
    batch = {
        "input_ids": sequences.input_ids,
        "attention_mask": sequences.attention_mask,
        "completion_mask": completion,
        **sequences.model_inputs,
    }
    bench.model.delete_adapter("reference")  # TRL makes its own copy
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"<pad>": 0}, [])), pad_token="<pad>")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(
            folder,
            per_device_train_batch_size=count,
            max_steps=repeats + 1,
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
        trainer = DPOTrainer(
            bench.model,
            args=arguments,
            data_collator=lambda rows: dict(batch),
            train_dataset=Dataset.from_dict({"image": [0] * count}),
            processing_class=Processor(tokenizer),
            callbacks=[clock],
        )
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
