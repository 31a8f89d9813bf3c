"""Whether a training run fits on the machine at hand, and what to change where it does not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from opadpo.errors import DependencyMissing, UserError
from opadpo.models.families.base import Processing
from opadpo.models.loading import choose_device
from opadpo.models.published import planned_processing
from opadpo.progress import Progress
from opadpo.recipe import Recipe
from opadpo.training.collate import row_tokens
from opadpo.training.memory import (
    GIB,
    Demand,
    MemoryEstimate,
    Stage,
    estimate,
    examples_at_once,
    tokens_of_example,
)

if TYPE_CHECKING:
    import torch

    from opadpo.training.examples import Prompts, TrainingExample

CARDS = (24, 48, 80, 139)
"""GiB of the GPUs that are told about: RTX 4090 and A10, L40S and A6000, A100 and H100, H200."""
CLOSE = 0.9
"""Share of the memory from which on a run is said to be close to it."""
LONGEST_RESPONSE = 256
"""Tokens of a response that are planned with where there is no data yet."""
LONGEST_QUESTION = 64
"""Tokens of the prompt's text that are planned with."""
USUAL_IMAGE = (640, 480)
"""Width and height in pixels of the image that is planned with: the size of most photographs of COCO."""


class Memory(NamedTuple):
    """What a process can have."""

    name: str
    """Of the device."""
    bytes: int
    """Not in use by others."""
    gpu: bool
    """Whether it is a GPU's."""


class Fit(NamedTuple):
    """An estimate beside the memory that there is."""

    stage: Stage
    demand: Demand
    memory: Memory
    estimate: MemoryEstimate

    @property
    def close(self) -> bool:
        """Whether it needs nearly all there is, or more."""
        return self.estimate.total > CLOSE * self.memory.bytes

    @property
    def impossible(self) -> bool:
        """Whether there is too little even if a step held a quarter less than estimated."""
        return self.estimate.least > self.memory.bytes

    @property
    def largest(self) -> int:
        """The largest micro_batch_size that fits with room to spare; 0 if none does."""
        return largest_micro_batch(self.stage, self.demand, self.memory)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.stage.key} needs about {self.estimate} of {self.memory.bytes / GIB:.1f} GiB ({self.memory.name})"
            f" with {self._size(self.examples)}"
        )

    @property
    def examples(self) -> int:
        """Examples like the longest that a micro-batch holds."""
        return examples_at_once(self.stage, self.demand)

    def on_cards(self) -> str:
        """The largest micro_batch_size on GPUs that one can rent."""
        sizes = [
            (card, largest_micro_batch(self.stage, self.demand, Memory("", card * GIB, gpu=True))) for card in CARDS
        ]
        return ", ".join(f"{size or 'none'} in {card} GiB" for card, size in sizes)

    def advice(self) -> list[str]:
        """What would make it fit, or smaller, each with the figure that it leads to."""
        key, largest = self.stage.key, self.largest
        lines = []
        if 0 < largest < self.examples:
            after = self._total(self.stage, largest)
            lines.append(f"set {key}.{self._size(largest, ' to')} ({after}; the result stays the same)")
        for text, stage in self._smaller():
            largest = largest_micro_batch(stage, self.demand, self.memory)
            micro = min(max(largest, 1), self.examples)
            also = f" and {self._size(micro, ' to')}" if micro < self.examples else ""
            lines.append(f"set {text}{also} ({self._total(stage, micro)})")
        return lines or [f"use a device with more than {self.estimate.total / GIB:.0f} GiB"]

    def _smaller(self) -> Iterator[tuple[str, Stage]]:
        stage, section, key = self.stage, self.stage.section, self.stage.key
        if not section.gradient_checkpointing:
            yield f"{key}.gradient_checkpointing to true", stage.with_settings(gradient_checkpointing=True)
        if not section.packing:
            yield f"{key}.packing to true", stage.with_settings(packing=True)
        if section.precision == "float32" and stage.recipe.model.dtype == "float32" and self.memory.gpu:
            halved = stage.with_model(dtype="bfloat16").with_settings(precision="bfloat16")
            yield f"model.dtype and {key}.precision to bfloat16", halved
        if self.memory.gpu and section.optimizer == "adamw":
            yield f"{key}.optimizer to adamw_8bit", stage.with_settings(optimizer="adamw_8bit")
        if self.memory.gpu and stage.recipe.model.quantization == "none":
            yield "model.quantization to 4bit", stage.with_model(quantization="4bit")

    def _size(self, examples: int, to: str = "") -> str:
        """The setting that makes micro-batches of so many examples."""
        budget = self.stage.section.micro_batch_tokens
        if budget is None:
            return f"micro_batch_size{to} {examples}"
        fitting = budget if examples == self.examples else examples * tokens_of_example(self.stage, self.demand)
        return f"micro_batch_tokens{to} {fitting}"

    def _total(self, stage: Stage, micro: int) -> str:
        return f"{estimate(stage, self.demand, gpu=self.memory.gpu, micro_batch_size=micro).total / GIB:.1f} GiB"


def fit(stage: Stage, demand: Demand, memory: Memory) -> Fit:
    """Estimate a stage for the longest example on a device."""
    return Fit(stage, demand, memory, estimate(stage, demand, gpu=memory.gpu))


def largest_micro_batch(stage: Stage, demand: Demand, memory: Memory) -> int:
    """The largest micro_batch_size that divides a process's share of the batch and fits with room to spare, or 0."""
    sizes = [size for size in range(stage.per_process, 0, -1) if stage.per_process % size == 0]
    for size in sizes:
        if estimate(stage, demand, gpu=memory.gpu, micro_batch_size=size).total <= CLOSE * memory.bytes:
            return size
    return 0


def memory_at_hand(device: "torch.device", processes: int) -> Memory:
    """What one of several processes can have on this machine: a GPU of its own, or its share of the RAM.

    The RAM is what the machine has left, or what the process's control group may still take.
    """
    import psutil
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Memory(torch.cuda.get_device_name(device), free, gpu=True)
    own = psutil.Process().memory_info().rss
    free = min([psutil.virtual_memory().available, *_left_in_group()]) + own
    return Memory("RAM" if processes == 1 else f"RAM, one of {processes} processes", free // processes, gpu=False)


def _left_in_group() -> Iterator[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        cached = [
            int(line.split()[1])
            for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
            if line.startswith("inactive_file ")
        ]
    except (OSError, ValueError):
        return
    if most.isdigit():
        yield int(most) - used + sum(cached)


def demand_of(examples: "Sequence[TrainingExample]", stage: Stage, prompts: "Prompts") -> Demand:
    """The example of a data set that needs most."""
    packing, names = stage.section.packing, stage.names
    longest = max(examples, key=lambda e: row_tokens(e, names) if packing else e.prompt_length + e.longest_response)
    inputs = prompts.encode(longest.example_id, longest.question, longest.image).model_inputs
    processing = prompts.processing
    responses = {name: len(response.ids) for name, response in longest.responses.items()}
    return Demand(
        longest.prompt_length,
        processing.family.image_token_count(processing, inputs),
        patches_of(processing, inputs),
        responses,
    )


def demand_planned(recipe: Recipe, processing: Processing) -> Demand:
    """What to plan with where there is no data yet: a usual image and long responses."""
    from PIL import Image

    inputs = processing.family.image_inputs(processing, Image.new("RGB", USUAL_IMAGE), recipe.image.aspect)
    image_tokens = processing.family.image_token_count(processing, inputs)
    response = min(LONGEST_RESPONSE, recipe.rollout.max_new_tokens)
    responses: dict[str, int] = dict.fromkeys(("standard", "revised", "generated"), response)
    return Demand(image_tokens + LONGEST_QUESTION, image_tokens, patches_of(processing, inputs), responses)


def planned(recipe: Recipe) -> list[Fit]:
    """Both stages of a recipe on this machine, without data and weights.

    Where the recipe asks for a GPU and there is none, the memory is that of no device.

    Raises:
        ModelError: if the sizes of the base model are not known here.
    """
    processing = planned_processing(recipe)
    try:
        memory = memory_at_hand(choose_device(recipe.model.device), recipe.train.processes)
    except DependencyMissing:
        memory = Memory("no GPU here", 0, gpu=True)
    demand = demand_planned(recipe, processing)
    opa, opadpo = recipe.train.opa, recipe.train.opadpo
    stages = (Stage(recipe, opa, processing.config, False), Stage(recipe, opadpo, processing.config, True))
    return [fit(stage, demand, memory) for stage in stages]


def patches_of(processing: Processing, inputs: "dict[str, torch.Tensor]") -> int:
    """Patches that the tower computes for a prompt's image tensors."""
    vision = processing.config.vision_config
    values = 3 * vision.patch_size**2 * getattr(vision, "temporal_patch_size", 1)
    return inputs["pixel_values"].numel() // values


def check_memory(
    stage: Stage, examples: "Sequence[TrainingExample]", prompts: "Prompts", device: "torch.device", progress: Progress
) -> None:
    """Say what a run will need; warn where it is close to what there is.

    Raises:
        UserError: if it plainly cannot fit, unless `train.ignore_memory_estimate` is set.
    """
    found = fit(stage, demand_of(examples, stage, prompts), memory_at_hand(device, stage.recipe.train.processes))
    if found.impossible and not stage.recipe.train.ignore_memory_estimate:
        raise UserError(
            "This training does not fit into memory",
            seen=str(found),
            remedy="; or ".join([*found.advice(), "set train.ignore_memory_estimate to true to try all the same"]),
        )
    if found.close:
        progress.warn(f"Memory is short: {found}. If it runs out, {'; or '.join(found.advice())}.")
    else:
        progress.say(f"Memory: {found}.")
