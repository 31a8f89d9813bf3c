"""What a look at a machine found, and what to do about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    """What was looked at."""
    state: Literal["ok", "warning", "missing"]
    """`missing`: it is not there; `warning`: it is there but falls short."""
    seen: str
    """What was found."""
    cost: str = ""
    """What you cannot do, or do only slowly; empty if ok."""
    remedy: str = ""
    """What to do about it."""
    required: bool = False
    """True if the package, or the recipe asked about, cannot work without it."""


def as_dicts(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Findings for `--json`."""
    return [asdict(check) for check in checks]
