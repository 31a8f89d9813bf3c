"""What a look at a machine found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal


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
