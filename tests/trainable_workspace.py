"""A workspace that can be built and trained in: a tiny random LLaVA, small images, rollouts and revisions."""

import hashlib
import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny_llava
from PIL import Image

from opadpo.models.base import fetch_base, write_pin
from opadpo.models.loading import load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Revision, Rollout, SentenceReview, assemble
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.workspace import Workspace

SMALL = [
    "train.opa.lora.rank=4",
    "train.opa.lora.alpha=8",
    "train.opadpo.lora.rank=4",
    "train.opadpo.lora.alpha=8",
    "train.opa.epochs=1",
    "train.opa.batch_size=4",
    "train.opa.micro_batch_size=4",
    "train.opa.save_steps=2",
    "train.opadpo.max_steps=4",
    "train.opadpo.batch_size=4",
    "train.opadpo.micro_batch_size=4",
    "train.opadpo.save_steps=2",
    "train.opa.learning_rate=0.01",
    "train.opadpo.learning_rate=0.01",
]
NOUNS = ["dog", "table", "bird", "tree"]
PLACES = ["top left", "bottom right", "top right", "bottom left"]


def make(root: Path, base: Path, overrides: Sequence[str] = (), *, examples: int = 12) -> Workspace:
    """Prompts, rollouts and revisions of `examples` images; nothing is built yet."""
    workspace = Workspace.create(root, preset_text("toy"), [f"model.base={base}", *SMALL, *overrides])
    pin = fetch_base(workspace.recipe.model, SilentProgress(), offline=True)
    write_pin(workspace, pin)
    prompts = _prompts(workspace, examples)
    rollouts = _rollouts(workspace, pin.name, prompts)
    with ReviewStore.open(workspace.reviews_db) as store:
        store.append([revision(rollout, number) for number, rollout in enumerate(rollouts)])
    return workspace


def revision(rollout: Rollout, number: int = 0, **fields: Any) -> Revision:
    """The expert's: every fourth response stands, the others' first sentence is rewritten."""
    end = rollout.response.index(".") + 1
    first, rest = rollout.response[:end], rollout.response[end + 1 :]
    kept = number % 4 == 3
    sentences = [
        SentenceReview(
            index=0,
            kind="kept" if kept else "edited",
            start=0,
            end=end,
            original=first,
            revised=first if kept else "A tree stands at the top left.",
            score=4 if kept else 1 + number % 3,
            error_type="correct" if kept else "image_recognition_error",
        ),
        SentenceReview(
            index=1, kind="kept", start=end + 1, end=len(rollout.response), original=rest, revised=rest, score=4
        ),
    ]
    values = {"author_kind": "expert", "author": "made", **fields}
    text = assemble(rollout.response, sentences)
    return Revision.create(rollout_id=rollout.rollout_id, sentences=sentences, text=text, **values)


def _prompts(workspace: Workspace, count: int) -> list[Prompt]:
    made = []
    plan = plans.prompts(workspace)
    with workspace.writing(plan) as writer:
        for number in range(count):
            data = _picture(number)
            image_id = hashlib.sha256(data).hexdigest()
            path = Path("images") / image_id[:2] / f"{image_id}.png"
            (writer.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (writer.folder / path).write_bytes(data)
            made.append(
                Prompt.create(
                    image_id=image_id,
                    question="Describe the image.",
                    image_file=str(path),
                    reference=f"There is a {NOUNS[number % 4]} at the {PLACES[number % 3]}.",
                    source="made",
                    split="train",
                    subset="train-0",
                )
            )
        write_records(writer.folder / "prompts.parquet", made, Prompt)
        writer.finish({"train": count, "heldout": 0})
    return made


def _picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def _rollouts(workspace: Workspace, model: str, prompts: list[Prompt]) -> list[Rollout]:
    from opadpo.models.base import read_pin

    processing = load_processing(read_pin(workspace), workspace.recipe)
    chance = random.Random(5)
    made = []
    for prompt in prompts:
        text = (
            f"There is a {chance.choice(NOUNS)} at the {chance.choice(PLACES)}."
            f" A {chance.choice(NOUNS)} stands at the {chance.choice(PLACES)}."
        )
        ids = processing.family.encode_response(processing, text).input_ids
        made.append(
            Rollout.create(
                prompt_id=prompt.prompt_id,
                response=text,
                response_token_ids=[*ids, processing.tokenizer.eos_token_id],
                model=model,
                adapter="base",
                adapter_hash="",
                template="toy",
                image_aspect="pad",
                sampling=workspace.recipe.rollout.sampling,
                finish_reason="stop",
                sample_index=0,
                seed=1,
            )
        )
    with workspace.writing(plans.rollouts(workspace)) as writer:
        write_records(writer.folder / "part-00000.parquet", made, Rollout)
        writer.finish({"rollouts": len(made)})
    return made


def base(folder: Path) -> Path:
    """The tiny model."""
    return tiny_llava.save(folder)
