"""The recipe as a whole, and what can be derived from its fields."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from opadpo.recipe.base import Section, setting
from opadpo.recipe.jobs import JobsSection
from opadpo.recipe.sections import (
    BuildSection,
    CaptionSection,
    EvaluateSection,
    ImageSection,
    ModelSection,
    PrepareSection,
    PromptSection,
    ReviewSection,
    ReviseSection,
    RolloutSection,
)
from opadpo.recipe.training import TrainSection


class Recipe(Section):
    """Every setting of every step."""

    name: str = setting("custom", "Name of the recipe, for people.", outcome=False)
    seed: int = setting(0, "Seed of everything that is drawn at random.", ge=0, lt=2**31)
    model: ModelSection = setting(ModelSection(), "The base model.")
    prompt: PromptSection = setting(PromptSection(), "How a question becomes the model's input.")
    image: ImageSection = setting(ImageSection(), "How an image becomes the model's input.")
    prepare: PrepareSection = setting(PrepareSection(), "Prompts and images.")
    rollout: RolloutSection = setting(RolloutSection(), "The model's own responses.")
    revise: ReviseSection = setting(ReviseSection(), "Corrections by an expert.")
    review: ReviewSection = setting(ReviewSection(), "Corrections by people.", outcome=False)
    build: BuildSection = setting(BuildSection(), "Data sets for training.")
    train: TrainSection = setting(TrainSection(), "The two stages.")
    caption: CaptionSection = setting(CaptionSection(), "Responses on held-out prompts.")
    evaluate: EvaluateSection = setting(EvaluateSection(), "Benchmark figures.")
    jobs: JobsSection = setting(JobsSection(), "Work in the background, here or elsewhere.", outcome=False)


_MODULES = re.compile(r"\b(?:\w+\.)+(?=[A-Z])|\btyping\.")
"""Where a type is defined: of no interest to readers."""


class FieldInfo(NamedTuple):
    """One setting, for help texts, forms and documentation."""

    key: str
    """Dotted key, as in `--set`."""
    type: str
    """Readable type."""
    default: Any
    """Default value."""
    help: str
    """What it means."""
    outcome: bool
    """False if it cannot change a result."""


def describe(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[FieldInfo]:
    """All settings below `section`, in order, with dotted keys."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from describe(annotation, f"{key}.")
            continue
        text = getattr(annotation, "__name__", str(annotation)) if isinstance(annotation, type) else str(annotation)
        yield FieldInfo(
            key,
            _MODULES.sub("", text),
            field.get_default(),
            field.description or "",
            _is_outcome(section, name),
        )


def outcome(section: BaseModel) -> dict[str, Any]:
    """The values of a section that can change a result, as JSON-able data; fingerprints are made from it."""
    values: dict[str, Any] = {}
    for name in type(section).model_fields:
        if not _is_outcome(type(section), name):
            continue
        value = getattr(section, name)
        values[name] = outcome(value) if isinstance(value, BaseModel) else section.model_dump(mode="json")[name]
    return values


def _is_outcome(section: type[BaseModel], name: str) -> bool:
    extra = section.model_fields[name].json_schema_extra
    return not (isinstance(extra, dict) and extra.get("outcome") is False)
