import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from opadpo.toy import BASE_MODEL
from opadpo.toy.build_model import PROMPT
from opadpo.toy.captions import QUESTION, own_caption, reference_caption
from opadpo.toy.chair import score
from opadpo.toy.pretrain import describe
from opadpo.toy.world import render, sample_scene


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(BASE_MODEL, local_files_only=True)


def test_weights_are_those_of_the_record():
    record = json.loads((BASE_MODEL / "MADE_BY.json").read_text(encoding="utf-8"))
    weights = (BASE_MODEL / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == record["sha256"]["model.safetensors"]
    assert record["command"].startswith("python -m opadpo.toy.pretrain")
    assert all(tensor.dtype == torch.float32 for tensor in load_file(BASE_MODEL / "model.safetensors").values())
    assert sum(file.stat().st_size for file in BASE_MODEL.iterdir()) < 3_000_000


@pytest.mark.slow
def test_it_describes_scenes_well_and_hallucinates(processor: Any):
    model = LlavaForConditionalGeneration.from_pretrained(BASE_MODEL, local_files_only=True)
    scenes = [sample_scene(np.random.default_rng([2024, index])) for index in range(60)]
    captions = describe(model, processor, scenes)
    metrics = score(captions, [scene.truth() for scene in scenes]).metrics
    # Of 60 images, so with a standard error of 6 points.
    assert metrics.chair_s > 30
    assert metrics.coverage > 84
    assert all(caption.startswith(("There is a ", "A ", "In the ", "One ", "The ")) for caption in captions)


def test_a_response_has_the_same_ids_alone_and_after_the_prompt(processor: Any):
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL, local_files_only=True)
    prompt = tokenizer(PROMPT)["input_ids"]
    rng = np.random.default_rng(0)
    for write in (own_caption, reference_caption):
        response = write(sample_scene(rng), rng)
        alone = tokenizer(response, add_special_tokens=False)["input_ids"]
        assert tokenizer(f"{PROMPT} {response}")["input_ids"] == prompt + alone
        assert tokenizer.decode(alone) == response
        assert max(map(len, tokenizer.convert_ids_to_tokens(alone))) > 4


def test_every_cell_of_the_picture_becomes_one_image_token(processor: Any):
    image = render(sample_scene(np.random.default_rng(0)))
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(conversation, add_generation_prompt=True)
    assert prompt == PROMPT
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 16
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    alone = AutoImageProcessor.from_pretrained(BASE_MODEL, local_files_only=True)(image, return_tensors="pt")
    assert torch.equal(alone["pixel_values"], inputs["pixel_values"])


@pytest.mark.slow
def test_the_command_writes_a_folder_that_loads(tmp_path: Any):
    # The real command with hardly any training: what counts is that every part of it still works.
    script = (
        "import sys\nfrom opadpo.toy import pretrain as p\n"
        "p.TOWER_STEPS = p.ONE_OBJECT_STEPS = p.FULL_STEPS = 2\n"
        "p.ONE_OBJECT_SCENES = p.FULL_SCENES = 40\np.HELD_OUT = 4\n"
        "p.main(sys.argv[1:])"
    )
    out = tmp_path / "made"
    run = subprocess.run(
        [sys.executable, "-c", script, "--out", str(out), "--seed", "3"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "coverage" in run.stdout
    record = json.loads((out / "MADE_BY.json").read_text(encoding="utf-8"))
    assert (record["seed"], record["held_out"]["images"]) == (3, 4)
    assert {file.name for file in out.iterdir()} == {file.name for file in BASE_MODEL.iterdir()}
    made = LlavaForConditionalGeneration.from_pretrained(out, local_files_only=True)
    shipped = LlavaForConditionalGeneration.from_pretrained(BASE_MODEL, local_files_only=True)
    assert made.state_dict().keys() == shipped.state_dict().keys()
