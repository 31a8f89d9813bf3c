"""One training run as data: what a process needs to know to do it, alone or with others."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from opadpo.models.base import BasePin
from opadpo.recipe import Recipe
from opadpo.recipe.training import OpadpoSection

PLAN_FILE = "plan.json"
REFERENCE_FOLDER = "reference"


class TrainingJob(BaseModel):
    """A run: from a data set and a starting model to an adapter."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name of the model that comes out."""
    stage: Literal["opa", "opadpo"]
    """Which trainer."""
    start: str
    """`base`, or the name of the adapter that training starts from (and that is the reference)."""
    start_folder: Path | None
    """That adapter's folder."""
    recipe: Recipe
    """The resolved recipe."""
    opadpo: OpadpoSection
    """The second stage's section with the variant's loss."""
    pin: BasePin
    """The base model."""
    dataset: Path
    """Folder of the data set."""
    images: Path
    """What image paths are relative to."""
    run: Path
    """Checkpoints, metrics and the reference's log-probs."""
    output: Path
    """Where the finished adapter goes."""


class TrainingOutcome(BaseModel):
    """What a run reports."""

    model_config = ConfigDict(frozen=True)

    counts: dict[str, int]
    """Examples, updates, and the like."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason -> examples left out."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Last line of the metrics."""
