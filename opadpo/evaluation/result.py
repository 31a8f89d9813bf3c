"""What every benchmark gives: metrics, the items that they were counted from, and where the captions came from."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opadpo import __version__
from opadpo.damage import damaged
from opadpo.errors import MissingArtefact
from opadpo.files import atomic_write
from opadpo.records import Sampling


class Provenance(BaseModel):
    """Where the figures come from."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    model: str
    """Name in the workspace: an adapter, or "base"."""
    base: str
    """Base model and revision, `id@revision`."""
    adapter_hash: str
    """SHA-256 of the adapter's weights and config; empty for the base."""
    template: str
    """Prompt template of the captions."""
    image_aspect: str
    """Image geometry of the captions."""
    decoding: Sampling
    """Decoding settings of the captions."""
    prompt_set: str
    """Set of prompts that was captioned."""
    captions: str
    """Fingerprint of the captions."""
    n: int
    """Number of captions scored."""
    version: str = __version__
    """Version of this package."""
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    """UTC."""


class Evaluation(BaseModel):
    """A model's figures on a benchmark."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    benchmark: str
    """Name of the benchmark."""
    metrics: dict[str, float]
    """Name -> percentage."""
    items: list[dict[str, Any]]
    """One row per caption: its `prompt_id` and what was counted in it."""
    provenance: Provenance
    """Where the captions came from."""


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON, atomically."""
    atomic_write(path, json.dumps(evaluation.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")


def read_evaluation(path: Path) -> Evaluation:
    """Read what `write_evaluation` wrote.

    Raises:
        MissingArtefact: if it is not there.
        WorkspaceError: if it is damaged.
    """
    try:
        return Evaluation.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingArtefact("There is no such evaluation yet", seen=path, remedy="run `opadpo evaluate`") from error
    except ValueError as error:
        raise damaged(path, error) from error
