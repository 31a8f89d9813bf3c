"""Revising that is killed again and again: nothing is lost, and no answer that was kept is asked for again.

    python benchmarks/llm_kills.py [--rows 500] [--kills 20] [--seed 0]

`opadpo revise` runs as a process that is killed (SIGKILL) after a random number of further answers, `--kills` times,
then once to its end. Targets: a revision for every row, 0 lost, 0 committed answers asked again.
"""

import argparse
import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from loopback import Provider, provider
from rollouts_to_revise import make_workspace

from opadpo.expert.reviser import Reviser
from opadpo.llm.asking import Asker, NotAsked
from opadpo.llm.store import RequestStore
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.steps.revise import tasks
from opadpo.workspace import Workspace


def texts_by_key(workspace: Workspace, folder: Path) -> dict[str, str]:
    """The user's text of every first request, by the request's key."""
    texts: dict[str, str] = {}

    async def collect() -> None:
        with RequestStore.open(folder / "empty.db") as store:
            reviser = Reviser(workspace.recipe.revise, Asker(store))
            for task in tasks(workspace):
                try:
                    await reviser.revise(task)
                except NotAsked as missing:
                    texts[missing.request.key] = missing.request.messages[-1].text

    asyncio.run(collect())
    return texts


def committed(database: Path) -> set[str]:
    """Keys of answers on disk."""
    if not database.exists():
        return set()
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            return {key for (key,) in connection.execute("SELECT key FROM requests WHERE status = 'done'")}
        except sqlite3.OperationalError:
            return set()


def run_and_kill(workspace: Workspace, server: Provider, answers: int | None) -> int:
    """Revise in a process that is killed after about so many requests (None: not at all); returns its exit status."""
    asked = server.stats()["requests"]
    process = subprocess.Popen([sys.executable, "-m", "opadpo", "revise", str(workspace.root), "--quiet"])
    if answers is not None:
        while process.poll() is None and server.stats()["requests"] - asked < answers:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    status = process.wait()
    # What was in flight is still being answered, for nobody.
    time.sleep(0.3)
    return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, provider(latency=0.1) as server:
        settings = [f"revise.endpoint.base_url={server.url}", "revise.concurrency=8"]
        workspace = make_workspace(Path(folder) / "w", options.rows, *settings)
        texts = texts_by_key(workspace, Path(folder))
        kills = again = 0
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            kept, before = committed(workspace.requests_db), server.asked()
            left = options.rows - len(kept)
            # Never so many that a run comes to its end before it is killed.
            most = max(0, min(2 * left // max(1, options.kills - kills), left - 16))
            status = run_and_kill(workspace, server, draw.randint(0, most) if kills < options.kills else None)
            kills += status == -signal.SIGKILL
            after = server.asked()
            again += sum(after.get(texts[key], 0) > before.get(texts[key], 0) for key in kept)
        requests = server.stats()["requests"]
        with ReviewStore.open(workspace.reviews_db) as store:
            revised = sum(1 for _ in store.iter_current())
        done = Workspace.open(workspace.root).state(plans.expert(workspace)) == "done"
    print(f"{kills} kills; {options.rows} rows, {revised} revised, {options.rows - revised} lost; done: {done}")
    print(f"{requests} requests; {again} committed answers asked again")


if __name__ == "__main__":
    main()
