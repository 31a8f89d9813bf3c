"""How much faster a small model's step is on busy cores when idle OpenMP threads sleep instead of spinning.

    python benchmarks/shared_cores.py

Runs the same work in a process with and without OMP_WAIT_POLICY=PASSIVE, in turn, first alone and then beside as many
busy processes as there are cores, and prints the ratio of the wall times.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

WORK = """
import time, torch
torch.manual_seed(0)
up = [torch.nn.Linear(96, 256) for _ in range(8)]
down = [torch.nn.Linear(256, 96) for _ in range(8)]
x = torch.randn(1920, 96)
def step():
    h = x
    for a, b in zip(up, down):
        h = h + b(torch.nn.functional.silu(a(h)))
    h.pow(2).mean().backward()
step()
start = time.perf_counter()
for _ in range(4):
    step()
print(time.perf_counter() - start)
"""
BUSY = "while True: pass"


def seconds(policy: str) -> float:
    """Wall time of the work with an OMP_WAIT_POLICY."""
    environment = {**os.environ, "OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(os.cpu_count())}
    run = subprocess.run([sys.executable, "-c", WORK], env=environment, check=True, capture_output=True, text=True)
    return float(run.stdout)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Busy processes beside us."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print."""
    for count in (0, os.cpu_count() or 1):
        with neighbours(count):
            pairs = [(seconds("ACTIVE"), seconds("PASSIVE")) for _ in range(3)]
        ratio = statistics.median(active / passive for active, passive in pairs)
        print(f"{count} busy neighbours: spinning / sleeping = {ratio:.2f} (median of {len(pairs)} pairs)")


if __name__ == "__main__":
    main()
