"""Packed rows score every response as a sequence of its own does, for every family; and each trap would be noticed."""

import itertools
import json
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny_llava
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from opadpo.errors import ModelError, UserError
from opadpo.models.base import BasePin
from opadpo.models.families import family_for
from opadpo.models.families.base import Processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.recipe.training import LoraSection
from opadpo.steps.train import train
from opadpo.training import packing
from opadpo.training.attention import PROMPT, Layout, attend_packed, visible
from opadpo.training.collate import Batch, Collator, Visit
from opadpo.training.examples import Prompts, Response, TrainingExample
from opadpo.training.head import chosen_logps
from opadpo.training.logps import Sequences, response_logps, token_logps
from opadpo.training.opadpo import image_mask
from opadpo.training.packing import PackedRow, PackedSequences, pack_rows, row_layout
from opadpo.training.policy import computing_as, fresh_adapter

FAMILIES = ["llava", *tiny_models.TINY]
NAMES = ("standard", "revised", "generated", "standard_masked", "revised_masked")
LENGTHS = [(5, 3, 7), (4, 9, 1), (0, 6, 2)]
"""Tokens of the three responses of each example; a standard response may be missing."""
SIZES = [(70, 45), (31, 52), (20, 110)]


class Loaded(NamedTuple):
    """A tiny model without its files, and examples for it."""

    name: str
    tokenizer: Any
    processing: Processing
    examples: list[TrainingExample]
    model: Any

    def adapted(self, targets: Any = "language", model: Any = None) -> Any:
        """The model with a random adapter, to be trained."""
        lora = LoraSection(rank=4, alpha=8, targets=targets)
        pin = BasePin(base="tiny", revision="", path="", digest="", family=self.name)
        adapted: Any = fresh_adapter(
            model or make_model(self.name, self.tokenizer), pin, self.processing.family, lora, 0
        )
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
        return adapted.train()

    def batch(self, packing: bool, side: str = "right", names: tuple[str, ...] = NAMES) -> Batch:
        """All examples as the collator puts them together."""
        mask = image_mask(parse_recipe("").train.opadpo, self.processing)
        collator = Collator(
            self.examples,
            Prompts(self.processing, "native"),
            names,
            mask=mask,
            mask_seed=lambda *_: 4,
            padding_side=side,
            packing=packing,
        )
        return collator([Visit(number, 0) for number in range(len(self.examples))])


def make_model(name: str, tokenizer: Any) -> Any:
    return (
        tiny_llava.make_model(tokenizer)
        if name == "llava"
        else tiny_models.make_model(tiny_models.TINY[name], tokenizer)
    )


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(request.param, tmp_path_factory.mktemp(request.param))


def load(name, folder) -> Loaded:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    if name == "llava":
        tokenizer = tiny_llava.make_tokenizer()
        side = {"height": tiny_llava.IMAGE_SIDE, "width": tiny_llava.IMAGE_SIDE}
        processor: Any = LlavaImageProcessorPil(size={"shortest_edge": tiny_llava.IMAGE_SIDE}, crop_size=side)
    else:
        tokenizer = tiny_models.make_tokenizer(tiny_models.TINY[name])
        processor = tiny_models.TINY[name].processor()
    model = make_model(name, tokenizer)
    family = family_for(name)
    template = family.template_name("auto", tokenizer, model.config)
    processing = Processing(family, tokenizer, processor, model.config, template, "native")
    draw = np.random.default_rng(0)
    examples = []
    for number, (size, lengths) in enumerate(zip(SIZES, LENGTHS, strict=True)):
        path = folder / f"{number}.png"
        Image.fromarray(draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        responses = {
            name: response(draw.integers(60, 300, length)) for name, length in zip(NAMES, lengths, strict=False)
        }
        question = ["What is in the picture?", "Describe the image.", "A?"][number]
        examples.append(TrainingExample(str(number), question, path, 0, responses))
    return Loaded(name, tokenizer, processing, examples, model)


def response(ids) -> Response:
    ones = np.ones(len(ids), np.float32)
    return Response(ids.astype(np.int32), ones, ones)


def scored(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and the gradients of some function of all of them."""
    dtype = next(model.parameters()).dtype
    batch = batch.placed(torch.device("cpu"), dtype)
    logps = response_logps(model, batch.sequences.prepared(model))
    chance = torch.Generator().manual_seed(1)
    (logps * torch.rand(logps.shape, generator=chance)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return logps.detach(), gradients


def assert_equal(one, other):
    """In float64, where rounding hides nothing; norms are computed in float32, which shows in their gradients."""
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-12)
    assert one[1].keys() == other[1].keys() != set()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], rtol=0, atol=1e-6 * float(gradient.abs().max()), msg=lambda text, n=name: n + text
        )


def test_packed_equals_plain(loaded: Loaded):
    model = loaded.adapted().double()
    plain = scored(model, loaded.batch(False))
    for side in ("right", "left"):
        assert_equal(plain, scored(model, loaded.batch(True, side)))
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert_equal(plain, scored(model, loaded.batch(True)))
    assert_equal(
        scored(model, loaded.batch(False, names=NAMES[:2])), scored(model, loaded.batch(True, names=NAMES[:2]))
    )


@pytest.mark.slow
def test_in_float32_packed_is_plain_up_to_rounding(loaded: Loaded):
    model = loaded.adapted()
    plain, packed = (scored(model, loaded.batch(packing)) for packing in (False, True))
    torch.testing.assert_close(plain[0], packed[0], rtol=0, atol=5e-6)
    for name, gradient in plain[1].items():
        assert (gradient - packed[1][name]).norm() <= 5e-6 * gradient.norm()


@pytest.mark.slow
def test_a_trained_tower_gets_its_gradients(loaded: Loaded):
    model = loaded.adapted("all").double()
    plain = scored(model, loaded.batch(False))
    batch = loaded.batch(True)
    assert prepared(model, batch).features is None
    assert_equal(plain, scored(model, batch))
    assert any("vision_tower" in name or "visual" in name for name in plain[1])


def prepared(model: Any, batch: Batch) -> PackedSequences:
    sequences = batch.placed(torch.device("cpu"), next(model.parameters()).dtype).sequences.prepared(model)
    assert isinstance(sequences, PackedSequences)
    return sequences


@pytest.mark.slow
def test_a_frozen_tower_sees_each_image_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch):
    """Policy and reference share features; clean and masked image of each example are all that there is."""
    model = loaded.adapted()
    inner = next(module for module in model.modules() if hasattr(module, "get_image_features"))
    seen = []
    whole = type(inner.model).get_image_features

    def counted(self, *arguments, **inputs):
        output = whole(self, *arguments, **inputs)
        seen.append(len(output.pooler_output))
        return output

    monkeypatch.setattr(type(inner.model), "get_image_features", counted)
    sequences = prepared(model, loaded.batch(True))
    policy = response_logps(model, sequences)
    with computing_as(model, None):
        reference = response_logps(model, sequences)
    assert seen == [2 * len(loaded.examples)]
    assert model.training
    monkeypatch.undo()
    with computing_as(model, None):
        wanted = response_logps(model, loaded.batch(False).sequences)
    torch.testing.assert_close(reference, wanted, rtol=0, atol=5e-6)
    assert (policy - reference).abs().max() > 1e-2


@pytest.mark.slow
def test_the_last_feed_forward_part_computes_what_is_read(loaded: Loaded):
    model = loaded.adapted()
    sequences = prepared(model, loaded.batch(True))
    *_, before, last = model.get_base_model().model.language_model.layers
    seen: list[tuple[int, int]] = []
    for layer in (before, last):
        layer.mlp.act_fn.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[:2])))
    response_logps(model, sequences)
    tokens, read = int((sequences.segments != packing.PADDING).sum()), int(sequences.needed.sum())
    assert seen == [(1, tokens), (1, read)]
    assert read < tokens / 2
    seen.clear()
    plain = loaded.batch(False).sequences
    assert isinstance(plain, Sequences)
    response_logps(model, plain)
    assert seen == [tuple(plain.input_ids.shape)] * 2


@pytest.mark.slow
def test_every_trap_would_be_noticed(loaded: Loaded):
    """Positions that go on, responses that see each other, and what a family has of its own: all move log-probs."""
    model = loaded.adapted()
    sequences = prepared(model, loaded.batch(True))
    assert sequences.positions is not None
    inside = sequences.segments != packing.PADDING
    flat = (inside.cumsum(-1) - 1).clamp(min=0)
    wrong: dict[str, Any] = {
        "positions": sequences._replace(positions=flat.expand_as(sequences.positions)),
        "segments": sequences._replace(segments=torch.where(sequences.segments > PROMPT, 1, sequences.segments)),
    }
    if sequences.positions.dim() == 3:
        wrong["axes"] = sequences._replace(positions=flat)
    with torch.no_grad():
        right = response_logps(model, sequences)
        for name, other in wrong.items():
            assert (response_logps(model, other) - right).abs().max() > 1e-2, name


def test_gemma_s_image_sees_itself_and_windows_count_in_a_response_s_own_sequence(tmp_path, monkeypatch):
    gemma = load("gemma3", tmp_path)
    model = gemma.adapted()
    sequences = prepared(model, gemma.batch(True))
    with torch.no_grad():
        right = response_logps(model, sequences)
        far = sequences._replace(offsets=torch.zeros_like(sequences.offsets))
        assert (response_logps(model, far) - right).abs().max() > 1e-2
        monkeypatch.setattr(type(sequences.family), "image_sees_itself", False)
        assert (response_logps(model, sequences) - right).abs().max() > 1e-2


@pytest.mark.slow
def test_a_window_over_all_layers(tmp_path):
    """As Mistral 7B v0.1, whose layers are all of one kind."""
    mistral = load("llava_next", tmp_path)
    tiny = tiny_models.TINY["llava_next"]
    plain = scored(mistral.adapted().double(), mistral.batch(False))

    def windowed(tokenizer):
        config = tiny.config(tokenizer)
        config.text_config.sliding_window = 12
        return config

    model = mistral.adapted(model=tiny_models.make_model(tiny._replace(config=windowed), mistral.tokenizer)).double()
    narrow = scored(model, mistral.batch(False))
    assert (narrow[0] - plain[0]).abs().max() > 1e-2
    assert_equal(narrow, scored(model, mistral.batch(True)))


def test_another_attention_kernel_is_refused(tmp_path):
    llava = load("llava", tmp_path)
    model = llava.adapted()
    model.get_base_model().set_attn_implementation("eager")
    with pytest.raises(UserError, match=r"model\.attention eager(.|\n)*set model\.attention to sdpa"):
        prepared(model, llava.batch(True))


segments = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 3)),
    min_size=1,
    max_size=3,
).map(
    lambda rows: [
        [-1] * left + [0] * prompt + [n + 1 for n, length in enumerate(responses) for _ in range(length)] + [-1] * right
        for left, prompt, responses, right in rows
    ]
)


def layout_of(rows: list[list[int]], processing: Processing) -> Layout:
    """Of rows of segments, padded."""
    length = max(map(len, rows))
    padded = torch.tensor([row + [-1] * (length - len(row)) for row in rows])
    offsets = torch.tensor([[row[:place].count(row[place]) for place in range(length)] for row in padded.tolist()])
    unread: dict[str, Any] = dict.fromkeys(("sources", "targets", "response_mask", "tokens"))
    batch = PackedSequences(
        input_ids=torch.zeros_like(padded),
        segments=padded,
        offsets=offsets,
        needed=padded > 0,
        **unread,
        image_inputs={},
        sequence_inputs={},
        family=processing.family,
        image_token=1,
    )
    return row_layout(batch)


@pytest.fixture(scope="module")
def llava_processing(tmp_path_factory: pytest.TempPathFactory) -> Processing:
    return load("llava", tmp_path_factory.mktemp("llava")).processing


@settings(max_examples=40)
@given(rows=segments, window=st.sampled_from([None, 2, 3, 50]))
def test_who_sees_whom(rows, window, llava_processing):
    layout = layout_of(rows, llava_processing)
    for belongs, (prompt_mask, response_mask) in zip(rows, layout.masks(window), strict=True):
        real = [segment for segment in belongs if segment >= 0]
        prompt = real.count(0)
        if prompt_mask is None:
            prompt_mask = torch.ones(prompt, prompt, dtype=torch.bool).tril()
        mask = [[*row, *[False] * (len(real) - prompt)] for row in prompt_mask.view(prompt, prompt).tolist()]
        mask += response_mask[0, 0].tolist()
        place = [n if s == 0 else prompt + real[:n].count(s) for n, s in enumerate(real)]
        for query, key in itertools.product(range(len(real)), repeat=2):
            sees = key <= query and real[key] in (0, real[query])
            near = window is None or place[query] - place[key] < window
            assert mask[query][key] == (sees and near)


@settings(max_examples=20, deadline=None)
@given(rows=segments, seed=st.integers(0, 9), groups=st.sampled_from([1, 2]))
def test_attention_of_a_layout_is_that_of_a_dense_mask(rows, seed, groups, llava_processing):
    layout = layout_of(rows, llava_processing)
    length, heads = sum(layout.lengths), 2
    chance = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, length, 4), *[(1, heads // groups, length, 4)] * 2]
    inputs = [torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes]
    dense = torch.block_diag(*[visible(row.segments, row.places).double() for row in layout.rows]).bool()
    module = torch.nn.Identity()
    module.num_key_value_groups = groups  # pyright: ignore[reportArgumentType]
    results = []
    ways: list[dict[str, Any]] = [
        {"layout": layout, "attention_mask": None},
        {"attention_mask": dense[None, None]},
    ]
    for options in ways:
        q, k, v = leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output, _ = attend_packed(module, q, k, v, **options, scaling=0.7)
        (output * torch.arange(output.numel()).view(output.shape)).sum().backward()
        results.append([output.detach(), *[leaf.grad for leaf in leaves]])
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_a_layout_that_is_lost_on_its_way_is_noticed(tmp_path, monkeypatch):
    llava = load("llava", tmp_path)
    model = llava.adapted()
    sequences = prepared(model, llava.batch(True))
    monkeypatch.setattr(packing, "row_layout", lambda _: None)
    with pytest.raises(RuntimeError, match="size"):
        response_logps(model, sequences)


def test_tensors_of_a_batch(tmp_path):
    processing = load("llava", tmp_path).processing
    rows = [PackedRow([1, 7], [[4, 5, 2], [6]]), PackedRow([1, 8, 9], [[], [5, 2]])]
    batch = pack_rows(rows, [(0, 0), (1, 0), (0, 1), (1, 1)], {}, processing=processing, pad_token_id=0)
    assert batch.input_ids.tolist() == [[1, 7, 4, 5, 2, 6], [1, 8, 9, 5, 2, 0]]
    assert batch.segments.tolist() == [[0, 0, 1, 1, 1, 2], [0, 0, 0, 2, 2, -1]]
    assert batch.offsets.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 0, 1, 0]]
    assert batch.needed.long().tolist() == [[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert batch.sources.tolist() == [0, 1, 2, 0, 3, 4]
    assert batch.targets.tolist() == [4, 5, 2, 6, 5, 2]
    assert batch.response_mask.long().tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert batch.tokens == 5 + 3 + 3 + 5
    left = pack_rows(rows, [(1, 1)], {}, processing=processing, pad_token_id=0, padding_side="left")
    assert left.input_ids.tolist() == [[1, 7, 4, 5, 2, 6], [0, 1, 8, 9, 5, 2]]
    assert left.segments.tolist() == [[0, 0, 1, 1, 1, 2], [-1, 0, 0, 0, 2, 2]]


@pytest.mark.parametrize("bias", [False, True])
def test_log_probs_without_logits(bias):
    """Chunks of any size, positions that several tokens are read from, and ones that none is."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(7, 31, bias=bias, dtype=torch.float64).requires_grad_(False)
    hidden = torch.randn(23, 7, generator=generator, dtype=torch.float64)
    sources = torch.randint(0, 23, (40,), generator=generator)
    targets = torch.randint(0, 31, (40,), generator=generator)
    results = []
    for score in (
        lambda leaf: token_logps(head(leaf)[sources], targets),
        lambda leaf: chosen_logps(leaf, head, sources, targets),
        lambda leaf: chosen_logps(leaf, head, sources, targets, chunk=5 * 31),
        lambda leaf: chosen_logps(leaf, head, sources, targets, chunk=1),
    ):
        leaf = hidden.clone().requires_grad_()
        values = score(leaf)
        (values * torch.arange(40)).sum().backward()
        results.append((values.detach(), leaf.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], atol=1e-12, rtol=0)


def test_log_probs_in_half_precision_are_float32():
    head = torch.nn.Linear(16, 1000, bias=False).bfloat16().requires_grad_(False)
    hidden = torch.randn(5, 16).bfloat16().requires_grad_()
    values = chosen_logps(hidden, head, torch.arange(5), torch.arange(5))
    assert values.dtype == torch.float32
    wanted = (hidden.float() @ head.weight.float().T).log_softmax(-1)[range(5), range(5)]
    torch.testing.assert_close(values, wanted, atol=5e-3, rtol=0)
    gradients = [torch.autograd.grad(v.sum(), hidden, retain_graph=True)[0] for v in (values, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-2, rtol=1e-2)


def test_a_head_that_is_trained_is_refused(tmp_path):
    llava = load("llava", tmp_path)
    model = llava.adapted()
    model.get_output_embeddings().requires_grad_(True)
    with pytest.raises(ModelError, match=r"frozen linear head(.|\n)*trained"):
        prepared(model, llava.batch(True))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["opa", "opadpo"])
def test_training_packed_gives_the_adapter_of_training_plain(trainable, stage):
    """Adam divides by tiny second moments: rounding of a few 1e-7 in gradients grows to the tolerance."""
    ends = []
    for switch in ("true", "false"):
        workspace = trainable.open(
            f"train.{stage}.packing={switch}", f"train.{stage}.max_steps=2", f"train.{stage}.learning_rate=1e-3"
        )
        train(workspace, stage, name=f"{stage}-packing-{switch}", progress=SilentProgress())
        run = workspace.run(f"{stage}-packing-{switch}")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        ends.append((load_file(workspace.adapter(run.name) / "adapter_model.safetensors"), [x["loss"] for x in lines]))
    assert ends[0][1] == pytest.approx(ends[1][1], abs=1e-5)
    for name, value in ends[0][0].items():
        torch.testing.assert_close(value, ends[1][0][name], rtol=0, atol=1e-4, msg=lambda text, n=name: f"{n} {text}")


def test_packed_training_refuses_another_kernel_before_weights_load(trainable, monkeypatch):
    monkeypatch.setattr("opadpo.training.run.load_model", None)
    workspace = trainable.open("model.attention=eager")
    with pytest.raises(UserError, match=r"model\.attention eager(.|\n)*`packing` of the stage"):
        train(workspace, "opa", name="eager", progress=SilentProgress())
