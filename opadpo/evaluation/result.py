"""What every benchmark gives: metrics, the items that they were counted from, and where the captions came from."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opadpo import __version__
from opadpo.damage import damaged
from opadpo.errors import MissingArtefact
from opadpo.evaluation.statistics import Interval
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
    """Number of items scored."""
    failed: int = 0
    """Items that could not be judged; they are in no figure."""
    failures: dict[str, int] = Field(default_factory=dict)
    """Why they could not be judged -> how many."""
    empty: int = 0
    """Captions without any text. They are scored like others: the model has said nothing."""
    set_size: int = 0
    """Number of prompts in the set."""
    set_digest: str = ""
    """What the set is: only figures on the same one can be compared."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the recipe's `evaluate` that the figures depend on."""
    files: dict[str, str] = Field(default_factory=dict)
    """Annotation file -> its SHA-256."""
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
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """Name -> the same with its bootstrap interval."""
    printed: dict[str, Any] = Field(default_factory=dict)
    """What the authors' script prints for the same counts, where it rounds on the way."""
    items: list[dict[str, Any]]
    """One row per question that was scored: `prompt_id`, `image_id`, `question` (its number), `counts` and details."""
    provenance: Provenance
    """Where the captions came from."""


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON, atomically; each item on a line of its own."""
    values = evaluation.model_dump(mode="json")
    parts = []
    for name, value in values.items():
        if name == "items":
            text = "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n ]"
        else:
            text = json.dumps(value, indent=1, ensure_ascii=False).replace("\n", "\n ")
        parts.append(f" {json.dumps(name)}: {text}")
    atomic_write(path, "{\n" + ",\n".join(parts) + "\n}\n")


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
