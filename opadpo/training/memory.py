"""How much memory a training run needs, before any weights are loaded.

What has a formula is counted from the model's modules, made without memory: weights, adapters, gradients, optimizer.
What a step holds beside them is rehearsed on tensors without memory (`rehearsal`). The reference pass needs no more
than the policy's: it is the same forward pass, of which nothing is kept.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from opadpo.models.families import family_for
from opadpo.models.families.base import Family
from opadpo.recipe import Recipe
from opadpo.recipe.training import LoraSection, OpadpoSection, TrainerSection
from opadpo.training.collate import MASKED
from opadpo.training.opadpo import opadpo_names
from opadpo.training.rehearsal import BatchShape, Held, Kind, rehearse

GIB = 2**30
FLOAT32 = 4
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED = {"4bit": 0.516, "8bit": 1.01}
"""Bytes of a quantized weight with its scales: nf4 has one 8-bit scale for 64 weights, scaled again (arXiv 2305.14314,
section 3); LLM.int8() one float32 for each row (arXiv 2208.07339)."""
OPTIMIZERS = {"adamw": 8.0, "adamw_8bit": 2.03}
"""Bytes for each trained weight: two moments in float32; or in 8 bits, with a float32 scale for 256 of them (arXiv
2110.02861)."""
GPU_MARGIN = 0.8 * GIB
"""CUDA context, kernels, and workspaces of cuBLAS and NCCL on one GPU."""
CPU_MARGIN = 0.7 * GIB
"""Python, PyTorch and the libraries, in a process that computes on the CPU."""
FRAGMENTS = 0.05
"""Share of what a step holds that the GPU's allocator cannot fill again."""


class Demand(NamedTuple):
    """The longest example."""

    prompt: int
    """Tokens of the prompt, image included."""
    image_tokens: int
    """Those of the image."""
    patches: int
    """Patches that the tower computes for the image."""
    responses: Mapping[str, int]
    """Response -> its tokens."""


@dataclass(frozen=True)
class Stage:
    """A training stage as far as memory depends on it."""

    recipe: Recipe
    section: TrainerSection
    """Of the recipe: `train.opa` or `train.opadpo`."""
    config: Any
    """The model's config."""
    continued: bool
    """Whether it starts from an adapter, of which a frozen copy is the reference."""

    @property
    def key(self) -> str:
        """Where its settings are in the recipe."""
        return "train.opadpo" if isinstance(self.section, OpadpoSection) else "train.opa"

    @property
    def family(self) -> Family:
        """The model's family."""
        return family_for(self.config.model_type)

    @property
    def names(self) -> tuple[str, ...]:
        """The sequences of an example."""
        if isinstance(self.section, OpadpoSection):
            return opadpo_names(self.section)
        return tuple(self.recipe.train.opa.responses)

    @property
    def lora(self) -> LoraSection:
        """The adapter."""
        return self.section.lora if isinstance(self.section, OpadpoSection) else self.recipe.train.opa.lora

    @property
    def trains_tower(self) -> bool:
        """Whether the adapter has a part in projector and tower that is trained."""
        frozen = self.continued and isinstance(self.section, OpadpoSection)
        return self.lora.targets == "all" and not frozen

    @property
    def per_process(self) -> int:
        """Examples of an update in one process."""
        return self.section.batch_size // self.recipe.train.processes

    @property
    def micro_batch_size(self) -> int:
        """Examples of a forward pass."""
        return min(self.section.micro_batch_size, self.per_process)

    def with_settings(self, **settings: Any) -> "Stage":
        """The same with other settings in its section."""
        return replace(self, section=self.section.model_copy(update=settings))

    def with_model(self, **settings: Any) -> "Stage":
        """The same with other settings of the base model."""
        model = self.recipe.model.model_copy(update=settings)
        return replace(self, recipe=self.recipe.model_copy(update={"model": model}))


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs at its peak, by what for."""

    weights: int
    """The base, frozen."""
    adapters: int
    """The policy's, and the reference's where training starts from one; float32."""
    gradients: int
    """Of the policy's adapter; with several processes also what they exchange them in."""
    optimizer: int
    """Its moments."""
    activations: int
    """What a step holds: attention mask, what the backward pass needs, logits."""
    images: int
    """Pixels, features, and what the backward pass needs of a trained tower."""
    margin: int
    """Libraries, and what the allocator cannot fill."""

    @property
    def total(self) -> int:
        """The sum."""
        return sum(asdict(self).values())

    @property
    def least(self) -> float:
        """What it takes even if a step holds a quarter less than estimated."""
        return self.total - (self.activations + self.images) / 4

    def __str__(self) -> str:
        """The sum and its parts in GiB."""
        parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in asdict(self).items() if value > 0.05 * GIB)
        return f"{self.total / GIB:.1f} GiB ({parts})"


def estimate(stage: Stage, demand: Demand, *, gpu: bool, micro_batch_size: int | None = None) -> MemoryEstimate:
    """The peak where all examples of a micro-batch are as long as the longest.

    Args:
        stage: what is trained.
        demand: the longest example.
        gpu: whether it runs on a GPU; else in a process that computes on the CPU.
        micro_batch_size: another than the recipe's.
    """
    micro = micro_batch_size or examples_at_once(stage, demand)
    model = _weighed(stage.config.to_json_string(use_diff=False), stage.config.model_type)
    rank, all_targets = stage.lora.rank, stage.lora.targets == "all"
    trained = rank * (model.language + model.tower * stage.trains_tower)
    held = _held(stage, demand, micro)
    layer = held.layer
    if micro == stage.per_process:  # one backward pass makes all gradients, while what it needs is let go
        layer = max(0.0, layer - rank * model.language * FLOAT32 / model.layers)
    activations = held.fixed + layer * model.layers
    images = _images(stage, demand, model) * micro
    processes = stage.recipe.train.processes
    weights = model.weights(stage.recipe.model.dtype, stage.recipe.model.quantization)
    copies = 2 if stage.continued else 1
    kept = {
        "weights": weights,
        "adapters": rank * (model.language + model.tower * all_targets) * FLOAT32 * copies,
        "gradients": trained * FLOAT32 * (2 if processes > 1 else 1),
        "optimizer": trained * OPTIMIZERS[stage.section.optimizer],
    }
    if stage.recipe.train.sharding == "fsdp":  # a layer is gathered while the one before it computes
        activations += 2 * weights / model.layers
        kept = {name: value / processes for name, value in kept.items()}
    margin = GPU_MARGIN + FRAGMENTS * (activations + images) if gpu else CPU_MARGIN
    parts = {**kept, "activations": activations, "images": images, "margin": margin}
    return MemoryEstimate(**{name: round(value) for name, value in parts.items()})


def examples_at_once(stage: Stage, demand: Demand) -> int:
    """Examples like this one that a micro-batch holds."""
    budget = stage.section.micro_batch_tokens
    if budget is None:
        return stage.micro_batch_size
    return min(stage.per_process, max(1, budget // tokens_of_example(stage, demand)))


def tokens_of_example(stage: Stage, demand: Demand) -> int:
    """Tokens of an example like this one, as `micro_batch_tokens` counts them."""
    return sum(prompt + sum(responses) for prompt, responses in batch_shape(stage, demand, 1).rows)


def batch_shape(stage: Stage, demand: Demand, examples: int) -> BatchShape:
    """A micro-batch of examples like this one."""
    lengths = {name: demand.responses[name.removesuffix(MASKED)] for name in stage.names}
    if not stage.section.packing:
        return BatchShape(tuple((demand.prompt, (size,)) for size in lengths.values()) * examples)
    rows = [tuple(n for name, n in lengths.items() if name.endswith(MASKED) == masked) for masked in (False, True)]
    return BatchShape(tuple((demand.prompt, row) for row in rows if row) * examples)


class Weighed(NamedTuple):
    """Sizes of a model."""

    parameters: int
    """All of them."""
    quantizable: int
    """Those of linear layers other than the head."""
    largest: int
    """Those of the largest linear layer."""
    layers: int
    """Of the language model."""
    language: int
    """Parameters that an adapter of rank 1 has on the language model."""
    tower: int
    """And on projector and tower: as many values as their linear layers take in and give out."""
    blocks: int
    """Of the tower."""
    width: int
    """Of the tower."""

    def weights(self, dtype: str, quantization: str) -> float:
        """Bytes of the base; of a quantized one with the copy of a layer that is computed with."""
        if quantization == "none":
            return self.parameters * WIDTHS[dtype]
        rest = self.parameters - self.quantizable + self.largest
        return self.quantizable * QUANTIZED[quantization] + rest * WIDTHS[dtype]


@lru_cache(maxsize=16)
def _weighed(config: str, model_type: str) -> Weighed:
    import json

    import torch
    from torch import nn
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    family = family_for(model_type)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CONFIG_MAPPING[model_type].from_dict(json.loads(config)))
    model.tie_weights()
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inner = {name: module.weight.numel() for name, module in linears.items() if not name.endswith("lm_head")}
    sums = {
        part: {n: m.in_features + m.out_features for n, m in linears.items() if re.fullmatch(pattern, n)}
        for part, pattern in (("language", family.lora_targets("language")), ("tower", family.tower_linears))
    }
    blocks = [
        len(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and "language_model" not in name
    ]
    return Weighed(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        quantizable=sum(inner.values()),
        largest=max(inner.values()),
        layers=model.config.get_text_config().num_hidden_layers,
        language=sum(sums["language"].values()),
        tower=sum(sums["tower"].values()),
        blocks=max(blocks, default=1),
        width=min(linears[name].in_features for name in sums["tower"]),
    )


def _held(stage: Stage, demand: Demand, micro: int) -> Held:
    """What a step holds in the language model: rehearsed with one example and with two, then linear."""
    model, section = stage.recipe.model, stage.section
    kind = Kind(
        config=stage.config.to_json_string(use_diff=False),
        family=stage.config.model_type,
        rank=stage.lora.rank,
        dtype=model.dtype,
        precision=section.precision,
        checkpointing=section.gradient_checkpointing,
        attention=model.attention,
        packed=section.packing,
    )
    one, two = (rehearse(kind, batch_shape(stage, demand, examples)) for examples in (1, 2))
    more = micro - 1
    return Held(one.fixed + more * (two.fixed - one.fixed), one.layer + more * (two.layer - one.layer))


def _images(stage: Stage, demand: Demand, model: Weighed) -> float:
    """Bytes for the images of one example.

    A trained tower keeps what its linear layers take in and give out; with checkpointing what its blocks take in, and
    all that one of them makes.
    """
    wide = WIDTHS[stage.section.precision]
    images = len(batch_shape(stage, demand, 1).rows)
    vision = stage.config.vision_config
    pixels = demand.patches * 3 * vision.patch_size**2 * getattr(vision, "temporal_patch_size", 1) * FLOAT32
    features = demand.image_tokens * stage.config.get_text_config().hidden_size * WIDTHS[stage.recipe.model.dtype]
    if not stage.trains_tower:
        return images * (pixels + features)
    if stage.section.gradient_checkpointing:
        per_patch = model.blocks * model.width + model.tower / model.blocks
    else:
        per_patch = model.tower
    return images * (pixels + features + demand.patches * per_patch * wide)
