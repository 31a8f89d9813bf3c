"""The comparison with TRL runs, on a tiny model: TRL's step and ours are the same step."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_trl_computes_the_same_step():
    script = Path(__file__).parents[2] / "benchmarks" / "trl_step.py"
    done = subprocess.run([sys.executable, str(script), "--tiny", "--steps", "1"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    difference = re.search(r"largest difference: (\S+) in a log-prob per token, (\S+) in the loss (\S+)", done.stdout)
    assert difference is not None
    in_logps, in_loss, loss = map(float, difference.groups())
    assert max(in_logps, in_loss) < 1e-5
    assert abs(loss - 0.693147) > 1e-3  # the adapter is not the base
    assert [row.split(" | ")[0] for row in done.stdout.splitlines()[-3:]] == ["| trl", "| trl-compact", "| opadpo"]
