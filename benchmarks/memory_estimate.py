"""How near the memory estimate of a training run is to the peak that is measured.

    python benchmarks/memory_estimate.py [NAME ...]

Random LLaVAs (width 512, 8 layers, 32,000 tokens, 256 image tokens) are trained for two updates by the package's
trainers, each in a process of its own on the CPU. Measured is by how much the process's resident
memory at its peak (VmHWM) exceeds what it was once all libraries were imported; the estimate is without its margin.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

RETURNING = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
"""glibc hands freed memory back; else the heap keeps the peak's pieces."""
GIB = 2**30
SIDE = 224
PATCHES = (SIDE // 14) ** 2


class Case(NamedTuple):
    """A configuration."""

    stage: str = "opadpo"
    packing: bool = True
    checkpointing: bool = False
    micro: int = 1
    targets: str = "language"
    reference: bool = True
    dtype: str = "float32"
    accumulate: int = 1
    width: int = 512
    optimizer: str = "adamw"


CASES = {
    "opadpo": Case(accumulate=2),
    "opadpo, plain": Case(packing=False),
    "opadpo, checkpointing": Case(checkpointing=True),
    "opadpo, batch 4": Case(micro=4),
    "opadpo, checkpointing, batch 4": Case(checkpointing=True, micro=4),
    "opadpo, plain, checkpointing, batch 4": Case(packing=False, checkpointing=True, micro=4),
    "opadpo, bfloat16": Case(dtype="bfloat16"),
    "opadpo, from the base, tower trained": Case(targets="all", reference=False),
    "opa, batch 4": Case(stage="opa", reference=False, micro=4),
    "opa, tower trained, batch 4": Case(stage="opa", reference=False, micro=4, targets="all"),
    "opa, tower trained, checkpointing, batch 4": Case(
        stage="opa", reference=False, micro=4, targets="all", checkpointing=True
    ),
    "opadpo, width 1024": Case(width=1024),
}


def config(width: int) -> Any:
    """A LLaVA-1.5 of another width and depth."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=width * 43 // 16,
        num_hidden_layers=8,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=4096,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=31_999)


def measure(case: Case) -> dict[str, float]:
    """Train in this process: estimated and measured bytes."""
    import psutil
    import torch
    from random_training import RESPONSES, Lengths, RandomPrompts, examples, random_model, stage_trainer

    from opadpo.recipe import parse_recipe
    from opadpo.training.memory import Demand, Stage, estimate

    torch.set_num_threads(1)
    section: dict[str, Any] = {
        "lora": {"rank": 64, "alpha": 64, "targets": case.targets},
        "packing": case.packing,
        "gradient_checkpointing": case.checkpointing,
        "micro_batch_size": case.micro,
        "batch_size": case.micro * case.accumulate,
        "precision": case.dtype,
        "optimizer": case.optimizer,
    }
    both = {"opa": {"lora": section["lora"]}, "opadpo": {"lora": section["lora"]}} | {case.stage: section}
    data = {"model": {"device": "cpu", "dtype": case.dtype}, "train": both}
    recipe = parse_recipe(json.dumps(data))
    chosen = getattr(recipe.train, case.stage)
    made_config, lengths = config(case.width), Lengths(40, (80, 95, 90))
    prompts = RandomPrompts(made_config, {"pixel_values": torch.empty(3, SIDE, SIDE)}, lengths)
    responses: dict[str, int] = dict(zip(RESPONSES, lengths.responses, strict=True))
    demand = Demand(prompts.image_tokens + lengths.question, prompts.image_tokens, PATCHES, responses)
    guess = estimate(Stage(recipe, chosen, made_config, case.reference), demand, gpu=False)
    before = psutil.Process().memory_info().rss
    model = random_model(made_config, chosen.lora, case.dtype, "cpu", reference=case.reference)
    made = examples(made_config, section["batch_size"], prompts)
    with tempfile.TemporaryDirectory() as folder:
        trainer = stage_trainer(recipe, chosen, model, made, prompts, updates=2, run=Path(folder))
        trainer.args.save_strategy = "no"
        trainer.train()
    return {"estimated": guess.total - guess.margin, "measured": _peak() - before}


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def in_a_process(name: str) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | RETURNING)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and print everything; 1 if an estimate is a quarter off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {'; '.join(CASES)}")
    parser.add_argument("--one", metavar="NAME", help="measure this in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(CASES[options.one])))
        return 0
    far = []
    print("| run | estimated GiB | measured GiB | ratio |\n|---|---|---|---|", flush=True)
    for name in options.names or CASES:
        found = in_a_process(name)
        ratio = found["estimated"] / found["measured"]
        print(f"| {name} | {found['estimated'] / GIB:.2f} | {found['measured'] / GIB:.2f} | {ratio:.2f} |", flush=True)
        far += [name] * (not 0.75 <= ratio <= 1.25)
    if far:
        print(f"more than a quarter off: {'; '.join(far)}", file=sys.stderr)
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
