"""The recipe's trainer settings as arguments of `transformers.Trainer`."""

import json
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from opadpo.errors import DependencyMissing, UserError
from opadpo.recipe.training import TrainerSection

if TYPE_CHECKING:
    import torch
    from transformers import TrainingArguments


def number_of_updates(section: TrainerSection, examples: int) -> int:
    """Updates of a run: the epochs' visits in batches, the last batch filled from the next epoch's order."""
    updates = max(1, math.ceil(examples * section.epochs / section.batch_size - 1e-9))
    return updates if section.max_steps is None else min(updates, section.max_steps)


def micro_batch_size(section: TrainerSection, processes: int) -> int:
    """Examples of a micro-batch, where no token budget says otherwise."""
    return min(section.micro_batch_size, section.batch_size // processes)


def check_trainer(section: TrainerSection, device: "torch.device", *, sharding: str = "none") -> None:
    """Check what optimizer, precision and trackers need.

    Raises:
        DependencyMissing: if bitsandbytes, a CUDA GPU or a tracker's package is missing.
        UserError: if transformers knows no such tracker, or this process was started for ZeRO stage 3.
    """
    _check_trackers(section.report_to)
    if _zero_stage() == 3:
        raise UserError(
            "DeepSpeed's ZeRO stage 3 is not supported",
            seen="zero_stage 3 in accelerate's configuration",
            remedy="set zero_stage to 2, or use train.sharding fsdp: stage 3 leaves each process with parts that an"
            " adapter cannot be saved from",
        )
    if sharding == "fsdp" and device.type != "cuda":
        # accelerate 1.15 would train without sharding, and not say so.
        raise DependencyMissing(
            "train.sharding fsdp needs CUDA GPUs",
            seen=f"device {device.type}",
            remedy="set train.sharding to none, or run this on a node with GPUs",
        )
    if section.optimizer == "adamw_8bit":
        if device.type != "cuda":
            raise DependencyMissing(
                "optimizer adamw_8bit needs a CUDA GPU",
                seen=f"device {device.type}",
                remedy="set optimizer to adamw, or run this on a node with a GPU",
            )
        if find_spec("bitsandbytes") is None:
            raise DependencyMissing(
                "optimizer adamw_8bit needs the package bitsandbytes",
                seen="not installed",
                remedy="pip install bitsandbytes, or set optimizer to adamw",
            )
    if section.precision == "float16" and device.type != "cuda":
        raise DependencyMissing(
            "precision float16 needs a CUDA GPU",
            seen=f"device {device.type}",
            remedy="set precision to float32 or bfloat16",
        )


def _zero_stage() -> int | None:
    """DeepSpeed's stage that `accelerate launch` has set for this process; None without DeepSpeed."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() != "true":
        return None
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if path != "none":
        try:
            return int(json.loads(Path(path).read_text()).get("zero_optimization", {}).get("stage", 0))
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                "DeepSpeed's configuration cannot be read",
                seen=f"{path}: {error}",
                remedy="name a JSON file of settings",
            ) from error
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))


def _check_trackers(names: list[str]) -> None:
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in set(names) - {"all", "none"}:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                "report_to names a tracker that transformers does not know",
                seen=name,
                remedy=f"use one of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, or [] for none",
            )
        if name not in get_available_reporting_integrations():
            raise DependencyMissing(
                f"report_to {name} needs its package",
                seen="not installed",
                remedy=f"pip install {name}, or leave it out",
            )


def number_of_warmup_updates(section: TrainerSection, updates: int) -> int:
    """How many of the updates have a learning rate that rises."""
    return section.warmup_steps if section.warmup_steps is not None else math.ceil(updates * section.warmup_ratio)


def endless_warmup(stage: str, section: TrainerSection, updates: int) -> str | None:
    """A warning where the learning rate never gets to what the recipe says."""
    warmup = number_of_warmup_updates(section, updates)
    if warmup < updates:
        return None
    return (
        f"train.{stage}: {warmup} warm-up updates of {updates} updates in all: the learning rate never reaches "
        f"{section.learning_rate:g}. Shorten the warm-up, or train for more epochs."
    )


def training_arguments(
    section: TrainerSection,
    run: Path,
    *,
    updates: int,
    accumulation: int,
    processes: int,
    device: "torch.device",
    seed: int,
    evaluate: bool,
    unused_parameters: bool,
    sharding: str = "none",
) -> "TrainingArguments":
    """Arguments for `updates` updates of `accumulation` micro-batches in each of the processes.

    The training set's items are whole micro-batches.

    `unused_parameters`: some trainable parameters take no part in the loss (the last block of a CLIP tower whose
    last layer is not read).
    """
    from transformers import TrainingArguments

    warmup = number_of_warmup_updates(section, updates)
    schedule = "constant_with_warmup" if section.schedule == "constant" and warmup else section.schedule
    on_gpu = device.type == "cuda"
    return TrainingArguments(
        output_dir=str(run),
        per_device_train_batch_size=1,
        per_device_eval_batch_size=micro_batch_size(section, processes),
        gradient_accumulation_steps=accumulation,
        max_steps=updates,
        learning_rate=section.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=warmup,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        optim="adamw_bnb_8bit" if section.optimizer == "adamw_8bit" else "adamw_torch_fused",
        bf16=section.precision == "bfloat16",
        fp16=section.precision == "float16",
        activation_checkpointing=section.gradient_checkpointing,
        # The reentrant kind needs inputs with gradients, which makes a frozen tower build a graph.
        activation_checkpointing_kwargs={"use_reentrant": False} if section.gradient_checkpointing else None,
        save_strategy="steps",
        save_steps=section.save_steps,
        logging_steps=section.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=section.eval_steps,
        report_to=section.report_to or "none",
        run_name=run.name,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=[],
        seed=seed,
        data_seed=seed,
        disable_tqdm=True,
        log_level="warning",
        use_cpu=not on_gpu,
        ddp_backend=("nccl" if on_gpu else "gloo") if processes > 1 else None,
        ddp_find_unused_parameters=unused_parameters,
        # What is sharded are the model's layers, as transformers lists them for each architecture.
        fsdp=True if sharding == "fsdp" and processes > 1 else None,  # pyright: ignore[reportArgumentType]  # takes both
        fsdp_config={"version": 2} if sharding == "fsdp" and processes > 1 else None,
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=4 if on_gpu else 0,
    )
