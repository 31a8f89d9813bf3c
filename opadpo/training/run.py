"""Carry a training job out, in this process or in one of several that train together."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from opadpo.damage import damaged
from opadpo.errors import DataError, StepFailed, disk_errors
from opadpo.files import atomic_write
from opadpo.hashing import derive_seed
from opadpo.models.adapters import adapter_digest, check_fits
from opadpo.models.families.base import Processing
from opadpo.models.loading import choose_device, load_model, load_processing
from opadpo.processes.here import first_process, processes_here, wait_for_all
from opadpo.processes.serving import Service
from opadpo.processes.signals import heeding
from opadpo.progress import Progress, SilentProgress, Task
from opadpo.recipe import outcome
from opadpo.recipe.training import OpadpoSection, TrainerSection
from opadpo.records import PreferenceExample
from opadpo.training.arguments import (
    check_trainer,
    endless_warmup,
    micro_batch_size,
    number_of_updates,
    training_arguments,
)
from opadpo.training.checkpoints import clear_torn, newest_complete, saving, step_of
from opadpo.training.collate import Collator, stream_of
from opadpo.training.examples import (
    LeftOut,
    Preparation,
    Prompts,
    TrainingExample,
    context_length,
    prepare_examples,
)
from opadpo.training.fitting import check_memory
from opadpo.training.job import REFERENCE_FOLDER, TrainingJob, TrainingOutcome
from opadpo.training.memory import Stage
from opadpo.training.onpolicy import measure
from opadpo.training.opa import OpaTrainer
from opadpo.training.opadpo import OpadpoTrainer, image_mask, mask_seeds, opadpo_names
from opadpo.training.packing import check_attention
from opadpo.training.policy import continued_adapter, fresh_adapter, reference_name
from opadpo.training.reference import data_digest, fill
from opadpo.training.reporting import METRICS_FILE, Reporter, cut_metrics
from opadpo.training.stopping import StopWhenAsked
from opadpo.training.trainer import RunSettings, StageTrainer

if TYPE_CHECKING:
    from datasets import Dataset

ONPOLICY_FILE = "onpolicy.json"
LEFT_OUT_FILE = "dropped.jsonl"


class Prepared(NamedTuple):
    """Everything that exists before weights are loaded."""

    processing: Processing
    prompts: Prompts
    train: list[TrainingExample]
    held_out: list[TrainingExample]
    left_out: list[LeftOut]


def run_job(job: TrainingJob, progress: Progress) -> TrainingOutcome:
    """Train, continuing from the newest complete checkpoint of the run, and write the adapter to `job.output`.

    Raises:
        DataError: if there is nothing to train on.
        UserError: if the attention kernel cannot do packed training, or memory is plainly too small.
        ModelError: if the starting adapter does not fit base or recipe.
        DependencyMissing: if the optimizer or precision needs what is not there.
        StepFailed: if the loss is not finite, the first update's check fails, or GPU memory runs out.
        DiskFull: if there is no room for a checkpoint.
        Stopped: after a signal, once the running update and a checkpoint are done; or what the signal's handler raises.
    """
    section = _section(job)
    device = choose_device(job.recipe.model.device)
    check_trainer(section, device, sharding=job.recipe.train.sharding)
    if section.packing:
        check_attention(job.recipe.model.attention)
    prepared = _prepare(job, section, progress)
    stage = Stage(job.recipe, section, prepared.processing.config, continued=job.start_folder is not None)
    heard = progress if first_process() else SilentProgress()
    check_memory(stage, prepared.train, prepared.prompts, device, heard)
    if warning := endless_warmup(job.stage, section, number_of_updates(section, len(prepared.train))):
        heard.warn(warning)
    try:
        model = load_model(job.pin, job.recipe, training=True)
        wrapped = _with_adapter(job, model, prepared.processing)
        trainer, done = _trainer(job, section, wrapped, prepared, device)
        rows = {}
        if isinstance(trainer, OpadpoTrainer):
            if trainer.section.reference == "cached":
                rows = _fill_reference(job, trainer, prepared, progress)
            _measure_onpolicy(job, trainer, prepared)
        updates = trainer.args.max_steps
        with heeding() as wish:
            stop = StopWhenAsked(wish, trainer.largest, heard)
            with _task(progress, f"train {job.name}", updates, done) as task, disk_errors(job.run):
                trainer.add_callback(_reporter(job, section, prepared, task))
                trainer.add_callback(stop)
                checkpoint = job.run / f"checkpoint-{done}"
                trainer.train(resume_from_checkpoint=str(checkpoint) if done else None)
        stop.end()
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(job, section, error) from error
    with saving(job.output):
        trainer.save_model(str(job.output))
    return TrainingOutcome(
        counts={
            "examples": len(prepared.train),
            "held_out": len(prepared.held_out),
            "updates": updates,
            "resumed_from": done,
            **rows,
        },
        dropped=dict(Counter(item.reason for item in prepared.left_out)),
        figures=_last_metrics(job.run / METRICS_FILE),
    )


def _section(job: TrainingJob) -> TrainerSection:
    return job.opadpo if job.stage == "opadpo" else job.recipe.train.opa


def _dataset(folder: Path) -> "Dataset":
    """A training set with every column of an example.

    Raises:
        WorkspaceError: if it is damaged.
    """
    import pyarrow as pa
    from datasets import Dataset

    try:
        rows = Dataset.load_from_disk(str(folder))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from error
    if lacking := [name for name in PreferenceExample.model_fields if name not in rows.column_names]:
        raise damaged(folder, f"it has no column {', '.join(lacking)}")
    return rows


def _prepare(job: TrainingJob, section: TrainerSection, progress: Progress) -> Prepared:
    """Check data and adapter and tokenize, before any weights are loaded."""
    processing = load_processing(job.pin, job.recipe)
    if job.start_folder is not None:
        lora = job.recipe.train.opa.lora if job.stage == "opa" else job.opadpo.lora
        check_fits(job.start_folder, job.pin, family=processing.family, lora=lora)
    rows = _dataset(job.dataset)
    if isinstance(section, OpadpoSection):
        prompts = Prompts(processing)
        preparation = Preparation(
            prompts,
            job.images,
            tuple(name for name in opadpo_names(section) if not name.endswith("_masked")),
            context_length(processing),
            longest=section.pad_to,
            may_lack=frozenset() if section.loss.standard_pair_coef > 0 else frozenset({"standard"}),
            score_weights=section.use_score_weights,
            image_weights=section.use_image_weights,
        )
    else:
        prompts = Prompts(processing, job.recipe.train.opa.image_aspect)
        preparation = Preparation(
            prompts, job.images, tuple(job.recipe.train.opa.responses), context_length(processing)
        )
    shown = progress if first_process() else SilentProgress()
    examples, left_out = prepare_examples(rows, preparation, shown, total=len(rows))
    train, held_out = split_by_image(examples, section.eval_share, job.recipe.seed)
    if first_process():
        lines = [json.dumps(item._asdict(), ensure_ascii=False) + "\n" for item in left_out]
        atomic_write(job.run / LEFT_OUT_FILE, "".join(lines))
    return Prepared(processing, prompts, train, held_out, left_out)


def split_by_image(
    examples: Sequence[TrainingExample], share: float, seed: int
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """(training, held-out) examples, disjoint by image, about `share` of them held out.

    Raises:
        DataError: if nothing is left to train on.
    """
    if share == 0:
        return list(examples), []
    images = sorted({example.image for example in examples})
    random.Random(derive_seed(seed, "eval")).shuffle(images)
    count = max(1, round(share * len(images)))
    if count >= len(images):
        raise DataError(
            "Too few images to hold some out for evaluation",
            seen=f"{len(images)} images, eval_share {share}",
            remedy="set eval_share to 0, or build a larger data set",
        )
    held = set(images[:count])
    return [e for e in examples if e.image not in held], [e for e in examples if e.image in held]


def _with_adapter(job: TrainingJob, model: Any, processing: Processing) -> Any:
    if job.start_folder is not None:
        return continued_adapter(model, job.start_folder, processing.family, language_only=job.stage == "opadpo")
    lora = job.recipe.train.opa.lora if job.stage == "opa" else job.opadpo.lora
    return fresh_adapter(model, job.pin, processing.family, lora, job.recipe.seed)


def _fill_reference(job: TrainingJob, trainer: OpadpoTrainer, prepared: Prepared, progress: Progress) -> dict[str, int]:
    recipe, section, names = job.recipe, trainer.section, trainer.collator.names
    made_from = {
        "start": "base" if job.start_folder is None else adapter_digest(job.start_folder),
        "base": job.pin.digest,
        "data": data_digest([*prepared.train, *prepared.held_out], names),
        "seed": recipe.seed,
        "responses": list(names),
        "model": outcome(recipe.model),
        "device": trainer.args.device.type,
        "precision": section.precision,
        "packing": section.packing,
        "masking": section.masking.model_dump(mode="json"),
        "prompt": outcome(recipe.prompt),
        "image": outcome(recipe.image),
    }
    return fill(
        job.run / REFERENCE_FOLDER,
        made_from,
        trainer.parts(),
        partial(trainer.logps_under, reference_name(trainer.model)),
        progress=progress,
        name=job.name,
        workers=trainer.args.dataloader_num_workers,
    )


def _measure_onpolicy(job: TrainingJob, trainer: OpadpoTrainer, prepared: Prepared) -> None:
    path = job.run / ONPOLICY_FILE
    if first_process() and not path.exists():
        start = None if job.start_folder is None else job.start
        atomic_write(path, json.dumps(measure(trainer, start=start, seed=job.recipe.seed), indent=2))


def _trainer(
    job: TrainingJob, section: TrainerSection, model: Any, prepared: Prepared, device: torch.device
) -> tuple[StageTrainer, int]:
    """The trainer, and the number of updates that a checkpoint holds already."""
    seed, processes = job.recipe.seed, processes_here()
    updates = number_of_updates(section, len(prepared.train))
    targets = model.peft_config["default"].target_modules
    only_language = job.stage == "opadpo" and job.start_folder is not None
    collator = _collator(job, section, prepared, prepared.train)
    stream = stream_of(section, prepared.train, collator.names, updates=updates, seed=seed, processes=processes)
    arguments = training_arguments(
        section,
        job.run,
        updates=updates,
        accumulation=stream.accumulation,
        processes=processes,
        device=device,
        seed=seed,
        evaluate=bool(prepared.held_out),
        sharding=job.recipe.train.sharding,
        unused_parameters=not only_language and targets != prepared.processing.family.lora_targets("language"),
    )
    newest = newest_complete(job.run)
    done = step_of(newest) if newest else 0
    wait_for_all()  # no process may look for checkpoints after another has begun to clear them
    if first_process():
        clear_torn(job.run, after=done)
        cut_metrics(job.run / METRICS_FILE, done)
    shared = {
        "model": model,
        "args": arguments,
        "train_dataset": stream,
        "eval_dataset": prepared.held_out or None,
        "collator": collator,
        "eval_collator": _collator(job, section, prepared, prepared.held_out) if prepared.held_out else None,
        "settings": RunSettings(
            job.pin, section.keep_checkpoints, section.pad_to if isinstance(section, OpadpoSection) else None
        ),
    }
    if isinstance(section, OpadpoSection):
        precision = "bfloat16" if arguments.bf16 else "float16" if arguments.fp16 else job.recipe.model.dtype
        return OpadpoTrainer(section=section, compute_dtype=getattr(torch, precision), **shared), done
    return OpaTrainer(**shared), done


def _collator(
    job: TrainingJob, section: TrainerSection, prepared: Prepared, examples: Sequence[TrainingExample]
) -> Collator:
    if not isinstance(section, OpadpoSection):
        return Collator(examples, prepared.prompts, job.recipe.train.opa.responses, packing=section.packing)
    return Collator(
        examples,
        prepared.prompts,
        opadpo_names(section),
        mask=image_mask(section, prepared.processing),
        mask_seed=mask_seeds(section, job.recipe.seed),
        packing=section.packing,
    )


def _task(progress: Progress, description: str, total: int, done: int) -> Any:
    return progress.task(description, total, done=done) if first_process() else nullcontext()


def _reporter(job: TrainingJob, section: TrainerSection, prepared: Prepared, task: Task | None) -> Reporter:
    return Reporter(job.run / METRICS_FILE, task, len(prepared.train) / section.batch_size)


def _out_of_memory(job: TrainingJob, section: TrainerSection, error: Exception) -> StepFailed:
    key = f"train.{job.stage}"
    per_process = section.batch_size // processes_here()
    micro = micro_batch_size(section, processes_here())
    advice = []
    if section.micro_batch_tokens is not None:
        advice.append(f"lower {key}.micro_batch_tokens from {section.micro_batch_tokens} (the result stays the same)")
    elif micro > 1:
        lower = max(size for size in range(1, micro) if per_process % size == 0)
        advice.append(f"lower {key}.micro_batch_size from {micro} to {lower} (the result stays the same)")
    if not section.gradient_checkpointing:
        advice.append(f"set {key}.gradient_checkpointing to true")
    advice.append(f"set {key}.precision to bfloat16, or model.quantization to 4bit")
    return StepFailed(
        "The GPU is out of memory",
        seen=str(error).splitlines()[0],
        remedy="; or ".join(advice) + "; then run the command again: it continues from the last checkpoint",
    )


def _last_metrics(path: Path) -> dict[str, float]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    losses = [line for line in (json.loads(text) for text in lines) if "loss" in line]
    if not losses:
        return {}
    wanted = ("loss", "rewards/accuracies", "rewards/margins", "tokens_per_second")
    return {key: losses[-1][key] for key in wanted if key in losses[-1] and math.isfinite(losses[-1][key])}


def work(payload: str, service: Service) -> str:
    """What one of several processes does: the job, which comes as JSON; returns the outcome as JSON."""
    progress = service.progress if first_process() else SilentProgress()
    return run_job(TrainingJob.model_validate_json(payload), progress).model_dump_json()
