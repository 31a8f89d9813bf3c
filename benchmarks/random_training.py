"""Models with random weights and examples with random tokens, for the measurements that train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from opadpo.models.base import BasePin
from opadpo.models.families import family_for
from opadpo.models.families.base import Processing, PromptInputs
from opadpo.recipe import Recipe
from opadpo.recipe.training import LoraSection, OpadpoSection
from opadpo.training.arguments import training_arguments
from opadpo.training.collate import Collator, stream_of
from opadpo.training.examples import Response, TrainingExample
from opadpo.training.opa import OpaTrainer
from opadpo.training.opadpo import OpadpoTrainer, mask_seeds, opadpo_names
from opadpo.training.policy import POLICY, REFERENCE, fresh_adapter
from opadpo.training.trainer import RunSettings, StageTrainer

FIRST_TEXT_ID = 10
"""Ids below are kept for special tokens."""
RESPONSES = ("standard", "revised", "generated")


class Lengths(NamedTuple):
    """Tokens of an example."""

    question: int
    """Text of the prompt."""
    responses: tuple[int, int, int]
    """Standard, revised, generated."""


class RandomPrompts:
    """Stands in for `Prompts`: random pixels and text; every image shows the same number of patches."""

    def __init__(self, config: Any, inputs: dict[str, torch.Tensor], lengths: Lengths) -> None:
        """`inputs` are the image tensors of one prompt; their pixels are drawn anew for each."""
        self.processing = Processing(family_for(config.model_type), _Padding(), None, config, "", "native")
        self.inputs = inputs
        self.lengths = lengths
        self.image_tokens = self.processing.family.image_token_count(self.processing, inputs)

    def encode(self, example_id: str, question: str, image: Path) -> PromptInputs:
        """The prompt of an example; the same for the same id."""
        chance = torch.Generator().manual_seed(int(example_id))
        pixels = torch.randn(self.inputs["pixel_values"].shape, generator=chance)
        text = draw(self.processing.config, self.lengths.question, chance)
        image_token = self.processing.family.image_token_id(self.processing)
        return PromptInputs([*[image_token] * self.image_tokens, *text], self.inputs | {"pixel_values": pixels}, 0)


class _Padding:
    """What is asked of a tokenizer here."""

    pad_token_id = 0
    eos_token_id = 0


def draw(config: Any, count: int, chance: torch.Generator) -> list[int]:
    """Random ids that are no special tokens."""
    most = min(config.get_text_config().vocab_size, config.image_token_id)
    return torch.randint(FIRST_TEXT_ID, most, (count,), generator=chance).tolist()


def examples(config: Any, count: int, prompts: RandomPrompts) -> list[TrainingExample]:
    """Examples with all three responses, and weights of one."""
    made = []
    for number in range(count):
        chance = torch.Generator().manual_seed(1000 + number)
        responses = {}
        for name, length in zip(RESPONSES, prompts.lengths.responses, strict=True):
            ones = np.ones(length, dtype=np.float32)
            responses[name] = Response(np.asarray(draw(config, length, chance), dtype=np.int32), ones, ones)
        length = prompts.image_tokens + prompts.lengths.question
        made.append(TrainingExample(str(number), "", Path(), length, responses))
    return made


def random_model(config: Any, lora: LoraSection, dtype: str, device: str, *, reference: bool, attention: str = "sdpa"):
    """A model with random weights and a new adapter; with `reference` one that changes it, and a frozen copy beside."""
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation=attention
        )
    model.requires_grad_(False).eval()
    model.config.use_cache = False
    pin = random_pin(config)
    adapted = fresh_adapter(model, pin, family_for(config.model_type), lora, seed=0)
    if reference:
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        adapted.add_adapter(REFERENCE, adapted.peft_config[POLICY])
        named = dict(adapted.named_parameters())
        with torch.no_grad():
            for name, parameter in named.items():
                if f".{REFERENCE}." in name:
                    parameter.copy_(named[name.replace(f".{REFERENCE}.", f".{POLICY}.")])
        adapted.set_adapter(POLICY)
    return adapted


def random_pin(config: Any) -> BasePin:
    """The pin of no base."""
    return BasePin(base="random", revision="", path="", digest="", family=config.model_type)


def stage_trainer(
    recipe: Recipe,
    section: Any,
    model: Any,
    made: Sequence[TrainingExample],
    prompts: RandomPrompts,
    *,
    updates: int,
    run: Path,
    processes: int = 1,
    sharding: str = "none",
) -> StageTrainer:
    """The trainer of a stage as `opadpo.training.run` makes it."""
    device = next(model.parameters()).device
    second = isinstance(section, OpadpoSection)
    names = opadpo_names(section) if second else tuple(recipe.train.opa.responses)
    collator = Collator(
        made,
        prompts,  # pyright: ignore[reportArgumentType]
        names,
        mask=lambda inputs, seed: inputs | {"pixel_values": inputs["pixel_values"].flip(0)},
        mask_seed=mask_seeds(section, 0) if second else None,
        packing=section.packing,
    )
    stream = stream_of(section, made, names, updates=updates, seed=0, processes=processes)
    shared = {
        "model": model,
        "args": training_arguments(
            section,
            run,
            updates=updates,
            accumulation=stream.accumulation,
            processes=processes,
            device=device,
            seed=0,
            evaluate=False,
            unused_parameters=False,
            sharding=sharding,
        ),
        "train_dataset": stream,
        "eval_dataset": None,
        "collator": collator,
        "eval_collator": None,
        "settings": RunSettings(random_pin(prompts.processing.config), 1),
    }
    if second:
        return OpadpoTrainer(section=section, compute_dtype=getattr(torch, section.precision), **shared)
    return OpaTrainer(**shared)
