"""What a step returns."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opadpo.evaluation.benchmark import Direction
from opadpo.evaluation.statistics import Difference


class Score(BaseModel):
    """One metric of one model on one benchmark."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    benchmark: str
    """Name of the benchmark."""
    title: str
    """The same for people."""
    model: str
    """Name of the model."""
    metric: str
    """Name of the metric, `GROUP/NAME` for a part of the questions."""
    direction: Direction | None
    """Which way is better; None: neither."""
    value: float
    """Percent (a length: words)."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Items that were scored."""
    failed: int
    """Items that could not be judged."""
    difference: Difference | None
    """Less the base's; None for the base, and where that has no figures."""


class StepResult(BaseModel):
    """Summary of one run of a step; `--json` prints it."""

    model_config = ConfigDict(frozen=True)

    step: str
    """Name of the step."""
    status: Literal["done", "up_to_date"]
    """`up_to_date`: everything was there already and nothing was made."""
    outputs: list[str]
    """Artefacts, relative to the workspace."""
    counts: dict[str, int] = Field(default_factory=dict)
    """What was made, kept, dropped."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason -> number of rows left out."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """Numbers worth showing (metrics, costs)."""
    scores: list[Score] = Field(default_factory=list)
    """Metrics with their intervals and differences (`evaluate`)."""
    warnings: list[str] = Field(default_factory=list)
    """What the user should act on."""
    following: str = ""
    """Options that the step which usually comes next needs, to go on with what was made here."""
    seconds: float = 0.0
    """Wall time."""
