"""One of several processes under `accelerate launch`: updates of the packed step, for rows of `gpu_check.py`.

    accelerate launch ... benchmarks/gpu_sharded.py MODEL HOW --batch N --repeats N --folder DIR [--tiny]

HOW: `ddp`, `fsdp2` or `deepspeed`. The first process writes figures to DIR/figures.json. Whole updates are timed,
with optimizer and the reference computed in the step; that a checkpoint can be written at the end is part of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_parts import GIB, Bench, resident, update_clock

HOWS = ("ddp", "fsdp2", "deepspeed")
LAUNCH = ["--num_machines=1", "--main_process_port=0", "--dynamo_backend=no"]
DEEPSPEED = ["--use_deepspeed", "--zero_stage=2", "--gradient_clipping=1.0", "--mixed_precision=bf16"]
FIGURES = "figures.json"
LONGEST_SECONDS = 900
"""A row that takes longer has failed: processes that wait for each other say nothing."""


def missing(how: str, *, tiny: bool) -> str | None:
    """Why a row is left out here; None if it can be measured."""
    import torch

    if tiny:
        return "needs CUDA GPUs, and this is the run on the CPU"
    if torch.cuda.device_count() < 2:
        return f"needs two GPUs, here are {torch.cuda.device_count()}"
    if how == "deepspeed" and find_spec("deepspeed") is None:
        return "deepspeed is not installed"
    return None


def measure_sharded(model: str, how: str, count: int, repeats: int, *, tiny: bool) -> dict[str, Any]:
    """Figures of one row, from processes of accelerate's launcher, one for each GPU.

    Raises:
        RuntimeError: if they fail, with the last line that they wrote.
    """
    import torch

    if why := missing(how, tiny=tiny):
        return {"skipped": why}
    processes = torch.cuda.device_count()
    options = DEEPSPEED if how == "deepspeed" else ["--multi_gpu", "--mixed_precision=no"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, *options]
        command += [f"--num_processes={processes}", __file__, model, how, "--batch", str(count)]
        command += ["--repeats", str(repeats), "--folder", folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LONGEST_SECONDS)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            said = [line for line in done.stderr.splitlines() if "Error" in line]
            raise RuntimeError(said[-1] if said else f"accelerate launch ended with status {done.returncode}")
        return json.loads((Path(folder) / FIGURES).read_text())


def one_process(options: argparse.Namespace) -> None:
    """Train `repeats` updates behind a first one, and let the first process write the fastest."""
    import torch
    from random_training import stage_trainer

    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if not options.tiny:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    bench = Bench(options.model, tiny=options.tiny)
    settings = {"batch_size": options.batch * world, "micro_batch_size": options.batch, "reference": "on_the_fly"}
    section = bench.section.model_copy(update=settings)
    trainer = stage_trainer(
        bench.recipe,
        section,
        bench.model,
        bench.examples,
        bench.prompts,
        updates=options.repeats + 1,
        run=options.folder / "run",
        processes=world,
        sharding="fsdp" if options.how == "fsdp2" else "none",
    )

    clock = update_clock(bench)
    trainer.add_callback(clock)
    trainer.train()
    if options.how == "fsdp2":
        check_sharded(trainer.model)
    if rank == 0:
        best, examples = min(clock.times[1:]), options.batch * world
        tokens = bench.batch(options.batch, packing=True).tokens * world
        peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else resident()
        figures = {
            "seconds_recomputed": best,
            "batch": examples,
            "processes": world,
            "examples_per_second": examples / best,
            "tokens_per_second": tokens / best,
            "peak_gib": peak / GIB,
        }
        (options.folder / FIGURES).write_text(json.dumps(figures))
    torch.distributed.barrier()
    os._exit(0)  # gloo may wait for ever for a neighbour that has taken its group down already


def check_sharded(model: Any) -> None:
    """Check that parameters are in parts: accelerate may train without sharding and not say so."""
    from torch.distributed.tensor import DTensor

    whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise RuntimeError(f"{len(whole)} parameters are not sharded, {whole[0]} for one")


def main() -> None:
    """Be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("llava", "onevision"))
    parser.add_argument("how", choices=HOWS)
    parser.add_argument("--batch", type=int, default=2, help="examples of an update and process")
    parser.add_argument("--repeats", type=int, default=3, help="updates behind the first; the fastest counts")
    parser.add_argument("--folder", type=Path, required=True, help="where figures and checkpoints go")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    one_process(parser.parse_args())


if __name__ == "__main__":
    main()
