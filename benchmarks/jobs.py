"""What a job costs over running its command by hand, and how fast many jobs are listed.

    python benchmarks/jobs.py [--runs 5] [--jobs 2000]

Prints medians: from submitting a job to the first line of its command, beside the same command started by hand; from
submitting to the first update of training on the toy world; and listing finished jobs, cold (a new process, its imports
aside) and again.
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

from opadpo.cli import main as opadpo
from opadpo.jobs.folder import JOB_FILE, new_id
from opadpo.jobs.record import Attempt, JobRequest, now
from opadpo.jobs.service import Jobs
from opadpo.workspace import Workspace

SIZES = ["--set", "prepare.subset_size=60", "--set", "prepare.heldout_size=10"]
LIST_COLD = """
import sys, time
from opadpo.jobs.service import Jobs
from opadpo.workspace import Workspace
jobs = Jobs(Workspace.open(sys.argv[1]))
for _ in range(2):
    start = time.perf_counter()
    count = len(jobs.list())
    print(time.perf_counter() - start)
assert count == int(sys.argv[2]), count
"""


def _first_update(workspace: Workspace, name: str) -> float:
    """Wait for the first line of a run's metrics; the time when it came."""
    path = workspace.run(name) / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        time.sleep(0.02)
    return time.perf_counter()


def to_first_update(root: Path, runs: int) -> None:
    """Submit to the first update of training, and the same by hand."""
    assert opadpo(["init", str(root), "--recipe", "toy", *SIZES, "--quiet"]) == 0
    for step in ("prepare", "rollout", "revise", "build"):
        assert opadpo([step, str(root), "--quiet"]) == 0
    workspace = Workspace.open(root)
    jobs = Jobs(workspace)
    hand, job = [], []
    for number in range(runs):
        name = f"hand{number}"
        words = [sys.executable, "-m", "opadpo", "train", "opa", str(root), "--name", name, "--json"]
        start = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            hand.append(_first_update(workspace, name) - start)
            process.wait()
        start = time.perf_counter()
        submitted = jobs.submit(JobRequest(step="opa", name=f"job{number}"), by="benchmark")
        job.append(_first_update(workspace, f"job{number}") - start)
        while not jobs.get(submitted.job_id).terminal:
            time.sleep(0.1)
    by_hand, as_job = statistics.median(hand), statistics.median(job)
    print(f"first update of training, by hand     {by_hand:8.2f} s")
    print(f"first update of training, as a job    {as_job:8.2f} s")
    print(f"overhead                              {as_job - by_hand:8.2f} s")


def many(root: Path, count: int) -> None:
    """List finished jobs."""
    assert opadpo(["init", str(root), "--recipe", "toy", "--quiet"]) == 0
    workspace = Workspace.open(root)
    jobs, at = Jobs(workspace), now()
    job = jobs.submit(JobRequest(step="evaluate", title="a job"), by="benchmark")
    while not (job := jobs.get(job.job_id)).terminal:
        time.sleep(0.1)
    for number in range(count - 1):
        job_id = f"{new_id('build', at)}{number}"
        folder = workspace.jobs() / job_id
        folder.mkdir()
        copy = job.model_copy(update={"job_id": job_id, "attempts": [Attempt(number=1, queued_at=at)]})
        (folder / JOB_FILE).write_text(copy.moved("succeeded").model_dump_json(indent=2), encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-c", LIST_COLD, str(root), str(count)], capture_output=True, text=True, check=True
    ).stdout.split()
    print(f"list {count} finished jobs, cold        {float(told[0]) * 1000:8.0f} ms")
    print(f"list {count} finished jobs, again       {float(told[1]) * 1000:8.0f} ms")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="opadpo-jobs-"))
    os.environ["OPADPO_RUNTIME"] = str(folder / "queue")
    try:
        many(folder / "many", options.jobs)
        to_first_update(folder / "toy", options.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
