"""The parts of `gpu_check.py`: a model with its examples, and what is measured and checked on it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

GIB = 2**30
PEAKS = {"H100 PCIe": 756.0, "H100": 989.4, "H200 NVL": 835.5, "H200": 989.4, "A100": 312.0}
"""Dense bfloat16 TFLOP/s by a part of the device's name, from NVIDIA's data sheets of the H100, H200 and A100 Tensor
Core GPUs (which print the H100's and H200's with sparsity: twice as much). The first that fits counts."""
CARDS = (24, 48, 80, 139)
RELEASED = (128, 896)
"""Positions of question and response in the released code."""


def subject(name: str, *, tiny: bool) -> tuple[Any, dict[str, Any]]:
    """Config, and image tensors of one prompt."""
    import torch

    from opadpo.models.published import PUBLISHED

    hub = {"llava": "llava-hf/llava-1.5-7b-hf", "onevision": "llava-hf/llava-onevision-qwen2-7b-ov-hf"}[name]
    config = PUBLISHED[hub].config()
    if tiny:
        text, vision = config.text_config, config.vision_config
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 400, **heads}
        for key, value in small.items():
            setattr(text, key, value)
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:2]
        for key, value in {**small, "image_size": 28, "patch_size": 14}.items():
            setattr(vision, key, value)
        config.image_token_index = 399
        if name == "onevision":
            config.image_grid_pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    side = config.vision_config.image_size
    if name == "llava":
        return config, {"pixel_values": torch.empty(3, side, side)}
    # An overview and four tiles: a landscape of 4 to 3.
    size = torch.tensor([side * 5 // 4, side * 5 // 3])
    return config, {
        "pixel_values": torch.empty(5, 3, side, side),
        "image_sizes": size,
        "batch_num_images": torch.tensor(1),
    }


class Bench:
    """A model, its examples and its recipe."""

    def __init__(self, name: str, *, tiny: bool) -> None:
        import torch
        from random_training import Lengths, RandomPrompts, examples, random_model

        from opadpo.recipe import parse_recipe

        self.device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
        self.dtype = "float32" if tiny else "bfloat16"
        self.config, inputs = subject(name, tiny=tiny)
        self.lengths = Lengths(5, (4, 6, 5)) if tiny else Lengths(40, (110, 125, 120))
        self.released = (8, 16) if tiny else RELEASED
        self.prompts = RandomPrompts(self.config, inputs, self.lengths)
        lora = {"rank": 4 if tiny else 256, "alpha": 8 if tiny else 512}
        section = {"lora": lora, "precision": self.dtype, "gradient_checkpointing": True, "batch_size": 64}
        model = {"dtype": self.dtype, "device": self.device}
        recipe = {"model": model, "train": {"opa": {"lora": lora}, "opadpo": section}}
        self.recipe = parse_recipe(json.dumps(recipe))
        self.section = self.recipe.train.opadpo
        self.model = random_model(self.config, self.section.lora, self.dtype, self.device, reference=True).train()
        self.model.activation_checkpointing_enable({"use_reentrant": False})
        self.examples = examples(self.config, 64, self.prompts)

    def batch(self, count: int, *, packing: bool, two: bool = False) -> Any:
        """`count` examples, on the device."""
        import torch

        from opadpo.training.collate import Collator, Visit
        from opadpo.training.opadpo import opadpo_names

        names = ("standard", "generated") if two else opadpo_names(self.section)
        collator = Collator(
            self.examples,
            self.prompts,  # pyright: ignore[reportArgumentType]
            names,
            mask=lambda inputs, seed: inputs | {"pixel_values": inputs["pixel_values"].flip(-1)},
            mask_seed=lambda example, epoch: 0,
            packing=packing,
        )
        batch = collator([Visit(number % len(self.examples), 0) for number in range(count)])
        return batch.sequences.placed(torch.device(self.device), getattr(torch, self.dtype))

    def autocast(self) -> Any:
        """As accelerate does it."""
        import torch

        return torch.autocast(self.device, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def finish(self) -> None:
        """Wait for the device."""
        import torch

        if self.device == "cuda":
            torch.cuda.synchronize()


def padded_as_released(bench: Bench, sequences: Any) -> Any:
    """Every sequence at the positions of the released code."""
    import torch

    room = bench.prompts.image_tokens + sum(bench.released)
    more = (0, room - sequences.input_ids.shape[1])
    fields = [torch.nn.functional.pad(field, more) for field in sequences[:3]]
    return sequences._replace(input_ids=fields[0], attention_mask=fields[1], scored=fields[2])


def scorer(row: str) -> Callable[[Any, Any], Any]:
    """What computes log-probs in a row of the table."""
    from training_step import naive_logps

    from opadpo.training.logps import response_logps

    if row in ("released", "naive"):
        return lambda model, batch: naive_logps(model, batch, entropies=row == "released")
    return response_logps


@contextmanager
def kernel(row: str, device: str) -> Iterator[None]:
    """Only this attention kernel: a fall-back to another one is an error."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    wanted = {"efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
    found = [backend for name, backend in wanted.items() if row.endswith(name)]
    with sdpa_kernel(found) if found and device == "cuda" else nullcontext():
        yield


def loss_of(policy: Any, reference: Any, count: int) -> Any:
    """A preference of each example's first response over its last under the clean image, and over the masked ones."""
    import torch

    margins = (policy - reference).sum(1).view(-1, count)
    return -torch.nn.functional.logsigmoid(0.1 * (margins[0] - margins[1:]).sum(0)).mean()


def step(bench: Bench, sequences: Any, score: Callable[[Any, Any], Any], count: int, known: Any) -> float:
    """One forward and backward pass; `known` are the reference's log-probs, None where they are computed here."""
    from opadpo.training.policy import REFERENCE, computing_as

    with bench.autocast():
        prepared = sequences.prepared(bench.model)
        if known is None:
            with computing_as(bench.model, REFERENCE):
                known = score(bench.model, prepared)
        loss = loss_of(score(bench.model, prepared), known, count)
    loss.backward()
    bench.model.zero_grad()
    bench.finish()
    return float(loss.detach())


def flops(bench: Bench, sequences: Any) -> float:
    """FLOPs of the model's arithmetic in one step with the reference known; the formula is at the top."""
    text = bench.config.get_text_config()
    width, layers = text.hidden_size, text.num_hidden_layers
    names = dict(bench.model.named_parameters())
    frozen = sum(p.numel() for n, p in names.items() if "language_model.layers" in n and "lora_" not in n)
    adapter = sum(p.numel() for p in names.values() if p.requires_grad)
    rows, length = sequences.input_ids.shape
    needed = sequences.needed if hasattr(sequences, "needed") else sequences.scored
    head = 4 * int(needed.sum()) * width * text.vocab_size
    return rows * length * (4 * frozen + 6 * adapter) + 12 * rows * length**2 * width * layers + head


def measure(bench: Bench, row: str, count: int, repeats: int) -> dict[str, Any]:
    """Figures of one row of the table."""
    import torch

    from opadpo.training.policy import REFERENCE, computing_as

    sequences = bench.batch(count, packing=row.startswith("packed"), two=row.endswith("two"))
    if row == "released":
        sequences = padded_as_released(bench, sequences)
    score, seconds, peak = scorer(row), {}, 0
    with kernel(row, bench.device):
        with computing_as(bench.model, REFERENCE), bench.autocast():
            stored = score(bench.model, sequences.prepared(bench.model)).clone()
        for label, known in (("seconds", stored), ("seconds_recomputed", None)):
            if bench.device == "cuda" and label == "seconds":
                torch.cuda.reset_peak_memory_stats()
            times = []
            for _ in range(repeats + 1):  # the first one warms up
                started = time.perf_counter()
                step(bench, sequences, score, count, known)
                times.append(time.perf_counter() - started)
            seconds[label] = min(times[1:])
            if label == "seconds":
                peak = torch.cuda.max_memory_allocated() if bench.device == "cuda" else resident()
    done = flops(bench, sequences)
    return {
        **seconds,
        "batch": count,
        "examples_per_second": count / seconds["seconds"],
        "tokens_per_second": sequences.tokens / seconds["seconds"],
        "peak_gib": peak / GIB,
        "tflops": done / seconds["seconds"] / 1e12,
        "utilisation": done / seconds["seconds"] / 1e12 / published_peak(),
    }


def published_peak() -> float:
    """TFLOP/s of the GPU; 1 where it is not in the table, so that the column shows TFLOP/s."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for part, peak in PEAKS.items() if all(word in name for word in part.split())), 1.0)


def resident() -> int:
    """Bytes of this process in memory."""
    import psutil

    return psutil.Process().memory_info().rss


def update_clock(bench: Bench) -> Any:
    """A callback of a trainer of transformers; `times` are the seconds of its updates."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            bench.finish()
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            bench.finish()
            self.times.append(time.perf_counter() - self.started)

    return Clock()


def largest_batches(bench: Bench) -> list[dict[str, Any]]:
    """The largest batch of the packed step by the memory that there is: estimated, and tried where the card has it.

    The estimate is of whole training with an optimizer's moments, which are allocated here too.
    """
    import torch

    from opadpo.training.fitting import Memory as Room
    from opadpo.training.fitting import largest_micro_batch
    from opadpo.training.memory import Demand, Stage

    trained = [p for p in bench.model.parameters() if p.requires_grad]
    held = [torch.zeros_like(p) for p in trained for _ in range(2)]
    vision = bench.config.vision_config
    pixels = bench.prompts.inputs["pixel_values"]
    prompt = bench.prompts.image_tokens + bench.lengths.question
    responses: dict[str, int] = dict(zip(("standard", "revised", "generated"), bench.lengths.responses, strict=True))
    demand = Demand(prompt, bench.prompts.image_tokens, pixels.numel() // (3 * vision.patch_size**2), responses)
    stage = Stage(bench.recipe, bench.section, bench.config, continued=True)
    found = []
    for card in CARDS:
        guess = largest_micro_batch(stage, demand, Room("", card * GIB, gpu=True))
        row: dict[str, Any] = {"gib": card, "estimated": guess, "measured": None}
        # A card of 80 GB shows a little less than 80 GiB.
        share = card * GIB / torch.cuda.mem_get_info()[1] if bench.device == "cuda" else 2.0
        if share < 1.05:
            torch.cuda.set_per_process_memory_fraction(min(share, 1.0))
            row["measured"] = _largest_that_runs(bench)
        found.append(row)
    del held
    return found


def _largest_that_runs(bench: Bench) -> int:
    import torch

    largest = 0
    for size in (1, 2, 4, 8, 16, 32, 64):
        try:
            step(bench, bench.batch(size, packing=True), scorer("packed"), size, None)
        except torch.OutOfMemoryError:
            bench.model.zero_grad()
            torch.cuda.empty_cache()
            break
        largest = size
    return largest


def profile(bench: Bench, count: int) -> list[dict[str, Any]]:
    """The operations that take most of a packed step's time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    sequences, score = bench.batch(count, packing=True), scorer("packed")
    step(bench, sequences, score, count, None)
    on_gpu = bench.device == "cuda"
    with recorded(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as record:
        step(bench, sequences, score, count, None)

    def spent(event: Any) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    events = sorted(record.key_averages(), key=spent, reverse=True)
    whole = sum(map(spent, events))
    return [{"name": e.key, "calls": e.count, "share": spent(e) / whole} for e in events[:12]]
