"""Combinations of settings that cannot work, each with its remedy."""

import re
from collections.abc import Iterator
from pathlib import Path

from opadpo.recipe.endpoints import AskingSection
from opadpo.recipe.jobs import LOCAL, TargetSection
from opadpo.recipe.model import Recipe
from opadpo.recipe.training import TrainerSection


def impossible_combinations(recipe: Recipe) -> list[str]:
    """One line per impossible combination: keys, values seen, remedy. Empty if there is none."""
    return [
        *_data(recipe),
        *_generation(recipe),
        *_asking(recipe),
        *_model(recipe),
        *_training(recipe),
        *_jobs(recipe),
    ]


def _data(recipe: Recipe) -> Iterator[str]:
    source = recipe.prepare.source
    if source.kind in ("table", "folder") and not source.path:
        yield f"prepare.source.path: needed when prepare.source.kind is {source.kind}; name a file, folder or hub id"
    if source.kind == "folder" and not source.question:
        yield "prepare.source.question: needed when prepare.source.kind is folder; write the question to ask"
    no_reference = source.kind == "folder" or (source.kind == "table" and source.columns.reference is None)
    if no_reference:
        why = f"prepare.source.kind {source.kind} gives no reference answers"
        if recipe.train.opadpo.loss.standard_pair_coef > 0:
            yield (
                f"train.opadpo.loss.standard_pair_coef: seen {recipe.train.opadpo.loss.standard_pair_coef}, but {why};"
                " set it to 0 or name prepare.source.columns.reference"
            )
        if "standard" in recipe.train.opa.responses:
            yield f"train.opa.responses: seen {recipe.train.opa.responses}, but {why}; set it to [revised]"


def _generation(recipe: Recipe) -> Iterator[str]:
    rollout = recipe.rollout
    if rollout.temperature == 0 and rollout.samples_per_prompt > 1:
        yield (
            f"rollout.samples_per_prompt: seen {rollout.samples_per_prompt} with rollout.temperature 0; greedy samples"
            " are all the same: set samples_per_prompt to 1 or raise the temperature"
        )
    server = rollout.server.endpoint
    if rollout.engine == "server" and not (server.base_url or server.server_command):
        yield (
            "rollout.server.endpoint.base_url: seen null with rollout.engine server; name the address of a server of"
            " the base model, or its server_command"
        )
    if set(recipe.build.score_weights) != {1, 2, 3, 4}:
        yield f"build.score_weights: seen scores {sorted(recipe.build.score_weights)}; give 1, 2, 3 and 4"
    wanted = {"image_recognition_error", "language_comprehension_error", "correct"}
    if set(recipe.build.image_weights) != wanted:
        yield f"build.image_weights: seen {sorted(recipe.build.image_weights)}; give {', '.join(sorted(wanted))}"


def _asking(recipe: Recipe) -> Iterator[str]:
    for name, section in (("revise", recipe.revise), ("rollout.server", recipe.rollout.server)):
        yield from _endpoints(name, section)


def _endpoints(name: str, section: AskingSection) -> Iterator[str]:
    named = [(f"{name}.endpoint", section.endpoint)]
    named += [(f"{name}.more_endpoints[{place}]", each) for place, each in enumerate(section.more_endpoints)]
    for key, endpoint in named:
        if endpoint.provider == "azure" and not endpoint.base_url:
            yield f"{key}.base_url: needed when provider is azure; write it like https://NAME.openai.azure.com"
        if endpoint.provider != "azure" and (endpoint.entra or endpoint.api_version):
            yield f"{key}: entra and api_version are Azure's; set provider to azure or leave them out"
        if endpoint is not section.endpoint and endpoint.server_command:
            yield f"{key}.server_command: a step starts one server at the most, that of {name}.endpoint; use base_url"


def _model(recipe: Recipe) -> Iterator[str]:
    model = recipe.model
    if model.device == "cpu":
        if model.quantization != "none":
            yield (
                f"model.quantization: seen {model.quantization} with model.device cpu; quantized training needs a CUDA"
                " GPU: set quantization to none"
            )
        for stage, section in (("opa", recipe.train.opa), ("opadpo", recipe.train.opadpo)):
            if section.precision == "float16":
                yield (f"train.{stage}.precision: seen float16 with model.device cpu; use float32 or bfloat16 on a CPU")
    if model.base.startswith(("/", "./", "../", "~")) and not Path(model.base).expanduser().is_dir():
        yield f"model.base: seen {model.base}; there is no such folder: give an existing folder or a hub id"


def _training(recipe: Recipe) -> Iterator[str]:
    for stage, section in (("opa", recipe.train.opa), ("opadpo", recipe.train.opadpo)):
        yield from _trainer(f"train.{stage}", section, recipe.train.processes)
    for name in ("rank", "alpha", "targets"):
        first, second = (getattr(section.lora, name) for section in (recipe.train.opa, recipe.train.opadpo))
        if first != second:
            yield (
                f"train.opadpo.lora.{name}: seen {second} with train.opa.lora.{name} {first}; the second stage"
                " continues the first one's adapter: make them the same"
            )
    if recipe.train.sharding == "fsdp" and recipe.model.quantization != "none":
        yield (
            f"train.sharding: seen fsdp with model.quantization {recipe.model.quantization}; quantized weights are not"
            " sharded: set one of them to none"
        )
    loss = recipe.train.opadpo.loss
    if not (loss.standard_pair_coef or loss.revised_pair_coef):
        yield (
            "train.opadpo.loss: seen standard_pair_coef 0 and revised_pair_coef 0; nothing is left to prefer: set at"
            " least one above 0"
        )


def _trainer(key: str, section: TrainerSection, processes: int) -> Iterator[str]:
    if section.batch_size % processes:
        yield (
            f"{key}.batch_size: seen {section.batch_size} with train.processes {processes}; make it a multiple of the"
            " processes"
        )
    elif section.micro_batch_tokens is None and (
        (section.batch_size // processes) % min(section.micro_batch_size, section.batch_size // processes)
    ):
        yield (
            f"{key}.micro_batch_size: seen {section.micro_batch_size} with {key}.batch_size {section.batch_size} and"
            f" train.processes {processes}; it must divide the {section.batch_size // processes} examples of a process"
        )
    if section.micro_batch_tokens is not None and not section.packing:
        yield (
            f"{key}.micro_batch_tokens: seen {section.micro_batch_tokens} with {key}.packing false; set packing"
            " to true, or use micro_batch_size"
        )
    if section.warmup_steps is not None and section.warmup_ratio > 0:
        yield (
            f"{key}.warmup_steps: seen {section.warmup_steps} together with warmup_ratio {section.warmup_ratio};"
            " set one of them"
        )


_NAME = re.compile(r"[A-Za-z0-9_-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[^\s\x00-\x1f]+")
"""One word: what a machine, a partition or an amount of memory can be called."""


def _jobs(recipe: Recipe) -> Iterator[str]:
    jobs = recipe.jobs
    if jobs.target not in jobs.named():
        yield f"jobs.target: seen {jobs.target}; use one of {', '.join(jobs.named())}, or add it to jobs.targets"
    if jobs.webhook_env is not None and not _VARIABLE.fullmatch(jobs.webhook_env):
        yield "jobs.webhook_env: seen what is no name of a variable; the address itself belongs into the environment"
    for name, target in jobs.targets.items():
        yield from _target(f"jobs.targets.{name}", name, target)


def _target(key: str, name: str, target: TargetSection) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield f"jobs.targets: seen the name {name!r}; use letters, digits, - and _ only"
    if name == LOCAL and target.kind != "local":
        yield f"{key}.kind: seen {target.kind}; `local` is this machine: give the other one another name"
    if target.kind == "ssh" and not target.host:
        yield f"{key}.host: needed when kind is ssh; write an alias of ~/.ssh/config or USER@HOST"
    for field in ("host", "partition", "account", "qos", "memory"):
        value = getattr(target, field)
        if value is not None and (value.startswith("-") or not _PLAIN.fullmatch(value)):
            yield f"{key}.{field}: seen {value!r}; write one word that does not begin with -"
    for variable in target.env:
        if not _VARIABLE.fullmatch(variable):
            yield f"{key}.env: seen what is no name of a variable; its value belongs into the environment"
    for line in target.extra:
        if not line.startswith("-") or not line.isprintable():
            yield f"{key}.extra: seen {line!r}; write an option of sbatch, as in --exclude=node7"
    gpus = target.gpus if isinstance(target.gpus, list) else [target.gpus or 0]
    if any(index < 0 for index in gpus):
        yield f"{key}.gpus: seen {target.gpus}; write indexes from 0, or how many"
