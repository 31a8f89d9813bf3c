"""How long `opadpo --help` takes, as a multiple of starting Python with nothing to do.

    python benchmarks/cli_start.py [--runs 15] [--limit 20]

Prints the medians and their ratio; exit status 1 if the ratio is above the limit. The two are started in turn, so that
other work on the machine slows both.
"""

import argparse
import statistics
import subprocess
import sys
import time


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--limit", type=float, default=20.0)
    options = parser.parse_args()
    bare, cli = [sys.executable, "-c", "pass"], [sys.executable, "-m", "opadpo", "--help"]
    seconds(cli)  # writes the byte code
    pairs = [(seconds(bare), seconds(cli)) for _ in range(options.runs)]
    nothing, full = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = full / nothing
    print(f"python -c pass {nothing * 1000:.0f} ms, opadpo --help {full * 1000:.0f} ms, ratio {ratio:.1f}")
    return int(ratio > options.limit)


if __name__ == "__main__":
    sys.exit(main())
