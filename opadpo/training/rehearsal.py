"""A training step on tensors without memory: how many bytes it would hold at its peak.

The model's own code runs on the shapes of a batch, forward and backward, with torch's fake tensors: nothing is
computed and nothing is allocated, but every tensor has its size and is let go when the real one would be. So whatever
a family's layers, LoRA, autocast and checkpointing keep for the backward pass is counted, not guessed.

Only a few layers run: all layers of a language model hold the same, so two depths give the rest.
"""

import copy
import json
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from opadpo.models.base import BasePin
from opadpo.models.families import family_for
from opadpo.recipe.training import LoraSection
from opadpo.training.attention import Layout, Row, attend_by_layout, no_mask
from opadpo.training.head import chosen_logps
from opadpo.training.logps import padded_length, token_logps
from opadpo.training.policy import fresh_adapter

DEPTHS = (2, 3)
"""Layers of the two runs; the first layer alone would not do: no gradient goes on below it."""


class BatchShape(NamedTuple):
    """What memory depends on in a micro-batch."""

    rows: tuple[tuple[int, tuple[int, ...]], ...]
    """Tokens of a row's prompt, and of its responses: one of them in each row where the responses are not packed."""


class Kind(NamedTuple):
    """What memory depends on beside the batch. Hashable, so that nothing is rehearsed twice in a process."""

    config: str
    """The model's config as JSON."""
    family: str
    """Its `model_type`."""
    rank: int
    """Of the adapter on the language model."""
    dtype: str
    """Data type of the base's weights."""
    precision: str
    """Data type of the computation."""
    checkpointing: bool
    """Whether activations are recomputed in the backward pass."""
    attention: str
    """Attention kernel."""
    packed: bool
    """Whether the responses share their prompt."""


class Held(NamedTuple):
    """Bytes that a step holds at its peak beside weights, gradients and optimizer."""

    fixed: float
    """Whatever the depth: mask, embeddings, logits and what is computed from them."""
    layer: float
    """For each layer of the language model."""

    def at(self, layers: int) -> float:
        """Bytes with this many layers."""
        return self.fixed + layers * self.layer


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still alive."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        """`known` tensors count nothing, nor do views of them."""
        super().__init__()
        self.now = 0
        self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what comes out."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += self._sizes[key]
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


@lru_cache(maxsize=64)
def rehearse(kind: Kind, shape: BatchShape) -> Held:
    """Peak bytes of a training step on a batch of this shape; a second or two, whatever the model's size.

    Gradients of the adapter are taken to exist before the step, as where several micro-batches make an update.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = _shallow(kind)
    peaks: dict[int, int] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        language = model.get_base_model().model.language_model
        for depth in reversed(DEPTHS):
            language.layers = language.layers[:depth]
            peaks[depth] = _peak(model, kind, shape)
    shallow, deep = DEPTHS
    layer = (peaks[deep] - peaks[shallow]) / (deep - shallow)
    return Held(peaks[shallow] - shallow * layer, layer)


def _shallow(kind: Kind) -> Any:
    """The adapted model with a few layers, on the meta device."""
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

    config = copy.deepcopy(CONFIG_MAPPING[kind.family].from_dict(json.loads(kind.config)))
    text = config.get_text_config()
    text.num_hidden_layers = max(DEPTHS)
    if getattr(text, "layer_types", None):
        text.layer_types = (text.layer_types * max(DEPTHS))[: max(DEPTHS)]
    # FlashAttention runs on no tensor without memory; sdpa holds as much.
    kernel = "sdpa" if kind.attention == "flash_attention_2" else kind.attention
    pin = BasePin(base="", revision="", path="", digest="", family=kind.family)
    lora = LoraSection(rank=kind.rank, alpha=1)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, kind.dtype), attn_implementation=kernel
        ).requires_grad_(False)
        model.config.use_cache = False
        adapted: Any = fresh_adapter(model, pin, family_for(kind.family), lora, seed=0)
    if kind.checkpointing:
        adapted.activation_checkpointing_enable({"use_reentrant": False})
    return adapted.train()


def _peak(model: Any, kind: Kind, shape: BatchShape) -> int:
    """Bytes at the peak of one step."""
    base = model.get_base_model()
    half = kind.precision != "float32"
    autocast = torch.autocast("cpu", getattr(torch, kind.precision)) if half else nullcontext()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    with LiveBytes([*model.parameters(), *model.buffers(), *gradients]) as live:
        logps = (_packed if kind.packed else _plain)(base, kind, shape, autocast)
        logps.sum().backward()
    return live.peak


def _packed(base: Any, kind: Kind, shape: BatchShape, autocast: Any) -> Tensor:
    """Log-probs as `packing.PackedSequences` computes them."""
    text = base.config.get_text_config()
    attend_by_layout(base)
    rows: list[Row] = []
    for prompt, responses in shape.rows:
        length = prompt + sum(responses)
        image = torch.ones(length, dtype=torch.bool) if family_for(kind.family).image_sees_itself else None
        rows.append(Row(torch.zeros(length, dtype=torch.long), torch.zeros(length, dtype=torch.long), image, prompt))
    tokens = sum(sum(responses) for _, responses in shape.rows)
    shared = sum(len(responses) - 1 for _, responses in shape.rows)  # one position predicts all first tokens
    with autocast:
        hidden = base.model.language_model(
            inputs_embeds=_embedded(kind, text, 1, sum(len(row.segments) for row in rows)),
            attention_mask=no_mask(text, torch.device("cpu")),
            layout=Layout(rows, torch.zeros(tokens - shared, dtype=torch.long)),
            position_ids=_positions(base, 1, sum(len(row.segments) for row in rows)),
            use_cache=False,
        ).last_hidden_state
        needed = hidden.flatten(0, 1)[torch.zeros(tokens - shared, dtype=torch.long)]
        del hidden
        chosen = torch.zeros(tokens, dtype=torch.long)
        return chosen_logps(needed, base.lm_head, chosen, chosen)


def _plain(base: Any, kind: Kind, shape: BatchShape, autocast: Any) -> Tensor:
    """Log-probs as `logps.Sequences` computes them."""
    text = base.config.get_text_config()
    rows, length = len(shape.rows), padded_length([prompt + sum(responses) for prompt, responses in shape.rows])
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool)
    kinds = getattr(text, "layer_types", None)
    tokens = sum(sum(responses) for _, responses in shape.rows)
    with autocast:
        hidden = base.model.language_model(
            inputs_embeds=_embedded(kind, text, rows, length),
            attention_mask=dict.fromkeys(kinds, mask) if kinds and len(set(kinds)) > 1 else mask,
            position_ids=_positions(base, rows, length),
            use_cache=False,
        ).last_hidden_state
        logits = base.lm_head(hidden.flatten(0, 1)[torch.zeros(tokens, dtype=torch.long)])
        del hidden
    if kind.precision != "float32":
        logits = logits.float()  # as accelerate does with what a model returns under mixed precision
    return token_logps(logits, torch.zeros(tokens, dtype=torch.long))


def _embedded(kind: Kind, text: Any, rows: int, length: int) -> Tensor:
    return torch.empty(rows, length, text.hidden_size, dtype=getattr(torch, kind.dtype))


def _positions(base: nn.Module, rows: int, length: int) -> Tensor:
    axes = (3,) if any(hasattr(module, "get_rope_index") for module in base.modules()) else ()
    return torch.zeros(*axes, rows, length, dtype=torch.long)
