"""What becomes of revisions when a server does everything wrong: 30 % of its replies are faulty at random.

    python benchmarks/llm_faults.py [--rows 400] [--faults 0.3] [--seed 0]

Faults are those of `tests/faults.py`: 429 with and without Retry-After, 500, 503, hanging, a connection reset in the
middle of a body, torn JSON, HTML with status 200, refusals, the content filter, answers about other sentences, answers
that are cut. Targets: every row ends as a revision or as a failure with its reason, at most 1.6 requests per row.
"""

import argparse
import tempfile
import time
from pathlib import Path

from loopback import provider
from rollouts_to_revise import make_workspace

from opadpo.llm.store import RequestStore
from opadpo.progress import SilentProgress
from opadpo.steps.revise import revise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--faults", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        provider(latency=0.05, faults=options.faults, seed=options.seed) as server,
    ):
        settings = [f"revise.endpoint.base_url={server.url}", "revise.endpoint.timeout=2", "revise.concurrency=32"]
        workspace = make_workspace(Path(folder) / "w", options.rows, *settings)
        started = time.perf_counter()
        result = revise(workspace, progress=SilentProgress())
        seconds = time.perf_counter() - started
        stats = server.stats()
        with RequestStore.open(workspace.requests_db) as store:
            failed = store.failed_rows()
    counts = result.counts
    faulty = sum(stats["faults"].values())
    print(f"{options.rows} rows in {seconds:.0f} s: {counts['revised']} revised, {counts['failed']} failed")
    print(f"failed: {result.dropped}; without a reason: {sum(not row.reason for row in failed)}")
    print(f"requests per row: {stats['requests'] / options.rows:.2f}; faulty replies: {faulty} ({stats['faults']})")
    assert counts["revised"] + counts["failed"] == options.rows
    assert not stats["wrong"], stats["wrong"]


if __name__ == "__main__":
    main()
