"""Where the annotation files of public benchmarks lie, for the tests that want them; they are never committed."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("OPADPO_BENCHMARKS", Path(__file__).parents[2] / "shared" / "benchmarks"))
"""Holds `amber/` and `pope/`."""


def annotation_files(name: str) -> Path:
    """The folder of one benchmark; skips the test where it is absent (mark the test `annotations`)."""
    folder = FOLDER / name
    if not folder.is_dir():
        pytest.skip(f"needs the annotation files of {name}: name their folder in OPADPO_BENCHMARKS")
    return folder
