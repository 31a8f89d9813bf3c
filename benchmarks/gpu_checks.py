"""What must be right on a GPU, for `gpu_check.py`; a check that cannot be made here says why."""

from importlib.util import find_spec
from typing import Any

from gpu_parts import Bench, scorer

TOLERANCE = {"bfloat16": 0.1, "float32": 1e-4}
"""Of a token's log-prob between layouts."""


def checks(bench: Bench) -> list[dict[str, Any]]:
    """All of them."""
    return [*_layouts(bench), _eight_bit(bench), _four_bit(bench), *_image_processors(), _whole_processor()]


def _layouts(bench: Bench) -> list[dict[str, Any]]:
    import torch

    from opadpo.training.policy import REFERENCE, computing_as

    packed, plain, score = bench.batch(2, packing=True), bench.batch(2, packing=False), scorer("packed")
    with torch.no_grad(), bench.autocast():
        bench.model.eval()
        one, other = (score(bench.model, batch.prepared(bench.model)) for batch in (packed, plain))
        with computing_as(bench.model, REFERENCE):
            reference = score(bench.model, packed.prepared(bench.model))
        bench.model.train()
    difference = float((one - other).abs().max())
    ratio = float((one - reference).abs().max())
    return [
        {
            "name": "packed and plain log-probs, largest difference",
            "value": difference,
            "ok": difference < TOLERANCE[bench.dtype],
        },
        {"name": "log-ratio before the first update, largest", "value": ratio, "ok": ratio == 0.0},
    ]


def _eight_bit(bench: Bench) -> dict[str, Any]:
    name = "8-bit optimizer, one update"
    if why := _no_bitsandbytes(bench):
        return {"name": name, "skipped": why}
    import importlib

    trained = [p for p in bench.model.parameters() if p.requires_grad]
    optimizer = importlib.import_module("bitsandbytes").optim.AdamW8bit(trained, lr=1e-6)
    for parameter in trained:
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    bench.model.zero_grad()
    return {"name": name, "ok": all(bool(p.isfinite().all()) for p in trained)}


def _no_bitsandbytes(bench: Bench) -> str | None:
    """Why nothing can be quantized here."""
    if bench.device != "cuda":
        return "needs a CUDA GPU"
    return "bitsandbytes is not installed" if find_spec("bitsandbytes") is None else None


def _four_bit(bench: Bench) -> dict[str, Any]:
    """QLoRA: the toy model as a training loads it with `model.quantization: 4bit`; its step, packed and plain."""
    name = "QLoRA (4bit): packed and plain log-probs, largest difference"
    if why := _no_bitsandbytes(bench):
        return {"name": name, "skipped": why}
    return {"name": name, **qlora_step("4bit", "cuda", "bfloat16")}


def qlora_step(quantization: str, device: str, dtype: str) -> dict[str, Any]:
    """The largest difference between the layouts, and whether it is small and every gradient finite."""
    import json

    import torch

    from opadpo.models.base import fetch_base
    from opadpo.models.loading import load_model, load_processing
    from opadpo.progress import SilentProgress
    from opadpo.recipe import parse_recipe
    from opadpo.training.logps import pad_sequences
    from opadpo.training.packing import PackedRow, pack_rows
    from opadpo.training.policy import fresh_adapter

    settings = {"base": "toy", "device": device, "dtype": dtype, "quantization": quantization}
    recipe = parse_recipe(json.dumps({"model": settings, "prompt": {"template": "toy"}}))
    pin = fetch_base(recipe.model, SilentProgress(), offline=True)
    processing = load_processing(pin, recipe)
    family, lora = processing.family, recipe.train.opadpo.lora.model_copy(update={"rank": 8, "alpha": 16})
    model = fresh_adapter(load_model(pin, recipe, training=True), pin, family, lora, seed=0)
    prompt, responses = processing.encode("What is there?", _picture()), [[9, 10, 11, 12], [13, 14]]
    images = family.collate_model_inputs([prompt.model_inputs])
    packed = pack_rows(
        [PackedRow(prompt.input_ids, responses)], [(0, 0), (0, 1)], images, processing=processing, pad_token_id=0
    )
    twice = family.collate_model_inputs([prompt.model_inputs] * 2)
    plain = pad_sequences([prompt.input_ids] * 2, responses, twice, pad_token_id=0)
    place = (torch.device(device), getattr(torch, dtype))
    with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
        one, other = (batch.placed(*place).prepared(model).logps(model) for batch in (packed, plain))
    one.sum().backward()
    difference = float((one - other).abs().max().detach())
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    finite = all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    return {"value": difference, "ok": difference < TOLERANCE[dtype] and finite}


def _picture() -> Any:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)


def _image_processors() -> list[dict[str, Any]]:
    """The library's image processors, which need torchvision, against those without it that we use."""
    name = "image processor with torchvision and ours, largest difference of a value"
    if find_spec("torchvision") is None:
        return [{"name": name, "skipped": "torchvision is not installed"}]
    import transformers

    from opadpo.models.families import FAMILIES, family_for

    found = []
    for family in map(family_for, FAMILIES):
        ours = family.load_image_processor({})
        theirs = getattr(transformers, type(ours).__name__.removesuffix("Pil"))()
        pair = [processor(_picture(), return_tensors="pt") for processor in (ours, theirs)]
        found.append({"name": f"{family.name}: {name}", **_compared(*pair)})
    return found


def _compared(ours: Any, theirs: Any) -> dict[str, Any]:
    """Two dictionaries of tensors beside each other; 0.1 is less than the step of one brightness, resized."""
    if ours.keys() != theirs.keys() or any(ours[key].shape != theirs[key].shape for key in ours):
        shapes = [{key: tuple(value.shape) for key, value in batch.items()} for batch in (ours, theirs)]
        return {"seen": f"{shapes[0]} and {shapes[1]}", "ok": False}
    difference = max(float((ours[key].float() - theirs[key].float()).abs().max()) for key in ours)
    return {"value": difference, "ok": difference < 0.1}


def _whole_processor() -> dict[str, Any]:
    """`LlavaProcessor`, tokenizer and image processor in one, against what we compose: ids and pixels of a prompt."""
    name = "whole processor with torchvision and ours, largest difference of a value"
    if find_spec("torchvision") is None:
        return {"name": name, "skipped": "torchvision is not installed"}
    from transformers import LlavaImageProcessor

    return {"name": name, **whole_processor(LlavaImageProcessor)}


def whole_processor(image_processor: Any) -> dict[str, Any]:
    """The comparison, with this class of image processors inside the whole one."""
    import json
    from pathlib import Path

    import torch
    from transformers import LlavaProcessor

    from opadpo.models.base import fetch_base
    from opadpo.models.loading import load_processing
    from opadpo.progress import SilentProgress
    from opadpo.recipe import parse_recipe

    settings = {"model": {"base": "toy", "device": "cpu"}, "image": {"aspect": "native"}, "prompt": {"template": "toy"}}
    recipe = parse_recipe(json.dumps(settings))
    pin = fetch_base(recipe.model, SilentProgress(), offline=True)
    ours = load_processing(pin, recipe)
    tokenizer, config = ours.tokenizer, ours.config
    whole: Any = LlavaProcessor(
        image_processor.from_pretrained(Path(pin.path)),
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,  # CLIP's class token, which `default` leaves out again
    )
    text = ours.family.templates["toy"].format(bos=tokenizer.bos_token, question="What is there?")
    theirs = whole(images=_picture(), text=text, add_special_tokens=False, return_tensors="pt")
    prompt = ours.encode("What is there?", _picture())
    made = {key: value.unsqueeze(0) for key, value in prompt.model_inputs.items()}
    made["input_ids"] = torch.tensor([prompt.input_ids])
    return _compared(made, {key: theirs[key] for key in theirs if key != "attention_mask"})
