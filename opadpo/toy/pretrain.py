"""Make the tiny base model: `python -m opadpo.toy.pretrain --out DIR --seed N` (a few minutes on two cores).

Writes an ordinary Hugging Face folder: a real `LlavaForConditionalGeneration` of about 0.65 million
parameters with its tokenizer and processor, and `MADE_BY.json` with the command, versions, metrics and the
checksum of the weights. The language prior of `opadpo.toy.captions` is in the captions that it learns from,
so it hallucinates by design.
"""

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from opadpo.toy import chair
from opadpo.toy.build_model import PROMPT, WIDTH, build_model, build_processor, build_tokenizer
from opadpo.toy.captions import own_caption, reference_caption
from opadpo.toy.world import GRID, NOUNS, Scene, render, sample_scene

REFERENCE_SHARE = 0.03
"""Share of captions in the references' style, with the same prior: else light tuning flips the style of
everything."""
TOWER_STEPS, TOWER_BATCH = 200, 64
ONE_OBJECT_SCENES, ONE_OBJECT_STEPS = 3000, 300
FULL_SCENES, FULL_STEPS = 16000, 1200
BATCH = 32
LEARNING_RATE = 2e-3
HELD_OUT = 300
PATCHES = GRID**2
"""Cells, patches and image tokens are one and the same."""

Caption = Callable[[Scene, np.random.Generator], str]


def train(seed: int, out: Path, *, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Train the base model with one seed and save it under `out`; returns its held-out CHAIR metrics."""
    started = time.monotonic()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    corpus = [caption_full(sample_scene(rng), rng) for _ in range(1600)]
    tokenizer = build_tokenizer(corpus)
    processor = build_processor(tokenizer)
    model = build_model(tokenizer)
    train_tower(model, processor, rng, log)
    stages = (
        (ONE_OBJECT_SCENES, ONE_OBJECT_STEPS, 1, 1, caption_plain),
        (FULL_SCENES, FULL_STEPS, 2, 4, caption_full),
    )
    for scenes, steps, fewest, most, caption in stages:
        pool = [sample_scene(rng, fewest=fewest, most=most) for _ in range(scenes)]
        train_language(model, processor, pool, steps, caption, rng, log)
    save(model, processor, out)
    held_out = [sample_scene(np.random.default_rng([seed, 1, index])) for index in range(HELD_OUT)]
    metrics = chair.score(describe(model, processor, held_out), [scene.truth() for scene in held_out]).metrics
    log(f"{metrics.model_dump()} after {time.monotonic() - started:.0f} s")
    return metrics.model_dump()


def caption_plain(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption of a one-object scene, to learn to see before learning to talk."""
    return own_caption(scene, rng, bias=False, drop=0.0)


def caption_full(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of the pre-training mixture: the language prior in both styles, mostly the own one."""
    return (reference_caption if rng.random() < REFERENCE_SHARE else own_caption)(scene, rng, bias=True, drop=0.08)


def pixels_of(processor: Any, scenes: Sequence[Scene]) -> Tensor:
    """Rendered scenes as the model sees them: (scenes, 3, 64, 64) float32."""
    images = [render(scene) for scene in scenes]
    return processor.image_processor(images, return_tensors="pt")["pixel_values"]


def tower_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """The patch features that the projector gets: (images, 16, width)."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


def train_tower(
    model: LlavaForConditionalGeneration, processor: Any, rng: np.random.Generator, log: Callable[[str], None]
) -> None:
    """Train the vision tower to say what is in every patch and where the patch lies, then freeze it."""
    what, where = nn.Linear(WIDTH, len(NOUNS) + 1), nn.Linear(WIDTH, PATCHES)
    parameters = [*model.model.vision_tower.parameters(), *what.parameters(), *where.parameters()]
    # Most patches are empty: weigh them down, else "nothing" is learnt first and for long.
    weight = torch.tensor([0.2] + [1.0] * len(NOUNS))
    cells = torch.arange(PATCHES).repeat(TOWER_BATCH)
    for step in optimise(parameters, TOWER_STEPS, LEARNING_RATE):
        scenes = [sample_scene(rng) for _ in range(TOWER_BATCH)]
        target = torch.zeros(TOWER_BATCH, PATCHES, dtype=torch.long)
        for row, scene in enumerate(scenes):
            for thing in scene.objects:
                target[row, thing.cell] = 1 + NOUNS.index(thing.noun)
        features = tower_features(model, pixels_of(processor, scenes))
        logits = what(features)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), weight=weight)
        # Without this the tower throws positions away, and the language model is slow to learn the quadrants.
        (loss + 0.2 * nn.functional.cross_entropy(where(features).flatten(0, 1), cells)).backward()
        if step % 50 == 49:
            seen = logits.argmax(-1)[target > 0].eq(target[target > 0]).float().mean()
            log(f"tower {step + 1}: loss {loss.item():.3f}, objects recognised {100 * seen:.1f} %")
    model.model.vision_tower.requires_grad_(False)


def train_language(
    model: LlavaForConditionalGeneration,
    processor: Any,
    scenes: Sequence[Scene],
    steps: int,
    caption: Caption,
    rng: np.random.Generator,
    log: Callable[[str], None],
) -> None:
    """Teach projector and language model to caption `scenes`, with captions sampled anew at every step."""
    features = features_of(model, processor, scenes)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses: list[float] = []
    for step in optimise(trained, steps, LEARNING_RATE):
        picked = rng.integers(len(scenes), size=BATCH)
        texts = [f"{PROMPT} {caption(scenes[index], rng)}{processor.tokenizer.eos_token}" for index in picked]
        batch = encode(processor, texts)
        loss = model(**batch, mm_encoder_outputs={"image": project(model, features[picked])}).loss
        loss.backward()
        losses.append(loss.item())
        if step % 100 == 99:
            log(f"captions {step + 1}/{steps}: loss {np.mean(losses[-50:]):.3f}")


@torch.no_grad()
def features_of(model: LlavaForConditionalGeneration, processor: Any, scenes: Sequence[Scene]) -> Tensor:
    """Features of the frozen tower, computed once: (scenes, 16, width)."""
    chunks = [scenes[start : start + 500] for start in range(0, len(scenes), 500)]
    return torch.cat([tower_features(model, pixels_of(processor, chunk)) for chunk in chunks])


def project(model: LlavaForConditionalGeneration, features: Tensor) -> BaseModelOutputWithPooling:
    """Tower features in the form in which the model takes image features that were computed before."""
    return BaseModelOutputWithPooling(pooler_output=list(model.model.multi_modal_projector(features)))  # pyright: ignore[reportArgumentType]


def encode(processor: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    """Token ids of prompt and response, right-padded, with labels on the response only."""
    image = processor.image_token
    expanded = [text.replace(image, image * PATCHES) for text in texts]
    batch = processor.tokenizer(expanded, return_tensors="pt", padding=True, padding_side="right")
    prompt_length = len(processor.tokenizer(PROMPT.replace(image, image * PATCHES))["input_ids"])
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :prompt_length] = -100
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def optimise(parameters: Sequence[nn.Parameter], steps: int, learning_rate: float) -> Iterator[int]:
    """Count steps; after the body of each, take an AdamW step with clipping and a cosine schedule."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    warm_up = max(1, steps // 20)
    for step in range(steps):
        rate = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rate
        yield step
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def describe(model: Any, processor: Any, scenes: Sequence[Scene], batch: int = 100) -> list[str]:
    """Greedy captions of scenes."""
    texts: list[str] = []
    for start in range(0, len(scenes), batch):
        images = [render(scene) for scene in scenes[start : start + batch]]
        inputs = processor(images=images, text=[PROMPT] * len(images), return_tensors="pt", padding=True)
        output = model.generate(**inputs, max_new_tokens=96, do_sample=False)
        tokens = output[:, inputs["input_ids"].shape[1] :]
        texts += processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def save(model: LlavaForConditionalGeneration, processor: Any, out: Path) -> None:
    """Write an ordinary model folder."""
    out.mkdir(parents=True, exist_ok=True)
    model.requires_grad_(True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    processor.image_processor.save_pretrained(out)
    # The hub's library writes weights readable by their owner alone; package data must be readable by all.
    (out / "model.safetensors").chmod(0o644)


def made_by(seed: int, out: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Where the weights come from: enough to make them again, and to notice that they were changed."""
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    packages = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")
    return {
        "command": f"python -m opadpo.toy.pretrain --out DIR --seed {seed} --threads {torch.get_num_threads()}",
        "seed": seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "sha256": {"model.safetensors": digest},
        "held_out": {"images": HELD_OUT, **{name: round(value, 2) for name, value in metrics.items()}},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train, and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m opadpo.toy.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, initial weights and order")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (sums depend on them in the last digit)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    metrics = train(options.seed, options.out, log=lambda line: print(line, flush=True))
    record = made_by(options.seed, options.out, metrics)
    (options.out / "MADE_BY.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
