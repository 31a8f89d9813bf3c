"""Hallucination and coverage on the toy world, by seed and by variant of the loss: the tables of docs/method.md.

    python benchmarks/toy_table.py properties --seeds 11 12 13 14 15
    python benchmarks/toy_table.py choices --seeds 11 12 13
    python benchmarks/toy_table.py                                     # both, with these seeds

`properties` trains what the demo trains and checks what the toy world promises (exit status 1 if it does not hold);
`choices` trains the second stage once per choice of the loss, from the same OPA adapter, and averages over the seeds.
Workspaces are kept in --folder, so a stopped run continues.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from opadpo.evaluation.result import read_evaluation
from opadpo.progress import LineProgress, Progress
from opadpo.steps.build import build
from opadpo.steps.caption import caption
from opadpo.steps.demo import open_demo
from opadpo.steps.evaluate import evaluate
from opadpo.steps.prepare import prepare
from opadpo.steps.revise import revise
from opadpo.steps.rollout import rollout
from opadpo.steps.train import train
from opadpo.workspace import Workspace


class Choice(NamedTuple):
    """A variant of the second stage."""

    name: str
    """Name of the adapter."""
    title: str
    """First column of the table."""
    overrides: tuple[str, ...] = ()
    """Settings that differ from the toy recipe's."""


LOSS = "train.opadpo.loss"
PROPERTIES = (Choice("opadpo", "OPA, then OPA-DPO"), Choice("dpo", "DPO without OPA"))
CHOICES = (
    Choice("opadpo", "toy recipe: sequence, chosen_up, token weights, image term"),
    Choice("anchor-released", "anchor: released", (f"{LOSS}.anchor=released",)),
    Choice(
        "weights-off",
        "token weights off",
        ("train.opadpo.use_score_weights=false", "train.opadpo.use_image_weights=false"),
    ),
    Choice("image-off", "image term off", (f"{LOSS}.image_coef=0",)),
    Choice("token", "reduction: token", (f"{LOSS}.reduction=token",)),
    Choice(
        "token-released", "reduction: token, anchor: released", (f"{LOSS}.reduction=token", f"{LOSS}.anchor=released")
    ),
    Choice("dpo", "OPA off (the same loss from the base)"),
    Choice("dpo-plain", "OPA off, revised over generated only"),
)

SEEDS = {"properties": (11, 12, 13, 14, 15), "choices": (11, 12, 13)}
"""Table -> seeds that docs/method.md shows."""

Figures = dict[str, dict[str, float]]
"""Model -> metric -> percent."""


def measure(folder: Path, seed: int, choices: Sequence[Choice], progress: Progress) -> Figures:
    """Train and score base, OPA and every choice on one seed."""
    workspace = open_demo(folder / f"seed-{seed}", seed, None)
    for step in (prepare, rollout, revise, build):
        step(workspace, progress=progress)
    train(workspace, "opa", progress=progress)
    for choice in choices:
        other = Workspace.open(workspace.root, list(choice.overrides))
        train(other, "opadpo", name=choice.name, progress=progress)
    models = ["base", "opa", *[choice.name for choice in choices]]
    caption(workspace, models, progress=progress)
    evaluate(workspace, models, ["toy"], progress=progress)
    return {model: read_evaluation(workspace.evaluation(model, "toy")).metrics for model in models}


def cell(metrics: dict[str, float]) -> str:
    """CHAIR_i / CHAIR_s / coverage."""
    return f"{metrics['chair_i']:.1f} / {metrics['chair_s']:.1f} / {metrics['coverage']:.1f}"


def properties_table(by_seed: dict[int, Figures]) -> str:
    """One row per model, one column per seed."""
    titles = {"base": "base", "opa": "OPA", **{choice.name: choice.title for choice in PROPERTIES}}
    lines = ["| CHAIR_i / CHAIR_s / coverage, % | " + " | ".join(f"seed {s}" for s in by_seed) + " |"]
    lines.append("|---" * (len(by_seed) + 1) + "|")
    lines += [
        f"| {title} | " + " | ".join(cell(figures[model]) for figures in by_seed.values()) + " |"
        for model, title in titles.items()
    ]
    return "\n".join(lines)


def broken_promises(by_seed: dict[int, Figures]) -> list[str]:
    """What the toy world promises and a seed does not keep."""
    broken, ratios = [], []
    for seed, figures in by_seed.items():
        base, opa, opadpo, dpo = (figures[model] for model in ("base", "opa", "opadpo", "dpo"))
        ratio = opadpo["coverage"] / base["coverage"]
        ratios.append(ratio)
        if base["chair_s"] < 40:
            broken.append(f"seed {seed}: the base's CHAIR_s is {base['chair_s']:.1f}, below 40")
        if opadpo["chair_s"] > 0.35 * base["chair_s"]:
            broken.append(f"seed {seed}: OPA-DPO's CHAIR_s is {opadpo['chair_s'] / base['chair_s']:.2f} of the base's")
        broken += [
            f"seed {seed}: OPA-DPO's CHAIR_s {opadpo['chair_s']:.1f} is not below {name}'s {other['chair_s']:.1f}"
            for name, other in (("OPA", opa), ("DPO", dpo))
            if opadpo["chair_s"] >= other["chair_s"]
        ]
        if ratio < 0.80:
            broken.append(f"seed {seed}: coverage is {ratio:.3f} of the base's, below 0.80")
    if statistics.mean(ratios) < 0.85:
        broken.append(f"coverage is {statistics.mean(ratios):.3f} of the base's on average, below 0.85")
    return broken


def choices_table(by_seed: dict[int, Figures]) -> str:
    """One row per choice: means over the seeds, and the coverage relative to the base's."""
    titles = {"base": "base", "opa": "OPA alone", **{choice.name: choice.title for choice in CHOICES}}
    lines = [
        "| second stage | CHAIR_i % | CHAIR_s % (lowest to highest) | coverage % | coverage / base |",
        "|---|---|---|---|---|",
    ]
    for model, title in titles.items():
        rows = [figures[model] for figures in by_seed.values()]
        ratios = [figures[model]["coverage"] / figures["base"]["coverage"] for figures in by_seed.values()]
        sentences = [row["chair_s"] for row in rows]
        lines.append(
            f"| {title} | {statistics.mean(row['chair_i'] for row in rows):.1f} |"
            f" {statistics.mean(sentences):.1f} ({min(sentences):.1f} to {max(sentences):.1f}) |"
            f" {statistics.mean(row['coverage'] for row in rows):.1f} | {statistics.mean(ratios):.3f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(SEEDS), nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--folder", type=Path, default=Path("workspaces/toy-table"))
    arguments = parser.parse_args()
    status = 0
    for table in [arguments.table] if arguments.table else list(SEEDS):
        choices = PROPERTIES if table == "properties" else CHOICES
        seeds = arguments.seeds or SEEDS[table]
        by_seed = {seed: measure(arguments.folder, seed, choices, LineProgress()) for seed in seeds}
        if table == "choices":
            print(choices_table(by_seed))
            continue
        broken = broken_promises(by_seed)
        print(properties_table(by_seed))
        print("\n".join(broken) if broken else "every promise of the toy world holds")
        status = 1 if broken else status
    return status


if __name__ == "__main__":
    sys.exit(main())
