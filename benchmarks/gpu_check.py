"""The training step on a GPU: speed, memory, utilisation and correctness of every layout at the real sizes.

    python benchmarks/gpu_check.py [--model NAME] [--only ROW ...] [--output DIR] [--tiny]

Architectures of LLaVA-1.5-7B and LLaVA-OneVision-7B with random weights, bfloat16, LoRA of rank 256 on the language
model, activations recomputed. An example has a prompt of 40 tokens beside its image and responses of 110, 125 and 120
tokens; a step is the policy's log-probs, the loss and the backward pass, the reference known before (or, in the second
column, computed in the step). Every row has a process of its own; one that fails is told and stops no other. The rows
`packed, ddp`, `packed, fsdp2` and `packed, deepspeed` are whole updates in one process for each GPU, `--batch` examples
in each, under `accelerate launch`; with fewer than two GPUs, or without the package, they say so. Results go into DIR
as JSON, one file for each model, to which later calls with other rows add; and as a table in Markdown. `--tiny` runs
all of it on tiny models and the CPU: it shows that the script runs, not how fast.

Utilisation: FLOPs of the model's own arithmetic over what the GPU could do at its published dense bfloat16 peak. For a
frozen layer of N weights a position costs 2N forward and 2N backward, for an adapter of M weights 6M; attention costs
4 L^2 h in each layer and row forward and twice that backward; the head 4N for each scored position. What checkpointing
computes again does not count.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from gpu_checks import checks
from gpu_parts import GIB, Bench, largest_batches, measure, profile
from gpu_sharded import HOWS, measure_sharded
from gpu_trl import measure_trl

LAYOUTS = (
    "released",
    "naive",
    "plain",
    "packed, efficient",
    "packed, cudnn",
    "packed, flex",
    "packed, two",
    "trl, two",
)
"""`two`: the standard and the generated response only, without image terms: what TRL's loss has."""
LAUNCHED = tuple(f"packed, {how}" for how in HOWS)
"""Whole updates in several processes, by `accelerate launch`."""
ROWS = (*LAYOUTS, *LAUNCHED)
NOT_MEASURED = {"packed, flex": "the packed path takes sdpa only: opadpo.training.packing.check_attention"}
EXTRAS = ("batches", "profile", "checks")


def one(model: str, part: str, *, tiny: bool, batch: int, repeats: int) -> Any:
    """A row or an extra, in this process; launched rows in processes of accelerate's launcher."""
    if part in LAUNCHED:
        return measure_sharded(model, part.removeprefix("packed, "), batch, repeats, tiny=tiny)
    bench = Bench(model, tiny=tiny)
    if part == "batches":
        return largest_batches(bench)
    if part == "profile":
        return profile(bench, batch)
    if part == "checks":
        return checks(bench)
    return measure_trl(bench, batch, repeats) if part.startswith("trl") else measure(bench, part, batch, repeats)


def hardware() -> str:
    """What it ran on."""
    import platform

    import torch

    if torch.cuda.is_available():
        return (
            f"{torch.cuda.get_device_name()}, {torch.cuda.mem_get_info()[1] / GIB:.0f} GiB, torch {torch.__version__}"
        )
    return f"CPU {platform.machine()}, torch {torch.__version__}"


def page(model: str, found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"### {model}: {found['hardware']}, {found['date']}\n",
        "| step | s, reference known | s, computed | examples/s | tokens/s | peak GiB | TFLOP/s | utilisation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figures = ("seconds", "seconds_recomputed", "examples_per_second", "tokens_per_second", "peak_gib", "tflops")
    for name, row in found["rows"].items():
        if "skipped" in row:
            lines.append(f"| {name} | {row['skipped']} | | | | | | |")
            continue
        cells = [f"{row[key]:.4g}" if key in row else "" for key in figures]
        used = f"{row['utilisation']:.1%}" if "utilisation" in row else ""
        lines.append(f"| {name}, batch {row['batch']} | {' | '.join(cells)} | {used} |")
    for row in found.get("batches", []):
        seen = "not tried" if row["measured"] is None else row["measured"]
        lines.append(f"\nLargest batch in {row['gib']} GiB: estimated {row['estimated']}, found {seen}.")
    lines += [f"\n- {row['name']}: {row['calls']} calls, {row['share']:.1%}" for row in found.get("profile", [])]
    for row in found.get("checks", []):
        state = f"skipped: {row['skipped']}" if "skipped" in row else "right" if row["ok"] else "WRONG"
        lines.append(f"\n{row['name']}: {row.get('value', row.get('seen', ''))} {state}")
    return "\n".join(lines) + "\n"


def in_a_process(options: argparse.Namespace, model: str, part: str) -> Any:
    """A row in a process of its own, tiny ones in this; one that fails is told as such and stops no other."""
    if part in NOT_MEASURED:
        return {"skipped": NOT_MEASURED[part]}
    if options.tiny:
        return one(model, part, tiny=True, batch=options.batch, repeats=options.repeats)
    command = [sys.executable, __file__, "--model", model, "--one", part, "--batch", str(options.batch)]
    command += ["--repeats", str(options.repeats)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
        return {"failed": last} if part not in ("released", "naive") else {"skipped": f"failed: {last}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure, write and print; 1 if something failed or a check found something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("llava", "onevision"), help="this one only")
    parser.add_argument("--only", nargs="+", choices=(*ROWS, *EXTRAS), metavar="ROW", help=", ".join((*ROWS, *EXTRAS)))
    parser.add_argument("--batch", type=int, default=2, help="examples of a step")
    parser.add_argument("--repeats", type=int, default=3, help="steps of a measurement; the fastest counts")
    parser.add_argument("--output", type=Path, default=Path("build/gpu_check"), help="folder of the results")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--one", metavar="ROW", help="this row in this process")
    options = parser.parse_args()
    if options.one:
        result = one(options.model, options.one, tiny=options.tiny, batch=options.batch, repeats=options.repeats)
        print(json.dumps(result))
        return 0
    import torch

    if not options.tiny and not torch.cuda.is_available():
        print("There is no CUDA GPU here; --tiny runs the same on tiny models.")
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    wrong = False
    for model in [options.model] if options.model else ["llava", "onevision"]:
        path = options.output / f"{model}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}}
        found |= {"hardware": hardware(), "date": date.today().isoformat()}
        for part in options.only or (*ROWS, *EXTRAS):
            result = in_a_process(options, model, part)
            failed = isinstance(result, dict) and "failed" in result
            wrong |= failed or (part == "checks" and any(not row.get("ok", True) for row in result))
            if part in EXTRAS:
                found[part] = [] if failed else result
            else:
                found["rows"][part] = {"skipped": f"failed: {result['failed']}"} if failed else result
            path.write_text(json.dumps(found, indent=2))
        text = page(model, found)
        (options.output / f"{model}.md").write_text(text)
        print(text, flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
