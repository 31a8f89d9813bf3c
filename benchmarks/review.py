"""The review desk on a workspace of 50,000 revisions: start, opening, commit-and-next, search, memory.

    python benchmarks/review.py [--records 50000] [--commits 200] [--workspace DIR]

Every record has an image file of its own. The server runs in a process of its own, by the command line; the figures
are those of a client on the same machine; "in the browser" includes the browser's own work, up to what is painted.
"""

import argparse
import io
import json
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from opadpo.hashing import bytes_digest
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Revision, Rollout, Sampling
from opadpo.review.index import index_path
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.text.revising import Decision, compose
from opadpo.text.sentences import split_sentences
from opadpo.workspace import Workspace

LIMITS = {
    "app start to first page, index made before": "12 s",
    "review record opened": "1.5 s",
    "commit and next": "median 150 ms, p95 300 ms, painting included",
    "search and filter": "300 ms",
    "server memory": "700 MB",
}
_TEXT = """the a cat dog table with red blue stands sits on of plate cup near window person holding large small wooden
street car bus sign and in background horse kitchen wall left right behind grass tree two three sky bright"""
WORDS = _TEXT.split()
BASES = 64
"""Different pictures; each record's file differs from all others in a comment inside."""


def fill(workspace: Workspace, count: int) -> None:
    """Prompts with images, rollouts of about 120 tokens in six sentences, and an expert's revision of each."""
    rng = np.random.default_rng(1)
    prompts: list[Prompt] = []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for number in range(count):
            data = picture(number)
            digest = bytes_digest(data)
            name = f"images/{digest[:2]}/{digest}.png"
            (writer.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (writer.folder / name).write_bytes(data)
            prompts.append(
                Prompt.create(
                    image_id=digest, question="Describe the image in detail.", image_file=name, reference=text(rng, 3),
                    source=("coco", "textvqa", "vg")[number % 3], split="train", subset="train-0",
                )
            )  # fmt: skip
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"prompts": count})
    with workspace.writing(plans.rollouts(workspace)) as writer, ReviewStore.of(workspace) as store:
        for part, start in enumerate(range(0, count, 5000)):
            rollouts = [rollout(prompt, rng) for prompt in prompts[start : start + 5000]]
            write_records(writer.folder / f"part-{part:05d}.parquet", rollouts, Rollout)
            store.append(revision(one, rng) for one in rollouts)
        writer.finish({"rollouts": count})


@cache
def base(number: int) -> bytes:
    shades = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(shades).resize((336, 336)).save(stream, "PNG")
    return stream.getvalue()


def picture(number: int) -> bytes:
    """A PNG with a text chunk before its end."""
    body = b"tEXt" + f"Comment\0{number}".encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    png = base(number % BASES)
    return png[:-12] + chunk + png[-12:]


def text(rng: np.random.Generator, sentences: int) -> str:
    words = [[WORDS[i] for i in row] for row in rng.integers(0, len(WORDS), (sentences, 15))]
    return " ".join(" ".join(row).capitalize() + "." for row in words)


def rollout(prompt: Prompt, rng: np.random.Generator) -> Rollout:
    response = text(rng, int(rng.integers(4, 9)))
    ids = rng.integers(0, 32000, int(len(response) / 4.2)).tolist()
    return Rollout.create(
        prompt_id=prompt.prompt_id, response=response, response_token_ids=ids, model="llava@1", adapter="base",
        adapter_hash="", template="vicuna_v1", image_aspect="pad",
        sampling=Sampling(temperature=1, top_k=30, top_p=0.95, max_new_tokens=512),
        finish_reason="stop" if rng.random() < 0.9 else "length", sample_index=0, seed=0,
    )  # fmt: skip


_ERROR = "image_recognition_error"


def revision(one: Rollout, rng: np.random.Generator) -> Revision:
    decisions: list[Decision] = []
    for start, end in split_sentences(one.response):
        sentence, draw = one.response[start:end], rng.random()
        score, kind = int(rng.integers(1, 4)), _ERROR
        if draw < 0.6:
            decisions.append(Decision())
        elif draw < 0.9:
            edited = sentence.replace(" the ", " that ", 1) + " Indeed."
            decisions.append(Decision("edited", edited, score, kind, ["dog -> cat"], "There is no dog in the image."))
        else:
            decisions.append(Decision("deleted", "", 1, kind, [], "Nothing of this is in the image."))
    sentences, revised = compose(one.response, decisions)
    return Revision.create(
        rollout_id=one.rollout_id, author_kind="expert", author="expert", sentences=sentences, text=revised
    )


class Server:
    """The app in a process of its own."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "opadpo", "app", str(root), "--port", "0"]
        self.began = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+\S*", self.process.stdout.readline())
        assert found, "the app did not say where it listens"
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url.partition("?")[0], timeout=120, follow_redirects=True)

    def memory(self) -> tuple[float, float]:
        """(now, at most) in MB of resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, most = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, most

    def idle(self, seconds: float = 5.0) -> float:
        """Share of a core that the server takes while nobody asks anything."""
        process = psutil.Process(self.process.pid)
        time.sleep(2)
        before = process.cpu_times()
        time.sleep(seconds)
        after = process.cpu_times()
        return (after.user + after.system - before.user - before.system) / seconds

    def close(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def timed(call: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - began
    answer.raise_for_status()
    return seconds, answer.json() if "json" in answer.headers.get("content-type", "") else None


def spread(name: str, seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    figures = {
        "median_ms": round(statistics.median(ordered) * 1000, 1),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
        "n": len(ordered),
    }
    print(f"{name:46} median {figures['median_ms']:7.1f} ms   p95 {figures['p95_ms']:7.1f} ms   of {len(ordered)}")
    return figures


def start(root: Path, what: str) -> tuple[Server, dict[str, float]]:
    """Start the app; seconds until its first page and until its first list of records are there."""
    server = Server(root)
    server.client.get(server.url).raise_for_status()
    page = time.perf_counter() - server.began
    server.client.get("/api/review/records").raise_for_status()
    records = time.perf_counter() - server.began
    print(f"{what:46} first page after {page:5.1f} s, first records after {records:5.1f} s")
    return server, {"first_page_s": round(page, 2), "first_records_s": round(records, 2)}


SEARCHES: dict[str, dict[str, Any]] = {
    "search, frequent word": {"text": "horse kitchen"},
    "search, nothing found": {"text": "zebra crossing"},
    "search and filters": {"text": "red blue", "score": [1, 2], "source": ["coco"], "state": ["open"]},
    "filters": {"score": [1], "error_type": ["image_recognition_error"], "finish": ["stop"], "min_tokens": 90},
    "sorted by length": {"sort": "longest"},
    "the last page": {"offset": 10**7, "sort": "newest"},
}


def searches(server: Server, runs: int) -> dict[str, Any]:
    """Lists of 48 cards with facets and histograms; every search is for a text that was not searched for before."""
    found: dict[str, Any] = {}
    for name, query in SEARCHES.items():
        seconds = []
        for run in range(runs):
            asked = dict(query)
            if "text" in asked and run:
                asked["text"] = f"{WORDS[run % len(WORDS)]} {WORDS[(run * 7 + len(name)) % len(WORDS)]}"
            seconds.append(timed(lambda asked=asked: server.client.get("/api/review/records", params=asked))[0])
        found[name] = spread(name, seconds)
    return found


def review(server: Server, commits: int) -> dict[str, Any]:
    """One reviewer's way through the queue: the record that was handed out is edited, saved as a draft, committed."""
    _, handed = timed(lambda: server.client.post("/api/review/next", json={"after": None}))
    record, drafts, sent, opened = handed["record"], [], [], []
    for number in range(commits):
        name, base = record["rollout"]["rollout_id"], record["base_revision_id"]
        sentences = record["sentences"]
        body = {"base_revision_id": base, "sentences": sentences, "note": "", "seq": record["draft_seq"] + 1}
        drafts.append(timed(lambda n=name, b=body: server.client.put(f"/api/review/records/{n}/draft", json=b))[0])
        opened.append(timed(lambda n=name: server.client.get(f"/api/review/records/{n}"))[0])
        act = {"base_revision_id": base, "sentences": sentences, "action": "flag" if number % 9 == 0 else "accept"}
        act |= {"note": "look again", "seq": body["seq"]}
        seconds, done = timed(lambda n=name, a=act: server.client.post(f"/api/review/records/{n}/commit", json=a))
        sent.append(seconds)
        record = done["record"]
    return {
        "record opened": spread("a record opened", opened),
        "draft saved": spread("a draft saved", drafts),
        "commit and next": spread("commit, and the next record in its answer", sent),
    }


def pictures(server: Server, count: int) -> dict[str, Any]:
    _, page = timed(lambda: server.client.get("/api/review/records", params={"limit": count, "sort": "sampled"}))
    addresses = [f"/images?prompt={card['prompt_id']}" for card in page["items"]]
    return spread("an image", [timed(lambda a=a: server.client.get(a))[0] for a in addresses])


PAINTED = """
([from, act, done]) => new Promise((resolve, reject) => {
  const began = performance.now();
  const held = new Function("from", `return (${done})`);
  const late = setTimeout(() => reject(new Error("not painted")), 30000);
  const look = () => held(from) ? requestAnimationFrame(() => setTimeout(() => {
    clearTimeout(late); resolve((performance.now() - began) / 1000); })) : setTimeout(look, 1);
  new Function(act)();
  look();
})
"""
"""Seconds from an act until its outcome is painted: the first task after the frame that shows it."""

LISTED = "!document.querySelector('.r-list').hasAttribute('aria-busy')"
SEARCH = "document.querySelector('.r-bar-top input')"
RECORD = "document.querySelector('.d-facts .d-mono')?.textContent"
ACCEPT = "dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true, bubbles: true}))"


def in_browser(server: Server, runs: int, commits: int) -> dict[str, Any]:
    """Both pages in Chromium: opening, filtering, searching, and commit-and-next with pauses as a reader makes them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(server.url)  # the address that the app printed: whatever it takes to come in
        base, opened = str(server.client.base_url).rstrip("/"), {}
        for name, mark in (("rollouts", "[data-record]"), ("review", ".d-row")):
            seconds = []
            for _ in range(5):
                began = time.perf_counter()
                page.goto(f"{base}/{name}")
                page.locator(mark).first.wait_for()
                seconds.append(time.perf_counter() - began)
            opened[name] = spread(f"{name} page opened in the browser", seconds)
        record: list[float] = []
        for _ in range(commits):
            page.wait_for_timeout(300)
            before = page.evaluate(RECORD)
            record.append(page.evaluate(PAINTED, [before, ACCEPT, f"![undefined, from].includes({RECORD})"]))
        page.goto(f"{base}/rollouts")
        page.locator("[data-record]").first.wait_for()
        filters, words = [], []
        for run in range(runs):
            page.wait_for_timeout(300)
            act = f"document.querySelectorAll('.r-rail input[type=checkbox]')[{run % 8}].click()"
            filters.append(page.evaluate(PAINTED, ["", act, LISTED]))
            text = f"{WORDS[run % len(WORDS)]} {WORDS[(run * 5 + 1) % len(WORDS)]}"
            page.wait_for_timeout(300)
            words.append(
                page.evaluate(PAINTED, ["", f"{SEARCH}.value = '{text}'; {SEARCH}.form.requestSubmit()", LISTED])
            )
        return {
            "opened": opened,
            "commit and next": spread("commit until the next record is painted", record),
            "filter": spread("filter until the list is painted", filters),
            "search": spread("search until the list is painted", words),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--runs", type=int, default=15, help="searches of each kind")
    parser.add_argument("--no-browser", action="store_true", help="leave out what needs Chromium")
    parser.add_argument("--workspace", type=Path, help="make it here and keep it, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.workspace or Path(temporary) / "workspace"
        if not root.exists():
            began = time.perf_counter()
            fill(Workspace.create(root, preset_text("toy")), options.records)
            print(f"made {options.records:,} records in {time.perf_counter() - began:.0f} s")
        index_path(Workspace.open(root)).unlink(missing_ok=True)
        server, first = start(root, "start without an index")
        size = index_path(Workspace.open(root)).stat().st_size / 1e6
        server.close()
        server, again = start(root, "start with an index")
        results: dict[str, Any] = {"start_without_index": first, "start": again, "index_mb": round(size)}
        try:
            results |= {"lists": searches(server, options.runs), **review(server, options.commits)}
            results["image"] = pictures(server, 100)
            if not options.no_browser:
                results["in the browser"] = in_browser(server, options.runs, options.commits)
            results["idle_share"] = server.idle()
            print(f"{'server, nobody asking':46} {100 * results['idle_share']:.1f} % of a core")
            now, most = server.memory()
            print(f"{'server memory':46} now {now:.0f} MB, at most {most:.0f} MB; the index file has {size:.0f} MB")
            results["memory_mb"] = {"now": round(now), "at_most": round(most)}
        finally:
            server.close()
    print("wanted: " + "; ".join(f"{name}: {limit}" for name, limit in LIMITS.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
