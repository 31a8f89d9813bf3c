"""The comparing page on 5,000 images and three models: opening, stepping, searching, voting, differences.

    python benchmarks/compare.py [--images 5000] [--steps 100] [--workspace DIR]

Every image is a file of its own; captions have about 100 words and are scored by the toy benchmark. The server runs in
a process of its own, by the command line; "in the browser" includes the browser's own work, up to what is painted.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from review import PAINTED, WORDS, Server, picture, spread, timed

from opadpo.hashing import bytes_digest
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.records import Caption, Prompt, Sampling
from opadpo.steps import plans
from opadpo.steps.evaluate import evaluate
from opadpo.tables import write_records
from opadpo.toy.world import NOUNS
from opadpo.workspace import Workspace

LIMITS = {"the page opens": "2 s", "a step": "200 ms, painting included"}
MODELS = {"base": 0.3, "opa": 0.15, "opadpo": 0.05}
"""Model -> share of its nouns that are not in the image."""
ALL: dict[str, Any] = {"set": "heldout", "model": list(MODELS)}
PAIR = {"set": "heldout", "first": "opadpo", "second": "base"}
FILLER = [word for word in WORDS if word not in NOUNS]


def fill(workspace: Workspace, count: int) -> None:
    """Prompts with images and truths, captions of every model, figures."""
    rng = np.random.default_rng(1)
    prompts: list[Prompt] = []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for number in range(count):
            data = picture(number)
            digest = bytes_digest(data)
            name = f"images/{digest[:2]}/{digest}.png"
            (writer.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (writer.folder / name).write_bytes(data)
            things = [{"noun": str(noun)} for noun in rng.choice(NOUNS, 5, replace=False)]
            prompts.append(
                Prompt.create(
                    image_id=digest, question="Describe the image in detail.", image_file=name, reference="",
                    source="toy", split="heldout", subset="heldout", extra={"truth": {"objects": things}},
                )
            )  # fmt: skip
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"heldout": count})
    for model, wrong in MODELS.items():
        with workspace.writing(plans.captions(workspace, model, "heldout")) as writer:
            rows = [caption(prompt, model, wrong, rng) for prompt in prompts]
            write_records(writer.folder / "heldout.parquet", rows, Caption)
            writer.finish({"captions": count}, content=model)
    evaluate(workspace, None, ["toy"], progress=SilentProgress())


def caption(prompt: Prompt, model: str, wrong: float, rng: np.random.Generator) -> Caption:
    there = [thing["noun"] for thing in prompt.extra["truth"]["objects"]]
    words = [FILLER[i] for i in rng.integers(0, len(FILLER), 92)]
    for place in range(0, len(words), 12):
        words[place] = str(rng.choice(NOUNS if rng.random() < wrong else there))
    text = " ".join(" ".join(words[start : start + 15]).capitalize() + "." for start in range(0, len(words), 15))
    return Caption(
        prompt_id=prompt.prompt_id, prompt_set="heldout", response=text,
        response_token_ids=rng.integers(0, 32000, int(len(text) / 4.2)).tolist(), model="llava@1", adapter=model,
        adapter_hash="" if model == "base" else model, template="vicuna_v1", image_aspect="pad",
        sampling=Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=512), finish_reason="stop",
    )  # fmt: skip


def over_http(server: Server, steps: int) -> dict[str, Any]:
    """What the page asks, by a client on the same machine."""

    def get(path: str, **asked: Any) -> tuple[float, Any]:
        return timed(lambda: server.client.get(f"/api/compare/{path}", params=asked))

    found: dict[str, Any] = {}

    def first(name: str, path: str, **asked: Any) -> Any:
        seconds, answer = get(path, **asked)
        found[name] = round(seconds, 3)
        print(f"{name + ', first time':46} {seconds * 1000:7.1f} ms")
        return answer

    first("sets", "sets")
    here = first("list", "records", **ALL)["items"][0]["prompt_id"]
    first("figures", "metrics", **ALL)
    first("differences", "differences", **ALL)
    records, lists = [], []
    for _ in range(steps):
        seconds, record = get(f"records/{here}", **ALL)
        records.append(seconds)
        here = record["next"]
    for run in range(20):
        for asked in ({"text": f"{FILLER[run]} {FILLER[run + 1]}"}, {"sort": "changed"}, {"only": "worse"}):
            lists.append(get("records", **ALL, **asked)[0])
    votes = []
    _, ballot = get("ballots", **PAIR)
    for _ in range(30):
        body = {**PAIR, "prompt_id": ballot["prompt_id"], "outcome": "tie"}
        seconds, answer = timed(lambda body=body: server.client.post("/api/compare/votes", json=body))
        votes.append(seconds)
        _, ballot = get("ballots", **PAIR, prompt=answer["upcoming"])
    return found | {
        "record": spread("a record", records),
        "lists": spread("a list, searched, sorted or filtered", lists),
        "vote": spread("a vote", votes),
    }


RECORD = "document.querySelector('.c-columns')?.textContent"
STEP = "dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))"
BALLOT = "document.querySelector('.c-pair')?.textContent"
VOTE = "dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true}))"
NEXT = "dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}))"


def in_browser(server: Server, steps: int) -> dict[str, Any]:
    """The page in Chromium: opening it, stepping with pauses as a reader makes them, voting."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(server.url)  # the address that the app printed: whatever it takes to come in
        base, opened = str(server.client.base_url).rstrip("/"), []
        for _ in range(5):
            began = time.perf_counter()
            page.goto(f"{base}/compare")
            page.locator(".c-text").first.wait_for()
            opened.append(time.perf_counter() - began)
        print(f"{'page opened in the browser, first time':46} {opened[0]:7.2f} s")
        stepped, voted, onward = [], [], []
        for _ in range(steps):
            page.wait_for_timeout(200)
            before = page.evaluate(RECORD)
            stepped.append(page.evaluate(PAINTED, [before, STEP, f"({RECORD}) !== from"]))
        page.goto(f"{base}/compare?mode=blind&model=base&model=opadpo")
        page.locator(".c-pair .c-text").first.wait_for()
        for _ in range(20):
            for act, kept in ((VOTE, voted), (NEXT, onward)):
                page.wait_for_timeout(200)
                before = page.evaluate(BALLOT)
                kept.append(page.evaluate(PAINTED, [before, act, f"({BALLOT}) !== from"]))
        return {
            "opened first": round(opened[0], 2),
            "opened": spread("page opened in the browser", opened),
            "step": spread("a step until it is painted", stepped),
            "vote": spread("a vote until it is painted", voted),
            "next": spread("the next pair until it is painted", onward),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--no-browser", action="store_true", help="leave out what needs Chromium")
    parser.add_argument("--workspace", type=Path, help="make it here and keep it, or use the one that is there")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.workspace or Path(temporary) / "workspace"
        if not root.exists():
            began = time.perf_counter()
            fill(Workspace.create(root, preset_text("toy")), options.images)
            took = time.perf_counter() - began
            print(f"made {options.images:,} images and {3 * options.images:,} captions in {took:.0f} s")
        parts = (
            {"over http": over_http} if options.no_browser else {"in the browser": in_browser, "over http": over_http}
        )
        for name, part in parts.items():
            server = Server(root)
            try:
                server.client.get(server.url).raise_for_status()
                results[name] = part(server, options.steps)
                now, most = server.memory()
                print(f"{'server memory, ' + name:46} now {now:.0f} MB, at most {most:.0f} MB")
            finally:
                server.close()
    print("wanted: " + "; ".join(f"{name}: {limit}" for name, limit in LIMITS.items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
