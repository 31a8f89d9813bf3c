"""The benchmark of scoring runs and prints what the page quotes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluation.py"


@pytest.mark.slow
def test_both_benchmarks_are_timed() -> None:
    command = [sys.executable, str(SCRIPT), "--words", "40", "--resamples", "100"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.partition(" items scored in ")[0] for line in printed] == [
        "AMBER, descriptions: 1,004",
        "POPE: 9,000",
    ]
    for line in printed:
        assert re.search(r"intervals \d+\.\d\d s, comparison \d+\.\d\d s at 100 resamples, one core$", line)
