"""How fast and how large `opadpo.llm` is beside the bare SDK, against a server in another process.

    python benchmarks/llm_throughput.py [--requests 2000] [--latency 0.2] [--concurrency 64] [--image-requests 300]

The ideal rate is concurrency / latency. Asked are texts by the bare SDK (`chat.completions.create` with the same
number in flight), the same texts by `opadpo.llm` (every answer committed to the store), and requests with an image of
1 MB each by `opadpo.llm`. Each runs in a process of its own. Targets on two cores: at least 65 % of the ideal rate, at
least 90 % of the bare SDK's, memory less than 400 MB over the start, with images less than 600 MB.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from loopback import provider

KINDS = ("sdk", "opadpo", "images")
_WARM_UP = 32


async def ask_sdk(url: str, count: int, concurrency: int) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        texts = iter(range(count))

        async def work() -> None:
            for number in texts:
                await client.chat.completions.create(
                    model="test-model", messages=[{"role": "user", "content": text_of(number)}], temperature=0.0
                )

        await asyncio.gather(*(work() for _ in range(concurrency)))


def ask_opadpo(url: str, count: int, concurrency: int, folder: Path, image: Path | None) -> None:
    from opadpo.llm.asking import Asker
    from opadpo.llm.requests import Answer, ChatRequest, Failure, Message, Picture
    from opadpo.llm.store import RequestStore
    from opadpo.llm.working import Asking, Work, carry_out
    from opadpo.progress import SilentProgress
    from opadpo.recipe.endpoints import AskingSection, EndpointSection

    endpoint = EndpointSection(base_url=url, model="test-model", api_key_required=False)
    section = AskingSection(endpoint=endpoint, concurrency=concurrency)

    async def talk(number: int, asker: Asker) -> Answer | Failure:
        picture = Picture(image, f"{number}", 4096) if image else None
        return await asker.ask(ChatRequest("test-model", (Message("user", text_of(number), picture),), temperature=0.0))

    def take(_number: int, outcome: Answer | Failure) -> None:
        assert isinstance(outcome, Answer), outcome

    with RequestStore.open(folder / "requests.db") as store:
        carry_out(Work("ask", lambda: iter(range(count)), talk, take), Asking(section, store, SilentProgress()))


def text_of(number: int) -> str:
    """A text of the size of a revision's."""
    lines = "\n".join(f"[{index}] There is a cup number {number} on the table." for index in range(1, 9))
    return f"<response>\n{lines}\n</response>"


def noisy_picture(path: Path, size: int) -> Path:
    """A JPEG of about `size` bytes."""
    from PIL import Image

    side = 900
    while True:
        Image.effect_noise((side, side), 80).convert("RGB").save(path, quality=92)
        if path.stat().st_size >= size:
            return path
        side = int(side * 1.05)


class Peak:
    """The most memory (RSS) of this process while it is watched."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start = self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def stop(self) -> int:
        """Bytes over the start."""
        self._done.set()
        self._thread.join()
        return max(self.peak, self._process.memory_info().rss) - self.start


def child(kind: str, url: str, count: int, concurrency: int) -> None:
    """One measurement, in a process of its own; prints seconds and bytes as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        image = noisy_picture(root / "image.jpg", 1_000_000) if kind == "images" else None

        def ask(number: int, name: str) -> None:
            if kind == "sdk":
                asyncio.run(ask_sdk(url, number, concurrency))
            else:
                ask_opadpo(url, number, concurrency, root / name, image)

        # Imports and first connections are no part of the rate; memory counts from before them.
        peak = Peak()
        ask(_WARM_UP, "warm-up")
        started, busy = time.perf_counter(), time.process_time()
        ask(count, "measured")
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"seconds": seconds, "busy": busy, "bytes": peak.stop()}))


def measure(kind: str, url: str, count: int, concurrency: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, url, str(count), str(concurrency)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--image-requests", type=int, default=300)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, url, count, concurrency = options.child
        child(kind, url, int(count), int(concurrency))
        return
    ideal = options.concurrency / options.latency
    milliseconds = options.latency * 1000
    print(f"{options.requests} requests, {milliseconds:.0f} ms, {options.concurrency} in flight: {ideal:.0f}/s at best")
    rates: dict[str, float] = {}
    for kind in KINDS:
        count = options.image_requests if kind == "images" else options.requests
        with provider(latency=options.latency) as server:
            found = measure(kind, server.url, count, options.concurrency)
        rates[kind] = count / found["seconds"]
        share = f"{rates[kind] / ideal:.0%} of ideal" + (
            f", {rates[kind] / rates['sdk']:.0%} of the bare SDK" if kind == "opadpo" else ""
        )
        busy = f"{found['busy'] / count * 1000:.2f} ms of processor each"
        print(f"{kind:<7} {rates[kind]:6.1f}/s  {share}; {busy}; {found['bytes'] / 1e6:.0f} MB over the start")


if __name__ == "__main__":
    main()
