"""Settings and fixtures of all tests."""

from pathlib import Path

import pytest
import tiny_llava
from hypothesis import settings
from no_skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

# The machine that runs the tests may be busy: a slow example is no failure.
settings.register_profile("opadpo", deadline=None)
settings.load_profile("opadpo")


@pytest.fixture(scope="session")
def tiny_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random LLaVA (two layers of width 32), its tokenizer and image processor. Read only."""
    return tiny_llava.save(tmp_path_factory.mktemp("models") / "tiny-llava")
