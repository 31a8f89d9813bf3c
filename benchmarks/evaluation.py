"""Scoring on one core: 1,004 descriptions of AMBER's size and 9,000 answers to POPE's questions.

    python benchmarks/evaluation.py [--words 120] [--resamples 10000]

Annotations and captions are made up, of about the real sizes: 334 judged words (AMBER's files have 418), 6 true objects
and 5 lures per image, and descriptions of the length that LLaVA-1.5 writes. "scored" is the benchmark's own work with
its figures, as `opadpo evaluate` calls it; intervals (bootstrap over images) and a comparison of two models (bootstrap,
permutation and McNemar's tests) come on top.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import json

import numpy as np

from opadpo.evaluation.benchmark import Benchmark, Context, Row
from opadpo.evaluation.coco_words import CATEGORY_WORDS
from opadpo.evaluation.comparing import compare
from opadpo.evaluation.figures import total
from opadpo.evaluation.result import Evaluation, Provenance
from opadpo.evaluation.statistics import intervals
from opadpo.progress import SilentProgress
from opadpo.recipe.sections import EvaluateSection
from opadpo.records import Caption, Prompt, Sampling
from opadpo.steps.benchmarks import BENCHMARKS

LIMITS = {"amber": 10.0, "pope": 2.0}
"""Seconds."""
DESCRIPTIONS, QUESTIONS, IMAGES = 1004, 9000, 500
GREEDY = Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=512)
_FILLER = "the a of in with on and there is are image shows near large small red standing sitting appears to be"
FILLER = _FILLER.split()


def row(number: int, image: int, text: str, known: dict[str, Any], key: str) -> Row:
    """A caption of a made-up prompt."""
    prompt = Prompt(
        prompt_id=f"p-{number}",
        image_id=f"{image:064x}",
        image_file=f"images/{image}.jpg",
        question="Describe this image.",
        reference="",
        source=key,
        split="heldout",
        subset=key,
        extra={key: [known]},
    )
    caption = Caption(
        prompt_id=prompt.prompt_id,
        prompt_set=key,
        response=text,
        response_token_ids=[],
        model="made-up@1",
        adapter="base",
        adapter_hash="",
        template="",
        image_aspect="pad",
        sampling=GREEDY,
        finish_reason="stop",
    )
    return Row(caption, prompt)


def amber(folder: Path, words: int, rng: np.random.Generator) -> Callable[[], list[Row]]:
    """Writes the word files; returns what makes a model's descriptions."""
    single = {w for category, others in CATEGORY_WORDS.items() for w in (category, *others) if " " not in w}
    vocabulary = sorted(single)
    relation = {word: list(rng.choice(vocabulary, 2)) if k % 4 == 0 else [] for k, word in enumerate(vocabulary)}
    (folder / "relation.json").write_text(json.dumps(relation))
    (folder / "safe_words.txt").write_text("light\n")
    known = [
        {
            "id": number,
            "type": "generative",
            "truth": list(rng.choice(vocabulary, 6)),
            "hallu": list(rng.choice(vocabulary, 5)),
        }
        for number in range(DESCRIPTIONS)
    ]

    def describe(number: int) -> str:
        nouns = [*rng.choice(known[number]["truth"], words // 8), *rng.choice(vocabulary, words // 20)]
        text = [*nouns, *rng.choice(FILLER, words - len(nouns))]
        return " ".join(rng.permutation(text)) + "."

    return lambda: [row(k, k, describe(k), known[k], "amber") for k in range(DESCRIPTIONS)]


def pope(rng: np.random.Generator) -> Callable[[], list[Row]]:
    """What makes a model's answers."""
    answers = ["Yes", "No", "Yes, there is a dog in the image.", "No, there is no dog in the image.", "A dog."]
    categories = ("random", "popular", "adversarial")
    known = [
        {"id": k, "category": categories[k * 3 // QUESTIONS], "label": "yes" if k % 2 else "no"}
        for k in range(QUESTIONS)
    ]
    return lambda: [row(k, k % IMAGES, str(rng.choice(answers)), known[k], "pope") for k in range(QUESTIONS)]


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)


def evaluated(benchmark: Benchmark, rows: list[Row], context: Context, seconds: list[float]) -> Evaluation:
    """Score and count; appends the seconds of scoring and of the intervals."""
    with timed(seconds):
        scored = benchmark.score(rows, context)
        counts = [item["counts"] for item in scored.items]
        metrics = benchmark.figures(total(counts))
    with timed(seconds):
        found = intervals(
            counts,
            benchmark.figures,
            clusters=[item["image_id"] for item in scored.items],
            resamples=context.section.resamples,
        )
    origin = Provenance(
        model="made-up",
        base="made-up@1",
        adapter_hash="",
        template="",
        image_aspect="pad",
        decoding=GREEDY,
        prompt_set=benchmark.prompt_set,
        captions="",
        n=len(counts),
    )
    return Evaluation(benchmark=benchmark.name, metrics=metrics, intervals=found, items=scored.items, provenance=origin)


def main() -> None:
    """Time both benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=120, help="length of a description")
    parser.add_argument("--resamples", type=int, default=10_000)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    section = EvaluateSection(resamples=arguments.resamples)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        context = Context(section, Path(name), SilentProgress(), Path(name) / "judge.db", nullcontext)
        for key, make in (("amber", amber(Path(name), arguments.words, rng)), ("pope", pope(rng))):
            benchmark, seconds = BENCHMARKS[key], []
            rows = make()
            first = evaluated(benchmark, rows, context, seconds)
            second = evaluated(benchmark, make(), context, [])
            with timed(seconds):
                compare(first, second, benchmark, resamples=arguments.resamples)
            told = ", ".join(
                f"{what} {took:.2f} s" for what, took in zip(("intervals", "comparison"), seconds[1:], strict=True)
            )
            print(
                f"{benchmark.title}: {len(first.items):,} items scored in {seconds[0]:.2f} s"
                f" (limit {LIMITS[key]:g} s, {LIMITS[key] / seconds[0]:.0f} times as fast); {told}"
                f" at {arguments.resamples:,} resamples, one core",
                flush=True,
            )


if __name__ == "__main__":
    main()
