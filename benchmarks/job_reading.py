"""What it costs to draw a job's metrics and to follow its log.

    python benchmarks/job_reading.py [--steps 100000] [--megabytes 200] [--rate 5000] [--seconds 10]

Prints the time to draw 16 curves of many steps, from the file to JSON: in a new process (imports aside) without and
with the saved columns that the runner keeps, again, and after a further line; and the CPU and memory of a process
that follows a large log twice a second while it grows.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

KEYS = [
    "loss",
    *(f"parts/{name}" for name in ("standard_pair", "revised_pair", "standard_image", "revised_image", "anchor")),
    *(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")),
    *(f"logps/{name}" for name in ("standard", "revised", "generated")),
    "learning_rate",
    "tokens_per_second",
    "kl",
]
OTHERS = [
    "grad_norm",
    "epoch",
    *(f"rewards/{name}/{pair}" for name in ("chosen", "rejected") for pair in ("standard_pair", "revised_pair")),
    *(f"rewards/{name}/{pair}" for name in ("margins", "accuracies") for pair in ("standard_pair", "revised_pair")),
    *(f"token_rewards/{name}" for name in ("standard", "revised", "generated")),
]
DRAW = """
import json, sys, time
from pathlib import Path
import numpy, pyarrow, pyarrow.json, pyarrow.compute
from opadpo.jobs import curves
folder, keys = Path(sys.argv[1]), sys.argv[2].split(",")
def draw():
    start = time.perf_counter()
    size = len(json.dumps(curves.read(folder, keys)))
    return time.perf_counter() - start
first, again = draw(), draw()
with (folder / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"run": "opadpo", "step": 10**9, "loss": 1.0}) + "\\n")
print(first, again, draw())
"""
FOLLOW = """
import os, resource, sys, time
from pathlib import Path
from opadpo.jobs import logs
path, seconds = Path(sys.argv[1]), float(sys.argv[2])
piece = logs.read(path, None)
start, cpu, shown = time.monotonic(), time.process_time(), 0
while time.monotonic() - start < seconds:
    time.sleep(0.5)
    piece = logs.read(path, piece.offset)
    shown += piece.text.count("\\n")
used = (time.process_time() - cpu) / (time.monotonic() - start)
print(used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, shown, piece.skipped)
"""


def write_metrics(path: Path, steps: int) -> None:
    """Lines as a run writes them."""
    numbers = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            values = {key: numbers.gauss(0, 1) for key in [*KEYS, *OTHERS]}
            file.write(json.dumps({"run": "opadpo", "step": step, "time": 1e9 + step, **values}) + "\n")


def draw(folder: Path) -> list[float]:
    """Seconds: first, again, after a further line; in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(folder), ",".join(KEYS)], check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()]


def follow(path: Path, rate: int, seconds: float) -> list[float]:
    """CPU (share of a core), bytes of memory, lines shown, bytes skipped, of a process that follows a growing log."""
    done = threading.Event()
    line = "a line of a log as training writes it, with some numbers 0.123 4.567 and words\n"

    def grow() -> None:
        with path.open("a", encoding="utf-8") as file:
            while not done.wait(0.02):
                file.write(line * (rate // 50))
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        found = subprocess.run(
            [sys.executable, "-c", FOLLOW, str(path), str(seconds)], check=True, capture_output=True, text=True
        )
    finally:
        done.set()
        writer.join()
    return [float(word) for word in found.stdout.split()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        metrics = folder / "metrics.jsonl"
        write_metrics(metrics, options.steps)
        print(f"{len(KEYS)} curves of {options.steps} steps, {metrics.stat().st_size / 1e6:.0f} MB of lines")
        for label in ("without saved columns", "with saved columns"):
            first, again, grown = draw(folder)
            print(f"  new process, {label}: {first:.3f} s; again {again:.3f} s; after a further line {grown:.3f} s")
        log = folder / "log.txt"
        with log.open("w", encoding="utf-8") as file:
            for _ in range(options.megabytes):
                file.write(("x" * 99 + "\n") * 10_000)
        used, memory, shown, _ = follow(log, options.rate, options.seconds)
        print(f"following a log of {options.megabytes} MB that grows by {options.rate} lines/s")
        print(f"  {100 * used:.1f} % of a core, {memory / 1e6:.0f} MB, {shown:.0f} lines")


if __name__ == "__main__":
    main()
