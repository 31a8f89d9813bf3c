"""What a step returns."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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
    warnings: list[str] = Field(default_factory=list)
    """What the user should act on."""
    seconds: float = 0.0
    """Wall time."""
