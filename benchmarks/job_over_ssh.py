"""What it costs to train on another machine: from submitting a job over ssh to its first update of training.

    python benchmarks/job_over_ssh.py [--runs 3]

The other machine is a real sshd on loopback, with a home folder of its own, and the data are there already from a job
before. Beside it stands the same training, started by hand. Prints medians.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import ssh_server  # noqa: E402  # pyright: ignore[reportMissingImports]

from opadpo.cli import main as opadpo  # noqa: E402
from opadpo.jobs.record import JobRequest  # noqa: E402
from opadpo.jobs.service import Jobs  # noqa: E402
from opadpo.workspace import Workspace  # noqa: E402

SIZES = ["--set", "prepare.subset_size=60", "--set", "prepare.heldout_size=10"]


def _first_line(path: Path) -> float:
    """Wait until a file has something in it; the time when it had."""
    while not (path.exists() and path.stat().st_size):
        time.sleep(0.02)
    return time.perf_counter()


def _workspace(root: Path, server: ssh_server.SshServer) -> Workspace:
    assert opadpo(["init", str(root), "--recipe", "toy", *SIZES, "--quiet"]) == 0
    for step in ("prepare", "rollout", "revise", "build"):
        assert opadpo([step, str(root), "--quiet"]) == 0
    recipe = yaml.safe_load((root / "recipe.yaml").read_text())
    node = {"kind": "ssh", "host": ssh_server.ALIAS, "ssh_config": str(server.client_config), "python": sys.executable}
    recipe["jobs"] = {"targets": {"node": node}}
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return Workspace.open(root)


def _by_hand(workspace: Workspace, name: str) -> float:
    words = [sys.executable, "-m", "opadpo", "train", "opa", str(workspace.root), "--name", name, "--json"]
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        took = _first_line(workspace.run(name) / "metrics.jsonl") - start
        process.wait()
    return took


def _as_job(jobs: Jobs, server: ssh_server.SshServer, name: str) -> tuple[float, float]:
    """(seconds until the job is handed over, seconds until its first update), as seen on the node."""
    start = time.perf_counter()
    job = jobs.submit(JobRequest(step="opa", name=name, target="node"), by="benchmark")
    handed = time.perf_counter() - start
    [mirror] = (server.home / "opadpo-workspaces").iterdir()
    took = _first_line(mirror / "runs" / name / "metrics.jsonl") - start
    while not (job := jobs.refresh(job.job_id)).terminal:
        time.sleep(0.2)
    assert job.state == "succeeded", job.reason
    return handed, took


def main() -> None:
    """Run both, several times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="opadpo-ssh-"))
    environment = {"PYTHONPATH": str(ROOT), "OPADPO_RUNTIME": str(folder / "queue")}
    environment |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE") if name in os.environ}
    try:
        with ssh_server.running(environment) as server:
            workspace = _workspace(folder / "toy", server)
            jobs = Jobs(workspace)
            _as_job(jobs, server, "first")
            pairs = [(_by_hand(workspace, f"hand{n}"), *_as_job(jobs, server, f"job{n}")) for n in range(options.runs)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    by_hand, handed, as_job = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"job over ssh handed over                {handed:8.2f} s")
    print(f"first update of training, by hand       {by_hand:8.2f} s")
    print(f"first update of training, over ssh      {as_job:8.2f} s")
    print(f"overhead                                {as_job - by_hand:8.2f} s")


if __name__ == "__main__":
    main()
