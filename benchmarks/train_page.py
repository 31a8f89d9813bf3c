"""The page of jobs with 2,000 jobs, 100,000 updates and a log of 200 MB that grows by 5,000 lines a second.

    python benchmarks/train_page.py [--jobs 2000] [--steps 100000] [--megabytes 200] [--rate 5000] [--seconds 20]

The server runs in a process of its own, by the command line, and the page in Chromium; "painted" is the first task
after the frame that shows it. CPU and memory are the server's alone.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from review import PAINTED, Server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import job_folders  # pyright: ignore[reportMissingImports]

from opadpo.jobs import curves
from opadpo.recipe import preset_text
from opadpo.workspace import Workspace

LIMITS = {
    "the list": "500 ms", "curves, painted": "500 ms", "following the log": "15 % of a core, 200 MB more than idle",
}  # fmt: skip
LONG, LOGGED, SHORT = "20270101-000000-opadpo-long", "20270102-000000-opadpo-logs", "20270103-000000-opadpo-shrt"
LINE = "14:20:07  step {}/628  loss 0.449  margin 1.09  acc 0.86  lr 4.1e-07  3,912 tok/s\n"


def fill(workspace: Workspace, jobs: int, steps: int, megabytes: int) -> None:
    """Finished jobs, one with many updates, one with a long log."""
    for number in range(jobs - 3):
        job_folders.make(workspace, f"20260101-{number:06}-opadpo-aaaa", title=f"run {number}", age=timedelta(days=2))
    long = job_folders.make(workspace, LONG, title="long", runs=["opadpo"])
    chance = random.Random(5)
    with (long / "metrics.jsonl").open("w") as stream:
        keys = next(iter(job_folders.metrics(1)))
        for step in range(1, steps + 1):
            stream.write(json.dumps({**keys, "step": step, "loss": 1 + chance.random()}) + "\n")
    curves.refresh(long, before=0)  # as the runner does while it mirrors them
    logged = job_folders.make(workspace, LOGGED, title="logged", state="running", pid=os.getpid(), runs=["opadpo"])
    block = "".join(LINE.format(number) for number in range(10_000))
    with (logged / "log.txt").open("w") as stream:
        for _ in range(max(1, megabytes * 1_000_000 // len(block))):
            stream.write(block)
    short = job_folders.make(workspace, SHORT, title="short", runs=["opadpo"])
    job_folders.fill(short, workspace)


def listed(server: Server, runs: int) -> dict[str, str]:
    """How long the list takes: the first time, when every record is read, and again."""
    first = asked(server, "/api/jobs?limit=2000")
    return {
        "2,000 jobs, first": f"{1000 * first:.0f} ms",
        "2,000 jobs, again": middle([asked(server, "/api/jobs?limit=2000") for _ in range(runs)]),
        "100 of them, again": middle([asked(server, "/api/jobs?limit=100") for _ in range(runs)]),
    }


def middle(seconds: list[float]) -> str:
    """The median and the longest."""
    return f"median {1000 * statistics.median(seconds):.0f} ms, at most {1000 * max(seconds):.0f} ms of {len(seconds)}"


def asked(server: Server, path: str) -> float:
    began = time.perf_counter()
    server.client.get(path).raise_for_status()
    return time.perf_counter() - began


def painted(page: Any, runs: int) -> tuple[list[float], list[float]]:
    """From the choice of the long job to its painted curve, the file read for the first time apart."""
    done = "document.querySelector('.t-chart')?.getAttribute('aria-label')?.includes('at step {}')"
    opens = "document.querySelector('[data-job=\"{}\"]').click()"
    times = []
    for _ in range(runs + 1):
        times.append(page.evaluate(PAINTED, ["", opens.format(LONG), done.format("100,000")]))
        page.evaluate(PAINTED, ["", opens.format(SHORT), done.format("412")])
        page.wait_for_timeout(300)
    return times[:1], times[1:]


def followed(server: Server, page: Any, log: Path, rate: int, seconds: float) -> dict[str, str]:
    """What the server takes while a page follows a log that grows."""
    process, stop = psutil.Process(server.process.pid), threading.Event()
    page.evaluate(f"document.querySelector('[data-job=\"{LOGGED}\"]').click()")
    page.locator(".t-log > span").first.wait_for()
    idle = server.idle()

    def grow() -> None:
        text = "".join(LINE.format(number) for number in range(rate // 10))
        with log.open("a") as stream:
            while not stop.wait(0.1):
                stream.write(text)
                stream.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    memory, most, before = server.memory()[0], 0.0, process.cpu_times()
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        page.wait_for_timeout(500)
        most = max(most, server.memory()[0])
    took, after = time.monotonic() - began, process.cpu_times()
    stop.set()
    writer.join()
    busy = (after.user + after.system - before.user - before.system) / took
    return {
        "open page, log at rest": f"{100 * idle:.1f} % of a core",
        "following": f"{100 * busy:.1f} % of a core, at most {most - memory:+.0f} MB",
        "lines held by the page": f"{page.locator('.t-log > span').count():,}",
    }


def main() -> None:
    """Fill a workspace and measure."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("jobs", 2000), ("steps", 100_000), ("megabytes", 200), ("rate", 5000), ("runs", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Workspace.create(Path(folder) / "many", preset_text("toy"))
        fill(workspace, options.jobs, options.steps, options.megabytes)
        server = Server(workspace.root)
        try:
            server.client.get(server.url)
            time.sleep(10)  # the index of records is made first
            start, idle = server.memory()[0], server.idle()
            told: dict[str, Any] = {"idle, no page": f"{start:.0f} MB, {100 * idle:.1f} % of a core"}
            told |= listed(server, options.runs)
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(server.url)
            began = time.perf_counter()
            page.goto(f"{server.client.base_url}train")
            page.locator(".t-jobs li").first.wait_for()
            told["the page opens"] = f"{time.perf_counter() - began:.2f} s"
            first, again = painted(page, options.runs)
            told["100,000 updates, painted, first"] = f"{1000 * first[0]:.0f} ms"
            told["100,000 updates, painted, again"] = middle(again)
            log = workspace.jobs() / LOGGED / "log.txt"
            told |= followed(server, page, log, options.rate, options.seconds)
            now, most = server.memory()
            told["memory at the end"] = f"{now:.0f} MB, at most {most:.0f} MB"
            browser.close()
        finally:
            server.close()
    for name, value in told.items():
        print(f"{name:34} {value}")
    print("limits:", "; ".join(f"{name}: {limit}" for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
