"""Log-probs of responses that share their prompt: one row [image + prompt | response 1 | response 2 | ...].

Every response sees the prompt and itself, its positions go on where the prompt ends, and its first token is predicted
from the prompt's last position: what it scores is what it scores in a sequence of its own, and image and prompt are
computed once. Prior art for text: prefix sharing (arXiv 2410.20305).

The model sees all rows as one sequence without padding; `attention` keeps them apart, and `head` reads log-probs off
without making logits. Only sdpa attention can do it. (Eager attention adds a bool mask to the scores as if it were
numbers, FlashAttention-2 takes none; neither says so.)
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from opadpo.errors import UserError
from opadpo.training.attention import PACKED, PROMPT, Layout, Row, attend_by_layout, no_mask
from opadpo.training.head import frozen_head, scoring
from opadpo.training.logps import spread
from opadpo.training.sharding import forward_method

if TYPE_CHECKING:
    from opadpo.models.families.base import Family, Processing

PADDING = -1
"""Segment of what fills a row up; see `PROMPT`."""


class PackedRow(NamedTuple):
    """A prompt and the responses to it that are scored."""

    prompt: Sequence[int]
    responses: Sequence[Sequence[int]]


class PackedSequences(NamedTuple):
    """A batch of packed rows. Its log-probs are laid out as those of `Sequences`: one response per row."""

    input_ids: Tensor
    """(rows, length): prompt, responses, padding on either side."""
    segments: Tensor
    """(rows, length): what a position belongs to: `PROMPT`, response 1, 2, ..., or `PADDING`."""
    offsets: Tensor
    """(rows, length): place of a position in its segment."""
    needed: Tensor
    """bool (rows, length): positions whose logits predict some response token."""
    sources: Tensor
    """(response tokens,): which of the needed positions predicts each token, response after response."""
    targets: Tensor
    """(response tokens,): the tokens."""
    response_mask: Tensor
    """bool (responses, longest response): where the responses have tokens."""
    tokens: int
    """Tokens of all sequences with the prompt counted for every response, as `Sequences.tokens`."""
    image_inputs: dict[str, Tensor]
    """What the image processor gives, one image per row, batched."""
    sequence_inputs: dict[str, Tensor]
    """What else the model takes for each position: token types."""
    family: "Family"
    """Knows positions and attention."""
    image_token: int
    """Id that fills an image's positions."""
    positions: Tensor | None = None
    """(rows, length) or (axes, rows, length); from `prepared`."""
    features: Any = None
    """The frozen tower's output for the images; None where the tower is trained."""

    def placed(self, device: torch.device, dtype: torch.dtype) -> "PackedSequences":
        """The batch on a device, pixels in the model's data type."""
        fields = {name: value.to(device) for name, value in self._asdict().items() if isinstance(value, Tensor)}
        images = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in self.image_inputs.items()
        }
        others = {name: value.to(device) for name, value in self.sequence_inputs.items()}
        return self._replace(**fields, image_inputs=images, sequence_inputs=others)

    def prepared(self, model: nn.Module) -> "PackedSequences":
        """The batch with all that policy and reference share: positions, and features where the tower is frozen.

        A frozen tower may carry a frozen adapter, as long as policy and reference carry the same one; it is computed
        in eval mode, without dropout.

        Raises:
            UserError: if the attention kernel cannot do it.
        """
        inner = _model_with_images(model)
        text = inner.config.get_text_config()
        check_attention(text._attn_implementation)
        attend_by_layout(inner)
        frozen_head(inner)
        positions = restarted_positions(self, model)
        features = None if trains_tower(model) else image_features(model, self.image_inputs)
        return self._replace(positions=positions, features=features)

    def logps(self, model: nn.Module) -> Tensor:
        """Log-prob of every response token, float32 (responses, longest response); 0 at padding.

        The model sees all rows as one sequence without padding.
        """
        batch = self if self.positions is not None else self.prepared(model)
        inner = _model_with_images(model)
        images: dict[str, Any] = dict(batch.image_inputs)
        if batch.features is not None:
            del images["pixel_values"]
            images["mm_encoder_outputs"] = {"image": batch.features}
        inside = batch.segments != PADDING
        with scoring(frozen_head(inner), batch.sources, batch.targets):
            output: Any = model(
                input_ids=batch.input_ids[inside].unsqueeze(0),
                attention_mask=no_mask(inner.config.get_text_config(), inside.device),
                layout=row_layout(batch),
                position_ids=cast("Tensor", batch.positions)[..., inside].unsqueeze(-2),
                logits_to_keep=batch.needed[inside].unsqueeze(0),
                use_cache=False,
                **images,
                **{name: value[inside].unsqueeze(0) for name, value in batch.sequence_inputs.items()},
            )
        return spread(output.logits, batch.response_mask)


def pack_rows(
    rows: Sequence[PackedRow],
    order: Sequence[tuple[int, int]],
    image_inputs: dict[str, Tensor],
    *,
    processing: "Processing",
    pad_token_id: int,
    padding_side: str = "right",
) -> PackedSequences:
    """Pack prompts and responses; nothing is cut.

    Args:
        rows: one prompt each; its responses may be empty.
        order: (row, response) of each line of the log-probs, counted from 0.
        image_inputs: the rows' images, batched.
        processing: of the model.
        pad_token_id: fills the rows up to the longest.
        padding_side: where.
    """
    lengths = [len(row.prompt) + sum(map(len, row.responses)) for row in rows]
    shape = (len(rows), max(lengths))
    input_ids, segments = torch.full(shape, pad_token_id), torch.full(shape, PADDING)
    offsets, needed = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    places: list[list[Tensor]] = []
    for row, (prompt, responses) in enumerate(rows):
        start = shape[1] - lengths[row] if padding_side == "left" else 0
        last = torch.tensor([start + len(prompt) - 1])
        places.append([])
        for segment, ids in enumerate([prompt, *responses]):
            end = start + len(ids)
            input_ids[row, start:end] = torch.as_tensor(ids, dtype=torch.long)
            segments[row, start:end] = segment
            offsets[row, start:end] = torch.arange(len(ids))
            if segment != PROMPT:
                predicting = torch.cat([last, torch.arange(start, end - 1)]) if len(ids) else last[:0]
                needed[row, predicting] = True
                places[row].append(row * shape[1] + predicting)
            start = end
    ranks = needed.flatten().cumsum(0) - 1
    scored = [rows[row].responses[response] for row, response in order]
    widths = torch.tensor([len(ids) for ids in scored])
    return PackedSequences(
        input_ids,
        segments,
        offsets,
        needed,
        sources=ranks[torch.cat([places[row][response] for row, response in order])],
        targets=torch.cat([torch.as_tensor(ids, dtype=torch.long) for ids in scored]),
        response_mask=torch.arange(int(widths.max())) < widths.unsqueeze(1),
        tokens=int(widths.sum()) + sum(len(rows[row].prompt) for row, _ in order),
        image_inputs=dict(image_inputs),
        sequence_inputs=processing.family.sequence_inputs(processing, input_ids),
        family=processing.family,
        image_token=processing.family.image_token_id(processing),
    )


def row_layout(batch: PackedSequences) -> Layout:
    """What attention needs to know of the rows, padding left out."""
    prompts = (batch.segments == PROMPT).sum(1)
    places = batch.offsets + torch.where(batch.segments > PROMPT, prompts.unsqueeze(1), 0)
    image = (batch.input_ids == batch.image_token) & (batch.segments == PROMPT)
    rows: list[Row] = []
    for row, (inside, prompt) in enumerate(zip(batch.segments != PADDING, prompts.tolist(), strict=True)):
        together = image[row][inside] if batch.family.image_sees_itself else None
        rows.append(Row(batch.segments[row][inside], places[row][inside], together, prompt))
    return Layout(rows, batch.needed[batch.segments != PADDING].nonzero().squeeze(1))


def restarted_positions(batch: PackedSequences, model: nn.Module) -> Tensor:
    """Position ids: the model's own in the prompt; every response goes on after the prompt's largest, on all axes."""
    inside = batch.segments == PROMPT
    inputs = {**batch.image_inputs, **batch.sequence_inputs}
    positions = batch.family.position_ids(model, batch.input_ids, inside.long(), inputs)
    largest = positions.masked_fill(~inside, 0).amax(-1, keepdim=True)
    if positions.dim() > 2:
        largest = largest.amax(0, keepdim=True)
    positions = torch.where(inside, positions, largest + 1 + batch.offsets)
    return positions.masked_fill(batch.segments == PADDING, 0)


def trains_tower(model: nn.Module) -> bool:
    """Whether anything that makes image features is trained."""
    language = ("language_model", "lm_head")
    return any(p.requires_grad and not any(part in name for part in language) for name, p in model.named_parameters())


@torch.no_grad()
def image_features(model: nn.Module, image_inputs: dict[str, Tensor]) -> Any:
    """What the model makes of the images before its language model, without what it does not read of it."""
    name = "get_image_features"
    inner = _model_with_images(model)
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    output = forward_method(model if hasattr(model, name) else inner, name)(**image_inputs, return_dict=True)
    for module, mode in modes:
        module.training = mode
    kept = {name: output[name] for name in ("pooler_output", "deepstack_features") if name in output}
    return type(output)(**kept)


def check_attention(kernel: str) -> None:
    """Check that an attention kernel takes a mask of any shape.

    Raises:
        UserError: if not.
    """
    if kernel not in ("sdpa", PACKED):
        raise UserError(
            "Packed training needs sdpa attention: the other kernels do not take the mask that keeps responses apart",
            seen=f"model.attention {kernel}",
            remedy="set model.attention to sdpa, or `packing` of the stage (train.opa, train.opadpo) to false",
        )


def _model_with_images(model: nn.Module) -> Any:
    """The model inside whatever wraps it for training."""
    return next(module for module in model.modules() if hasattr(module, "get_image_features"))
