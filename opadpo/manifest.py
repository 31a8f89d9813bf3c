"""What an artefact was made from, what it would be made from now, and the difference in words."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from opadpo import __version__
from opadpo.hashing import digest

_PHRASES = {
    "resumed_from": "continued from update {}",
    "reference_computed": "{} rows of the reference computed",
    "reference_reused": "{} rows of the reference reused",
}
"""Counts that read badly as a number and a name."""


class Begun(BaseModel):
    """What an artefact is being made from; lies beside what an unfinished run has written."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    artefact: str
    """Path relative to the workspace."""
    step: str
    """The step that makes it."""
    settings: dict[str, Any]
    """The values that can change the result."""
    inputs: dict[str, str]
    """Path of each artefact that is read -> its fingerprint."""
    overrides: list[str] = Field(default_factory=list)
    """`--set` overrides of the command that makes it."""
    started_at: datetime
    """UTC."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What a file holds; None if it is not there, or not whole."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


class Manifest(Begun):
    """What an artefact was made from; stored inside it."""

    counts: dict[str, int] = Field(default_factory=dict)
    """What is in it: rows, dropped rows, and the like."""
    finished_at: datetime
    """UTC."""
    version: str = __version__
    """Version of this package."""
    content: str = ""
    """Digest of what was made, where the step knows it (an adapter's weights); empty elsewhere."""

    @property
    def fingerprint(self) -> str:
        """Digest of settings, inputs and content: what later steps depend on."""
        return digest([self.artefact, self.settings, self.inputs, self.content])


class Plan(BaseModel):
    """What an artefact would be made from now; compared with the manifest of what is there."""

    model_config = ConfigDict(frozen=True)

    artefact: str
    """Path relative to the workspace, for example `adapters/opa`."""
    step: str
    """The step that makes it."""
    settings: dict[str, Any]
    """The values that can change the result."""
    inputs: dict[str, str]
    """Path of each artefact that is read -> its fingerprint."""

    @property
    def key(self) -> str:
        """Digest of settings and inputs; names the staging folder."""
        return digest([self.artefact, self.settings, self.inputs])

    def differences(self, manifest: Manifest) -> list[str]:
        """Why an artefact with `manifest` is stale: one line per changed setting or input; empty if it is not."""
        lines = changed_values(manifest.settings, self.settings)
        for path in sorted({*manifest.inputs, *self.inputs}):
            if manifest.inputs.get(path) != self.inputs.get(path):
                lines.append(f"{path} has been made again since" if path in manifest.inputs else f"{path} is new")
        return lines


def in_words(name: str, number: int) -> str:
    """A count of a manifest or result as part of a sentence: `1,200 rows`, `continued from update 40`."""
    phrase = _PHRASES.get(name)
    return phrase.format(f"{number:,}") if phrase else f"{number:,} {name.replace('_', ' ')}"


def changed_values(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line per difference between two trees of values: dotted key, old and new value."""
    return [f"{key} was {_short(was)}, is now {_short(now)}" for key, was, now in _changed(old, new)]


def _changed(old: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of every difference between two trees of settings."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *[k for k in new if k not in old]]:
            yield from _changed(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
    elif old != new:
        yield prefix, old, new


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
