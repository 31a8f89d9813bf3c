"""A two-response DPO step on the same batch: ours, and that of TRL's `DPOTrainer`.

    python benchmarks/trl_step.py [--repeats 3] [--tiny]

Four examples with an image each and two responses of about 120 tokens; the model of `training_step.py`: 576 image
tokens, 8 layers, width 512, 32,000 tokens, float32, LoRA of rank 16. Both compute the reference in the step, from the
policy with its adapter switched off.

TRL gets its own processor, collator and trainer, without activation checkpointing and with `max_length=None`:

    trl          as it comes on a CPU: every position goes through the head
    trl-compact  as on a CUDA GPU: the positions of responses only
    opadpo       packed

First both must agree in every response's log-prob and in the loss. Then every measurement has a process of its own
with one thread, in turn: CPU seconds of the fastest step (log-probs, loss, gradients), and in one more process the peak
memory of one step, libraries and model included.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from training_step import FULL, STEPS, TINY, Size, fill_adapter, in_a_process, make_base, make_model, timed

WHO = ("trl", "trl-compact", "opadpo")
BATCH = 4
BETA = 0.1
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def processor(size: Size) -> Any:
    """A processor whose text is words `w4`, `w5`, ..., one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    special = ["<pad>", "<s>", "</s>", "<image>"]
    words = special + [f"w{number}" for number in range(len(special), size.vocabulary)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    side = {"height": size.side, "width": size.side}
    return LlavaProcessor(
        LlavaImageProcessorPil(size={"shortest_edge": size.side}, crop_size=side),
        fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def examples(size: Size) -> list[dict[str, Any]]:
    """Prompts, chosen and rejected responses, and noise as images."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)

    def words(length: int) -> str:
        return " ".join(f"w{number}" for number in chance.integers(4, size.vocabulary, length))

    lengths = chance.integers(max(2, size.responses[0] - 15), size.responses[0] + 16, (BATCH, 2))
    return [
        {
            "images": [Image.fromarray(chance.integers(0, 256, (size.side, size.side, 3), dtype=np.uint8))],
            "prompt": f"<s> <image> {words(size.prompt)}",
            "chosen": words(chosen),
            "rejected": words(rejected),
        }
        for chosen, rejected in lengths.tolist()
    ]


Step = Callable[[], float]


def trl_side(size: Size, *, compact: bool) -> tuple[Step, Callable[[], Any]]:
    """TRL's step, and its log-probs of every response: chosen ones, then rejected ones."""
    import torch
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    if compact:
        trl.trainer.utils._use_triton = lambda device: True  # pyright: ignore[reportPrivateImportUsage]
    kind, rows = processor(size), examples(size)
    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        beta=BETA,
        max_length=None,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        per_device_train_batch_size=BATCH,
    )
    trainer: Any = DPOTrainer(
        make_base(size),
        args=settings,
        train_dataset=Dataset.from_list([{**row, "images": []} for row in rows]),
        processing_class=kind,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=rf".*language_model.*\.({'|'.join(LAYERS)})"),
    )
    fill_adapter(trainer.model)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # as `train` sets it before the first step
    batch = DataCollatorForVisionPreference(kind)(rows)

    def step() -> float:
        loss = trainer.training_step(trainer.model, batch)
        _check_gradients(trainer.model)
        return float(loss)

    def logps() -> Any:
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        inputs = {key: value for key, value in batch.items() if key != "completion_mask"}
        with torch.no_grad():
            return trainer.model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(-1)

    return step, logps


def our_side(size: Size) -> tuple[Step, Callable[[], Any]]:
    """Our step, and our log-probs in TRL's order."""
    import torch

    from opadpo.models.families import family_for
    from opadpo.models.families.base import Processing
    from opadpo.recipe.loss import LossConfig
    from opadpo.training.logps import response_logps
    from opadpo.training.loss import Logps, Masks, Weights, opadpo_loss
    from opadpo.training.packing import PackedRow, pack_rows
    from opadpo.training.policy import computing_as

    kind, rows, model = processor(size), examples(size), make_model(size)
    encoded = [kind(images=row["images"], text=row["prompt"], return_tensors="pt") for row in rows]
    packed = [
        PackedRow(
            one["input_ids"][0].tolist(), [kind.tokenizer(row[side]).input_ids for side in ("chosen", "rejected")]
        )
        for one, row in zip(encoded, rows, strict=True)
    ]
    order = [(row, response) for response in (0, 1) for row in range(BATCH)]
    images = {"pixel_values": torch.cat([one["pixel_values"] for one in encoded])}
    processing = Processing(family_for("llava"), None, None, model.config, "", "native")
    batch = pack_rows(packed, order, images, processing=processing, pad_token_id=0)
    config = LossConfig(beta=BETA, reduction="sequence", standard_pair_coef=0, image_coef=0, anchor=None)
    chosen, rejected = batch.response_mask.chunk(2)
    masks = Masks(torch.zeros_like(chosen), chosen, rejected)
    weights = Weights(rejected.float(), chosen.float(), chosen.float())

    def pair(logps: Any) -> Logps:
        revised, generated = logps.chunk(2)
        return Logps(torch.zeros_like(revised), revised, generated)

    def step() -> float:
        ready = batch.prepared(model)
        with computing_as(model, None):
            reference = pair(response_logps(model, ready))
        loss = opadpo_loss(pair(response_logps(model, ready)), reference, weights, config, masks=masks).loss
        loss.backward()
        _check_gradients(model)
        return float(loss.detach())

    def logps() -> Any:
        with torch.no_grad():
            return response_logps(model, batch).sum(-1)

    return step, logps


def _check_gradients(model: Any) -> None:
    import torch

    if not all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad):
        raise ArithmeticError("a gradient is missing or not finite")
    model.zero_grad()


def side(who: str, size: Size) -> tuple[Step, Callable[[], Any]]:
    """One side's step and log-probs."""
    return our_side(size) if who == "opadpo" else trl_side(size, compact=who == "trl-compact")


def agreement(size: Size) -> tuple[float, float, float]:
    """Between the sides: largest difference of a response's log-prob per token, and of the loss; and our loss."""
    found = []
    for who in ("trl-compact", "opadpo"):
        step, logps = side(who, size)
        found.append((logps(), step()))
    (theirs, their_loss), (ours, our_loss) = found
    return float((theirs - ours).abs().max()) / max(size.responses), abs(their_loss - our_loss), our_loss


def table(found: dict[str, dict[str, float]]) -> str:
    """Seconds and memory of each, and how many times ours they are."""
    ours = found["opadpo"]
    lines = ["| step | seconds | times ours | peak GB | ours of it |", "|---|---|---|---|---|"]
    for who, result in found.items():
        lines.append(
            f"| {who} | {result['seconds']:.2f} | {result['seconds'] / ours['seconds']:.2f}"
            f" | {result['peak_gb']:.2f} | {ours['peak_gb'] / result['peak_gb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Compare, measure and print; 1 if the sides do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="times that each side is measured")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, in this process: shows that it runs")
    parser.add_argument("--one", choices=WHO, help="measure this in this process")
    parser.add_argument("--steps", type=int, default=STEPS, help="with --one: steps")
    options = parser.parse_args()
    size = TINY if options.tiny else FULL
    import torch

    torch.set_num_threads(1)
    if options.one:
        print(json.dumps(timed(side(options.one, size)[0], options.steps)))
        return 0
    logps, difference, loss = agreement(size)
    print(f"largest difference: {logps:.1e} in a log-prob per token, {difference:.1e} in the loss {loss:.6f}")
    if not (logps <= 1e-4 and difference <= 1e-4):
        print("TRL and opadpo do not compute the same", file=sys.stderr)
        return 1
    if options.tiny:
        print(table({who: timed(side(who, size)[0], options.steps) for who in WHO}))
        return 0
    found: dict[str, dict[str, float]] = {}
    for who in WHO * options.repeats:
        result = in_a_process(__file__, "--one", who, memory=False)
        print(f"{who} {result['seconds']:.2f} s, loss {result['loss']:.6f}", flush=True)
        if who not in found or result["seconds"] < found[who]["seconds"]:
            found[who] = result
    for who in WHO:
        found[who]["peak_gb"] = in_a_process(__file__, "--one", who, memory=True)["peak_gb"]
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
