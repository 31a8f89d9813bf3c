"""Parameters sharded over two processes (FSDP2) on the CPU; accelerate's own FSDP2 needs GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from opadpo.errors import DependencyMissing
from opadpo.recipe import parse_recipe
from opadpo.training.arguments import check_trainer

HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_sharded_step_is_that_of_the_whole_model(tmp_path):
    """Log-probs, loss, gradients, clipping, saving and loading of the policy: see the script."""
    for rank in "01":
        (tmp_path / f"rank-{rank}").mkdir()
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(HERE / "sharded_step.py"), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_sharding_is_refused_on_a_cpu():
    with pytest.raises(DependencyMissing, match="fsdp needs CUDA GPUs"):
        check_trainer(parse_recipe("").train.opa, torch.device("cpu"), sharding="fsdp")
