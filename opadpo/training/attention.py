"""Attention of packed rows that lie one behind the other in a single sequence, without padding between them.

A prompt sees itself; then the row's responses, in one call, see the prompt and each itself. Nothing is computed
between rows, and of a row neither the prompt's sight of its responses (a dense mask computes and discards it) nor the
half above a prompt's diagonal. Every call is transformers' own sdpa. Of the last layer's outputs only those that
predict a response token are read: its feed-forward part computes no others.

Registered under `PACKED`, which is sdpa to every call that brings no layout.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

PACKED = "opadpo_packed"
"""Name of the attention function in transformers' registries."""

PROMPT = 0
"""Segment of the prompt; the responses of a row count from 1."""


class Row(NamedTuple):
    """One row of the sequence."""

    segments: Tensor
    """(length,): `PROMPT`, then 1, 2, ..."""
    places: Tensor
    """(length,): place of a position in its response's own sequence, prompt included."""
    image: Tensor | None
    """bool (length,): positions that see each other in both directions, whatever the layer."""
    prompt: int
    """Length of the prompt."""


class Layout:
    """What the attention of all layers needs to know of the sequence; masks are made once per kind of layer."""

    def __init__(self, rows: list[Row], needed: Tensor) -> None:
        """`rows` one after another fill the sequence; `needed` (positions,) are the places that are read at the end."""
        self.rows = rows
        self.needed = needed
        self.lengths = [len(row.segments) for row in rows]
        self._masks: dict[int | None, list[tuple[Tensor | None, Tensor]]] = {}

    def masks(self, window: int | None) -> list[tuple[Tensor | None, Tensor]]:
        """For each row the prompt's mask (None: causal) and that of its responses, bool (1, 1, queries, keys)."""
        if window not in self._masks:
            self._masks[window] = [_row_masks(row, window) for row in self.rows]
        return self._masks[window]


def _row_masks(row: Row, window: int | None) -> tuple[Tensor | None, Tensor]:
    seen = visible(row.segments, row.places, window)
    if row.image is not None:
        seen |= row.image.unsqueeze(1) & row.image.unsqueeze(0)
    causal = row.image is None and (window is None or window >= row.prompt)
    prompt = None if causal else seen[None, None, : row.prompt, : row.prompt]
    return prompt, seen[None, None, row.prompt :]


def visible(segments: Tensor, places: Tensor, window: int | None = None) -> Tensor:
    """Which keys each query of a row sees, bool (queries, keys): the prompt and its own response, up to itself.

    With a window only the last so many, counted in the response's own sequence.
    """
    query, key = segments.unsqueeze(1), segments.unsqueeze(0)
    seen = torch.ones(len(segments), len(segments), dtype=torch.bool, device=segments.device).tril_()
    seen &= (key == PROMPT) | (query == key)
    if window is not None:
        seen &= places.unsqueeze(1) - places.unsqueeze(0) < window
    return seen


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: sdpa, row by row where there is a layout.

    Args:
        module: the attention layer.
        query: (1, heads, length, head size).
        key: (1, key-value heads, length, head size).
        value: as `key`.
        attention_mask: what counts where there is no layout.
        layout: of the sequence.
        **options: scaling, dropout, sliding window, as transformers' functions take them.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    outputs: list[Tensor] = []
    # Splits rather than slices: their backward pass is one concatenation instead of a zero-filled copy for each piece.
    rows = zip(*(cast("Any", tensor).split(layout.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    for row, masks, (q, k, v) in zip(layout.rows, layout.masks(options.get("sliding_window")), rows, strict=True):
        parts = [row.prompt, len(row.segments) - row.prompt]
        (prompt_q, response_q), (prompt_k, _), (prompt_v, _) = (tensor.split(parts, dim=2) for tensor in (q, k, v))
        outputs.append(sdpa_attention_forward(module, prompt_q, prompt_k, prompt_v, masks[0], **options)[0])
        if parts[1]:
            outputs.append(sdpa_attention_forward(module, response_q, k, v, masks[1], **options)[0])
    return torch.cat(outputs, dim=1), None


def attend_by_layout(model: Any) -> None:
    """Let a loaded model's language model go by the layouts that its calls bring; other calls stay as they are."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED, attend_packed)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    model.config.get_text_config()._attn_implementation = PACKED
    _read_last(model.get_decoder().layers[-1])


class _Call:
    """The call that a layer is in."""

    layout: Layout | None = None


def _read_last(layer: Any) -> None:
    """Let the last layer's feed-forward part compute what is read of it, and give zeros elsewhere.

    The hooks stay, and are those of parts of the layer: a checkpointed layer's `forward` runs once more in the backward
    pass, without the hooks of the layer itself.
    """
    if hasattr(layer.mlp, "_call"):
        return
    layer.self_attn._call = layer.mlp._call = _Call()
    layer.self_attn.register_forward_pre_hook(_note_layout, with_kwargs=True)
    layer.mlp.register_forward_pre_hook(_take_what_is_read)
    layer.mlp.register_forward_hook(_fill_with_zeros)


def _note_layout(attention: Any, _: Any, options: dict[str, Any]) -> None:
    attention._call.layout = options.get("layout")


def _take_what_is_read(mlp: Any, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
    layout = mlp._call.layout
    return (inputs[0].index_select(1, layout.needed),) if layout else None


def _fill_with_zeros(mlp: Any, _: Any, output: Tensor) -> Tensor | None:
    layout = mlp._call.layout
    if not layout:
        return None
    everywhere = output.new_zeros(len(output), sum(layout.lengths), output.shape[2])
    return everywhere.index_copy(1, layout.needed, output)


def no_mask(text: Any, device: torch.device) -> Tensor | dict[str, Tensor]:
    """What to give as mask beside a layout: nothing that transformers would build one from, nor attend by.

    Its empty shape fits no query, so that a model that loses the layout on its way fails.
    """
    mask = torch.empty((1, 1, 0, 0), dtype=torch.bool, device=device)
    kinds = getattr(text, "layer_types", None)
    return dict.fromkeys(kinds, mask) if kinds and len(set(kinds)) > 1 else mask
