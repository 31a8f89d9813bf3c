"""What an OPA-DPO step costs, in seconds and memory, by how its five sequences are laid out.

    python benchmarks/training_step.py [--repeats 3] [--tiny]

One example: three responses of about 120 tokens under the image, two of them again under the masked image; 576 image
tokens; a random LLaVA of 8 layers, width 512 and 32,000 tokens in float32; LoRA of rank 16 on its language model. A
step is the policy's log-probs, the loss and the backward pass, with the frozen reference computed in the step or known
before. The layouts:

    released    every sequence padded to the 1,600 positions of the released code; all logits, and entropies
    all-logits  padded to the longest sequence only; all logits
    plain       our path without packing: logits of response positions only
    packed      our default: two rows, one for each image, each with its responses behind one prompt; no padding, no
                dense mask, no logits
    checkpoint  the same with activations recomputed in the backward pass

Every measurement has a process of its own with one thread, the layouts in turn, as often as `--repeats` says: CPU
seconds of the fastest step, and in one more process the peak memory of one step, libraries and model included. The
layouts must agree in the loss. The reference of `released` and `all-logits` is computed as the policy is, as it is
there.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

LAYOUTS = ("released", "all-logits", "plain", "packed", "checkpoint")
REFERENCES = ("recomputed", "precomputed")
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
"""For peaks: glibc hands freed memory back; else its adaptive heap moves them by up to a gigabyte from run to run. (It
costs time: the kernel clears every page anew.)"""
STEPS, ENOUGH = 2, 20.0
"""Steps of a process, unless the first ones took so many seconds."""


class Size(NamedTuple):
    """A model and an example."""

    width: int
    layers: int
    vocabulary: int
    side: int
    prompt: int
    responses: tuple[int, int, int]
    released: int


FULL = Size(512, 8, 32_000, 336, 40, (110, 125, 120), 1600)
TINY = Size(32, 2, 300, 28, 5, (4, 6, 5), 40)


def make_base(size: Size) -> Any:
    """A random LLaVA, frozen."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    heads = max(2, size.width // 64)
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=size.side,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.width * 43 // 16,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        initializer_range=size.width**-0.5,  # large enough that it matters who sees whom
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)
    model = LlavaForConditionalGeneration(config).requires_grad_(False).eval()
    model.config.use_cache = False
    return model


def make_model(size: Size) -> Any:
    """The same with a random adapter."""
    from opadpo.models.base import BasePin
    from opadpo.models.families import family_for
    from opadpo.recipe.training import LoraSection
    from opadpo.training.policy import fresh_adapter

    pin = BasePin(base="random", revision="", path="", digest="", family="llava")
    adapted = fresh_adapter(make_base(size), pin, family_for("llava"), LoraSection(rank=16, alpha=32), seed=0)
    fill_adapter(adapted)
    return adapted.train()


def fill_adapter(model: Any) -> None:
    """Random weights in both halves of an adapter, the same in every model of one size."""
    import torch

    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.normal_(std=0.05, generator=chance)


def sequences(size: Size, layout: str, config: Any) -> Any:
    """The example's five sequences: standard, revised, generated, and the first two under the masked image."""
    import torch

    from opadpo.models.families import family_for
    from opadpo.models.families.base import Processing
    from opadpo.training.logps import pad_sequences
    from opadpo.training.packing import PackedRow, pack_rows

    chance = torch.Generator().manual_seed(0)
    image_tokens = (size.side // 14) ** 2
    clean, masked = torch.randn((2, 3, size.side, size.side), generator=chance)
    ids = [
        torch.randint(4, size.vocabulary, (length,), generator=chance).tolist()
        for length in (size.prompt, *size.responses)
    ]
    prompt, responses = [1, *[3] * image_tokens, *ids[0]], ids[1:]
    if layout in ("packed", "checkpoint"):
        rows = [PackedRow(prompt, responses), PackedRow(prompt, responses[:2])]
        order = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
        processing = Processing(family_for("llava"), None, None, config, "", "native")
        images = {"pixel_values": torch.stack([clean, masked])}
        return pack_rows(rows, order, images, processing=processing, pad_token_id=0)
    images = {"pixel_values": torch.stack([clean] * 3 + [masked] * 2)}
    batch = pad_sequences([prompt] * 5, [*responses, *responses[:2]], images, pad_token_id=0)
    if layout == "released":
        more = (0, size.released - batch.input_ids.shape[1])
        padded = [torch.nn.functional.pad(field, more) for field in batch[:3]]
        batch = batch._replace(input_ids=padded[0], attention_mask=padded[1], scored=padded[2])
    return batch


def naive_logps(model: Any, batch: Any, *, entropies: bool) -> Any:
    """Log-probs read off the log-softmax of all positions, with the entropies that the released code computes."""
    from opadpo.training.logps import spread

    output = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **batch.model_inputs
    )
    logps = output.logits.float().log_softmax(-1)
    if entropies:
        _ = -(logps.exp() * logps).sum(-1)
    return spread(logps[batch.scored].gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1), batch.response_mask)


def scorer(layout: str) -> Callable[[Any, Any], Any]:
    """What computes log-probs in a layout."""
    from opadpo.training.logps import response_logps

    if layout in ("released", "all-logits"):
        return lambda model, batch: naive_logps(model, batch, entropies=layout == "released")
    return response_logps


def step(model: Any, batch: Any, score: Callable[[Any, Any], Any], reference: Any) -> float:
    """One step's gradients; `reference` is None where it is computed here."""
    import torch

    from opadpo.recipe.loss import LossConfig
    from opadpo.training.loss import Logps, Masks, Weights, opadpo_loss
    from opadpo.training.policy import computing_as

    batch = batch.prepared(model)
    if reference is None:
        with computing_as(model, None):
            reference = score(model, batch)
    policy = score(model, batch)
    masks = Masks(*(row.unsqueeze(0) for row in batch.response_mask[:3]))
    one = Weights(*(mask.float() for mask in (masks.generated, masks.revised, masks.revised)))
    trained, frozen = (Logps(*(row.unsqueeze(0) for row in logps)) for logps in (policy, reference))
    loss = opadpo_loss(trained, frozen, one, LossConfig(), masks=masks).loss
    loss.backward()
    if not all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad):
        raise ArithmeticError("a gradient is missing or not finite")
    model.zero_grad()
    return float(loss.detach())


def measure(layout: str, reference: str, size: Size, steps: int = STEPS) -> dict[str, float]:
    """In this process: CPU seconds of the fastest step, peak gigabytes, and the loss."""
    model = make_model(size)
    if layout == "checkpoint":
        model.activation_checkpointing_enable({"use_reentrant": False})
    batch, score = sequences(size, layout, model.config), scorer(layout)
    known = None
    if reference == "precomputed":
        from opadpo.training.policy import computing_as

        # In our own layout: computing it must not set the peak.
        plain = sequences(size, "plain", model.config)
        with computing_as(model, None):
            known = scorer("plain")(model, plain)
    return timed(lambda: step(model, batch, score, known), steps)


def timed(work: Callable[[], float], steps: int) -> dict[str, float]:
    """CPU seconds of the fastest of several steps, this process's peak gigabytes, and what the step returns."""
    seconds: list[float] = []
    result = 0.0
    while len(seconds) < steps and sum(seconds) < ENOUGH:
        started = time.process_time()
        result = work()
        seconds.append(time.process_time() - started)
    return {"seconds": min(seconds), "peak_gb": peak_gb(), "loss": result}


def peak_gb() -> float:
    """Largest resident size of this process. (`ru_maxrss` would begin with that of the process that started it.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise OSError("/proc/self/status has no VmHWM: this benchmark needs Linux")
    return int(found[1]) * 1024 / 1e9


def in_a_process(script: str, *arguments: str, memory: bool) -> dict[str, float]:
    """What a script prints last, in a process of its own: for its peak memory, or for its time."""
    command = [sys.executable, script, *arguments, "--steps", "1" if memory else str(STEPS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (RETURNING if memory else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


Found = dict[tuple[str, str], dict[str, float]]


def measure_all(repeats: int, options: list[str]) -> Found:
    """Every layout in turn, as often as asked; then its memory."""
    found: Found = {}
    pairs = [(layout, reference) for layout in reversed(LAYOUTS) for reference in REFERENCES]
    for pair in pairs * repeats:
        result = in_a_process(__file__, "--one", *pair, *options, memory=False)
        print(", ".join(pair), f"{result['seconds']:.2f} s, loss {result['loss']:.6f}", flush=True)
        if pair not in found or result["seconds"] < found[pair]["seconds"]:
            found[pair] = result
    for pair in pairs:
        if pair[1] == "precomputed":
            found[pair]["peak_gb"] = in_a_process(__file__, "--one", *pair, *options, memory=True)["peak_gb"]
    return found


def table(found: Found) -> str:
    """Seconds and memory of each layout, and how many times the packed step's they are."""
    base = found["packed", "precomputed"]
    lines = [
        "| layout | reference recomputed | precomputed | times packed | peak GB (precomputed) | of all-logits |",
        "|---|---|---|---|---|---|",
    ]
    for layout in LAYOUTS:
        again, known = found[layout, "recomputed"], found[layout, "precomputed"]
        lines.append(
            f"| {layout} | {again['seconds']:.2f} | {known['seconds']:.2f}"
            f" | {again['seconds'] / base['seconds']:.2f} and {known['seconds'] / base['seconds']:.2f}"
            f" | {known['peak_gb']:.2f} | {known['peak_gb'] / found['all-logits', 'precomputed']['peak_gb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print everything; 1 if the layouts differ in the loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="times that every layout is measured")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: shows that it runs, not how fast")
    parser.add_argument("--one", nargs=2, metavar=("LAYOUT", "REFERENCE"), help="measure this in this process")
    parser.add_argument("--steps", type=int, default=STEPS, help="with --one: steps")
    options = parser.parse_args()
    if options.one:
        import torch

        torch.set_num_threads(1)
        layout, reference = options.one
        print(json.dumps(measure(layout, reference, TINY if options.tiny else FULL, options.steps)))
        return 0
    found = measure_all(options.repeats, ["--tiny"] * options.tiny)
    print(table(found))
    losses = [result["loss"] for result in found.values()]
    if max(losses) - min(losses) > 1e-4:
        print(f"the layouts differ in the loss: {losses}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
