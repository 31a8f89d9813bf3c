"""Every family beside LLaVA-1.5, on tiny random models of its architecture: prompts, pixels, positions, adapters."""

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from torch import Tensor, nn

from opadpo.errors import ModelError, UserError
from opadpo.models.base import BasePin, fetch_base
from opadpo.models.families import family_for
from opadpo.models.families.base import Processing, PromptInputs
from opadpo.models.generation import generate
from opadpo.models.loading import load_model, load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.recipe.training import LoraSection
from opadpo.records import Sampling
from opadpo.training.collate import Collator, Visit
from opadpo.training.examples import Prompts, Response, TrainingExample
from opadpo.training.logps import Sequences, pad_sequences, response_logps
from opadpo.training.opadpo import image_mask
from opadpo.training.policy import fresh_adapter

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
QUESTIONS = ["What is in the picture?", "Describe the image.", "A?"]
SIZES = [(70, 45), (31, 52), (20, 110), (118, 119), (30, 30), (900, 3), (1, 300)]
"""Width and height: wide, high, narrow, large, square, and beyond what Qwen-VL's processor takes."""
CHATML = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>A?<|im_end|>\n<|im_start|>assistant\n"
HELPFUL = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
GOLDEN = {
    "llava_next": "<s>[INST] <image>\nA? [/INST]",
    "llava_onevision": "<|im_start|>user <image>\nA?<|im_end|><|im_start|>assistant\n",
    "qwen2_vl": HELPFUL + CHATML,
    "qwen2_5_vl": HELPFUL + CHATML,
    "qwen3_vl": CHATML,
    "gemma3": "<bos><start_of_turn>user\n\n\n<start_of_image><image_soft_token><end_of_image>\n\nA?<end_of_turn>\n"
    "<start_of_turn>model\n",
}
"""What the chat templates of llava-hf, Qwen and google make of one image and `A?`."""


class Loaded(NamedTuple):
    """A tiny model as the steps load it."""

    name: str
    pin: BasePin
    processing: Processing
    model: Any

    def prompts(self) -> list[PromptInputs]:
        """Images of different sizes with questions of different lengths."""
        return [self.processing.encode(q, noise(*SIZES[i], i)) for i, q in enumerate(QUESTIONS)]

    def batch(self, prompts: list[PromptInputs], responses: list[list[int]], side: str = "right") -> Sequences:
        """Sequences as the collator makes them."""
        family = self.processing.family
        images = family.collate_model_inputs([prompt.model_inputs for prompt in prompts])
        ids = [prompt.input_ids for prompt in prompts]
        batch = pad_sequences(ids, responses, images, pad_token_id=0, padding_side=side)
        batch.model_inputs.update(family.sequence_inputs(self.processing, batch.input_ids))
        return batch


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module", params=list(tiny_models.TINY))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tiny_models.save(request.param, tmp_path_factory.mktemp("families") / request.param)
    recipe = parse_recipe(f"model: {{base: {folder}, device: cpu}}\nimage: {{aspect: native}}")
    pin = fetch_base(recipe.model, SilentProgress())
    return Loaded(request.param, pin, load_processing(pin, recipe), load_model(pin, recipe))


def test_the_prompt_is_the_chat_template_s(loaded: Loaded):
    processing = loaded.processing
    prompt = processing.encode("A?", noise(70, 45))
    token, count = processing.family.image_token, prompt.input_ids.count(processing.family.image_token_id(processing))
    text = GOLDEN[loaded.name].replace(token, token * count)
    assert prompt.input_ids == processing.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompt.text_tokens == len(prompt.input_ids) - count


def test_a_question_is_plain_text_and_whole(loaded: Loaded):
    """It makes no special tokens, whatever it spells, and nothing is cut."""
    processing = loaded.processing
    family, tokenizer = processing.family, processing.tokenizer
    specials = tiny_models.TINY[loaded.name].specials
    question = f"{'dog '.join(specials)} {{question}} " + "bird and " * 800 + "tree?"
    ids = family.text_ids(processing, question)
    assert question in family.decode(processing, ids)
    plain = [i for i in ids if i in set(tokenizer.convert_tokens_to_ids(specials))]
    assert plain == [i for i in family.text_ids(processing, "A?") if i in plain]
    prompt = processing.encode(question, noise(70, 45))
    assert prompt.text_tokens == len(ids) - 1 > 1600


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_image_tokens_are_the_model_s_features(loaded: Loaded, size: tuple[int, int]):
    processing, model = loaded.processing, loaded.model
    prompt = processing.encode("A?", noise(*size))
    count = prompt.input_ids.count(processing.family.image_token_id(processing))
    images = processing.family.collate_model_inputs([prompt.model_inputs])
    with torch.inference_mode():
        features = model.get_image_features(**images).pooler_output
    assert count == sum(len(part) for part in features)
    assert count == library_s_count(processing, prompt.model_inputs, size)


def library_s_count(processing: Processing, inputs: dict[str, Tensor], size: tuple[int, int]) -> int:
    """From the arithmetic of transformers' own processors, made without what they want torchvision for."""
    from transformers import LlavaNextProcessor, LlavaOnevisionProcessor

    family, config = processing.family.name, processing.config
    if family in QWEN:
        rows, columns = (inputs["image_grid_thw"][axis] // processing.image_processor.merge_size for axis in (1, 2))
        return int(rows * columns)
    if family == "gemma3":
        return config.mm_tokens_per_image
    side = config.vision_config.image_size // config.vision_config.patch_size
    library: Any = object.__new__(LlavaNextProcessor if family == "llava_next" else LlavaOnevisionProcessor)
    library.image_processor = processing.image_processor
    library.patch_size, library.num_additional_image_tokens = config.vision_config.patch_size, 0
    library.num_image_tokens, library.vision_aspect_ratio = side * side, "anyres_max_9"
    return library._get_number_of_features(size[1], size[0], tiny_models.SIDE, tiny_models.SIDE)


@pytest.mark.slow
def test_every_key_of_the_image_processor_counts(loaded: Loaded):
    """They are passed on, the forward pass takes them, and pixels anywhere in the image change the answer."""
    processing, model = loaded.processing, loaded.model
    prompt = processing.encode("A?", noise(70, 45))
    made = set(processing.image_processor(noise(70, 45), return_tensors="pt"))
    assert set(prompt.model_inputs) == made - {"num_crops"}
    response = [[90, 80, 70]]
    batch = loaded.batch([prompt], response)
    pixels = processing.family.pixels(processing, prompt.model_inputs)
    with torch.inference_mode():
        base = response_logps(model, batch)
        for place in ((0, 0), (-1, -1)):
            other = pixels.clone()
            other[:, place[0], place[1]] += 3
            changed = processing.family.with_pixels(processing, prompt.model_inputs, other)
            moved = response_logps(model, loaded.batch([PromptInputs(prompt.input_ids, changed, 0)], response))
            assert (moved - base).abs().max() > 1e-4
        for key in batch.model_inputs.keys() - {"batch_num_images"}:
            less = batch._replace(model_inputs={k: v for k, v in batch.model_inputs.items() if k != key})
            with suppress(ValueError, TypeError, AttributeError):  # the model may stumble over its absence
                assert (response_logps(model, less) - base).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_are_scored_as_alone(loaded: Loaded, side: str):
    prompts, responses = loaded.prompts(), [[20, 30, 40, 50], [11], [99, 98, 97, 96, 95, 94, 93]]
    with torch.inference_mode():
        together = response_logps(loaded.model, loaded.batch(prompts, responses, side))
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            alone = response_logps(loaded.model, loaded.batch([prompt], [response]))[0]
            torch.testing.assert_close(together[row, : len(response)], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_collator_gives_the_model_all_it_takes(loaded: Loaded, tmp_path: Path):
    """Two visits, clean and masked; the clean rows score as the same sequences alone."""
    examples = []
    for row in range(2):
        noise(*SIZES[row], row).save(tmp_path / f"{row}.png")
        ids = np.arange(90, 93 + row, dtype=np.int32)
        response = Response(ids, np.ones(len(ids), np.float32), np.ones(len(ids), np.float32))
        path = tmp_path / f"{row}.png"
        examples.append(TrainingExample(str(row), QUESTIONS[row], path, 0, {"standard": response}))
    mask = image_mask(parse_recipe("").train.opadpo, loaded.processing)
    names, seed = ("standard", "standard_masked"), lambda *_: 4
    collator = Collator(examples, Prompts(loaded.processing), names, mask=mask, mask_seed=seed, padding_side="left")
    with torch.inference_mode():
        got = response_logps(loaded.model, collator([Visit(0, 0), Visit(1, 0)]).sequences)
        for row, (prompt, example) in enumerate(zip(loaded.prompts()[:2], examples, strict=True)):
            ids = example.responses["standard"].ids.tolist()
            alone = response_logps(loaded.model, loaded.batch([prompt], [ids]))[0]
            torch.testing.assert_close(got[row, : len(ids)], alone, rtol=0, atol=1e-5)
            assert (got[2 + row] - got[row]).abs().max() > 1e-4


def test_positions_are_the_model_s_own(loaded: Loaded):
    """Passed in, they give what the model makes of the prompt by itself; and they matter."""
    processing, model = loaded.processing, loaded.model
    batch = loaded.batch([loaded.prompts()[0]], [[20, 30, 40]])
    ids, mask = batch.input_ids, batch.attention_mask
    positions = processing.family.position_ids(model, ids, mask, batch.model_inputs)
    with torch.inference_mode():
        own = model(input_ids=ids, attention_mask=mask, **batch.model_inputs).logits
        given = model(input_ids=ids, attention_mask=mask, position_ids=positions, **batch.model_inputs).logits
        real = mask.bool()
        torch.testing.assert_close(given[real], own[real], rtol=0, atol=1e-5)
        assert positions.shape[-2:] == ids.shape
        assert (positions.dim() == 3) == (loaded.name in QWEN)
        if loaded.name in QWEN:
            flat = torch.arange(ids.shape[1])[None]
            wrong = model(input_ids=ids, attention_mask=mask, position_ids=flat, **batch.model_inputs).logits
            assert (wrong - own)[real][-1].abs().max() > 1e-3


@pytest.mark.slow
def test_greedy_is_the_library_s_greedy(loaded: Loaded):
    processing, model = loaded.processing, loaded.model
    family = processing.family
    prompts = [*loaded.prompts(), *(processing.encode("Describe it.", noise(*SIZES[3], i)) for i in (7, 8))]
    greedy = Sampling(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=16)
    got = generate(model, processing, [(prompt, 0) for prompt in prompts], greedy)
    for prompt, response in zip(prompts, got, strict=True):
        ids = torch.tensor([prompt.input_ids])
        inputs = family.collate_model_inputs([prompt.model_inputs]) | family.sequence_inputs(processing, ids)
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=family.stop_token_ids(processing),
            pad_token_id=0,
            suppress_tokens=[family.image_token_id(processing)],
            **inputs,
        )
        assert response.token_ids == whole[0, ids.shape[1] :].tolist()
    assert len({tuple(response.token_ids) for response in got}) > 1


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(loaded: Loaded, monkeypatch: pytest.MonkeyPatch):
    """Rows that end leave the batch: what the others see must not change. Here every eighth token ends a row."""
    monkeypatch.setattr(type(loaded.processing.family), "stop_token_ids", lambda *_: list(range(0, 320, 8)))
    sampling = Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=12)
    rows = [(prompt, seed) for seed, prompt in enumerate(2 * loaded.prompts())]
    together = generate(loaded.model, loaded.processing, rows, sampling)
    assert together == [generate(loaded.model, loaded.processing, [row], sampling)[0] for row in rows]
    assert len({len(response.token_ids) for response in together}) > 1
    image_token = loaded.processing.family.image_token_id(loaded.processing)
    assert all(image_token not in response.token_ids for response in together)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["language", "all"])
def test_lora_targets_are_exactly_the_linear_layers(loaded: Loaded, targets: Any):
    tiny = tiny_models.TINY[loaded.name]
    model = tiny_models.make_model(tiny, loaded.processing.tokenizer)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    wanted = {name for name in linear if targets == "all" or name.startswith("model.language_model.")}
    lora = LoraSection(rank=2, alpha=4, targets=targets)
    adapted: Any = fresh_adapter(model, loaded.pin, loaded.processing.family, lora, seed=0)
    hit = {name for name, module in adapted.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert hit == wanted
    assert len([name for name in hit if "language_model" in name]) == 14
    greedy = Sampling(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=3)
    rows = [(prompt, 0) for prompt in loaded.prompts()]  # a new adapter changes nothing
    assert generate(adapted, loaded.processing, rows, greedy) == generate(loaded.model, loaded.processing, rows, greedy)


@pytest.mark.parametrize("mode", ["pixels", "patches"])
def test_masking_means_the_same_everywhere(loaded: Loaded, mode: str):
    """30 % of the places of what the tower sees get its mean, in all channels; the layout stays the family's."""
    processing, family = loaded.processing, loaded.processing.family
    section = parse_recipe(f"train: {{opadpo: {{masking: {{mode: {mode}, ratio: 0.3}}}}}}").train.opadpo
    prompt = loaded.prompts()[0]
    pixels, mask = family.pixels(processing, prompt.model_inputs), image_mask(section, processing)
    same = family.with_pixels(processing, prompt.model_inputs, pixels)
    assert all(torch.equal(same[key], value) for key, value in prompt.model_inputs.items())
    inputs = mask(prompt.model_inputs, 5)
    masked = family.pixels(processing, inputs)
    places = (masked != pixels).any(0)
    assert torch.equal(masked[:, places], pixels.mean().expand(3, int(places.sum())))
    assert torch.equal(masked[:, ~places], pixels[:, ~places])
    patch = family.patch_size(processing)
    blocks = places.view(places.shape[0] // patch, patch, places.shape[1] // patch, patch).transpose(1, 2)
    whole = blocks.flatten(2).all(-1).sum()
    total = places.numel() if mode == "pixels" else places.numel() // patch**2
    assert (places.sum() if mode == "pixels" else whole) == int(0.3 * total)
    assert inputs["pixel_values"].shape == prompt.model_inputs["pixel_values"].shape
    if loaded.name in QWEN and mode == "patches":  # a patch is a row there
        assert (inputs["pixel_values"] == pixels.mean()).all(-1).sum() == whole
    with torch.inference_mode():
        rows = [prompt, PromptInputs(prompt.input_ids, inputs, 0)]
        clean, other = response_logps(loaded.model, loaded.batch(rows, [[90, 80], [90, 80]]))
    assert (clean - other).abs().max() > 1e-4


@pytest.mark.parametrize("wrong", ["image: {aspect: pad}", "image: {aspect: square}"])
def test_a_geometry_that_the_family_does_not_know_is_refused(loaded: Loaded, wrong: str):
    recipe = parse_recipe(wrong)
    with pytest.raises(UserError, match=r"image.aspect does not suit(.|\n)*set image.aspect to native"):
        load_processing(loaded.pin, recipe)
    stage = parse_recipe("image: {aspect: native}\ntrain: {opa: {image_aspect: square}}")
    with pytest.raises(UserError, match=r"train.opa.image_aspect does not suit"):
        load_processing(loaded.pin, stage)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llava_next", {"crop_size": {"height": 28, "width": 28}}, "tile size is not the model's"),
        ("llava_onevision", {"image_grid_pinpoints": [[30, 60]]}, "image_grid_pinpoints is not the model's"),
        ("qwen3_vl", {"patch_size": 14}, "patch_size is not the model's"),
        ("gemma3", {"size": {"height": 30, "width": 30}}, "size is not the model's"),
    ],
)
def test_an_image_processor_of_another_model_is_refused(tmp_path, name, change, message):
    folder = tiny_models.save(name, tmp_path / name)
    processor = tiny_models.TINY[name].processor()
    for key, value in change.items():
        setattr(processor, key, value)
    processor.save_pretrained(folder)
    recipe = parse_recipe(f"model: {{base: {folder}}}\nimage: {{aspect: native}}")
    with pytest.raises(ModelError, match=message):
        load_processing(fetch_base(recipe.model, SilentProgress()), recipe)


@pytest.mark.parametrize(
    ("text", "added", "template"),
    [
        ("mistral", [], "mistral_instruct"),
        ("llama", [], "llava_v1"),
        ("llama", ["<|im_start|>"], "chatml_direct"),
        ("llama", ["<|start_header_id|>"], None),
        ("qwen2", [], None),
    ],
)
def test_llava_next_s_template_follows_the_language_model(text, added, template):
    from transformers import AutoConfig, LlavaNextConfig

    tokenizer = tiny_models.make_tokenizer(tiny_models.TINY["llava_next"])
    tokenizer.add_tokens(added, special_tokens=True)
    config = LlavaNextConfig(text_config=AutoConfig.for_model(text), vision_config=None)
    family = family_for("llava_next")
    if template is None:
        with pytest.raises(UserError, match=r"set prompt.template to one of: chatml_direct, "):
            family.template_name("auto", tokenizer, config)
    else:
        assert family.template_name("auto", tokenizer, config) == template
