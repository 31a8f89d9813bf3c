r"""The OPA-DPO loss: per-token log-probs in, one scalar with its parts, metrics, sums and counts out.

Notation. For one response under one image, x = policy log-prob - reference log-prob per token (the reference is
left out if `reference_free`), C = beta x its reward, w its weights. Column 0 is the first token of the response,
whatever the padding side of the prompt; beyond its end a response has log-prob 0. Four pairs, chosen over rejected:

    standard_pair    standard over generated                          weights 1
    revised_pair     revised over generated                           `revised_score`, `generated_score`
    standard_image   standard under the clean over the masked image   weights 1
    revised_image    revised under the clean over the masked image    `revised_image` on both sides

With c, r the log-ratios of chosen and rejected, e = `label_smoothing`, a = `alpha_divergence_coef`:

    z    = w_c c - w_r r                                        reverse_kl
    z    = w_c c - w_r r - (softplus(c) - softplus(r))          js: the softplus part is unweighted
    z    = (exp(-a r) - exp(-a c)) / a                          alpha: weights are ignored
    pair = -(1 - e) logsigmoid(beta z) - e logsigmoid(-beta z)

`reduction="token"`, as released: one such term per position, token t of the chosen against token t of the
rejected response; nothing is summed over the sequence. `reduction="sequence"`, the paper's equations: w_c c, w_r r,
c and r are summed over the response first, so that a pair has one logistic; C = beta sum_t x_t.

Anchor, with v = `anchor_value` and C the (unweighted) reward of each pair's chosen response under the clean image:

    released    softplus(v - C) where the standard response is chosen, softplus(C - v) where the revised one is,
                summed over the pairs: pushes the standard response up and the revised one down
    chosen_up   softplus(v - C) summed over the pairs: pushes every chosen response up; nothing pushes down
    squared     (C - v)^2 summed over the pairs

A response that is chosen in two pairs (image terms on) enters twice. As released, with `reduction="token"` and
`mask_padding=False`, C is 0 in the image pairs where these are off, which adds a constant (not for `chosen_up`).

    loss = s mean(standard_pair) + r mean(revised_pair) + i (s mean(standard_image) + r mean(revised_image))
         + anchor_coef anchor            s, r, i = standard_pair_coef, revised_pair_coef, image_coef

What a mean runs over:

    token, mask_padding=False   every position of every row, padding included (where a pair's term is log 2);
                                `pad_to` counts rows as padded to that length (896 in the released code)
    token, mask_padding=True    pairs: positions where either side has a token; anchor: the chosen side's tokens
    sequence                    rows

In the last two a row is out of a pair, neither summed nor counted, if one side has no token or if its weights in
that pair are all zero. That is how a row whose revised text equals the generated one leaves the revised pair: give
it score weights of zero. In the first it stays in the count, as released, with the constant log 2 and no gradient
from the pair (`js` and `alpha` ignore weights in part: there the gradient is zero because the two sides are equal).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from opadpo.recipe.loss import LossConfig
from opadpo.training.loss_inputs import (
    PAIRS,
    RESPONSE_PAIRS,
    Logps,
    Masks,
    Values,
    Weights,
    at_least_float32,
    check_inputs,
    mask_of,
    real_tokens,
    rows_in,
)
from opadpo.training.loss_metrics import metric_sums

__all__ = [
    "Logps",
    "LossConfig",
    "LossOutput",
    "Masks",
    "Weights",
    "add_up",
    "expected_loss_at_start",
    "loss_counts",
    "opadpo_loss",
    "pair_losses",
    "real_tokens",
    "summarise",
]

_ANCHOR = "anchor/"


@dataclass(frozen=True)
class LossOutput:
    """What `opadpo_loss` returns: scalars, of which only `loss` and the loss terms of `sums` carry a graph."""

    loss: Tensor
    """The loss of this batch alone."""
    parts: Values
    """Unscaled means standard_pair, revised_pair, standard_image, revised_image, anchor; 0 where off."""
    metrics: Values
    """Means for the log (`opadpo.training.loss_metrics` explains each); nan where nothing was counted."""
    sums: Values
    """Numerators of all means: the pairs, `anchor/<pair>` and the metrics. They add up over batches and ranks."""
    counts: Values
    """Denominators (int64) under the same keys. They add up likewise."""
    coefficients: dict[str, float]
    """Coefficient of each loss term's mean."""

    def scaled(self, total_counts: Mapping[str, Tensor]) -> Tensor:
        """This batch's share of the loss of a larger batch whose counts are `total_counts`.

        The shares of all micro-batches and ranks sum to the loss of the whole, and so do their gradients. (Where
        gradients are averaged over ranks afterwards, multiply by the number of ranks.)
        """
        return _weighted_means(self.sums, total_counts, self.coefficients)


def opadpo_loss(
    policy: Logps,
    reference: Logps,
    weights: Weights,
    config: LossConfig,
    *,
    masks: Masks | None = None,
    pad_to: int | None = None,
) -> LossOutput:
    """The loss of one batch; the formulas are in the module's docstring.

    `masks` says where the real tokens are; without it they are where the log-prob of policy or reference is not 0,
    which misses a token that both are certain of. `pad_to` counts every row as padded to that length, without
    spending memory; it matters only for `reduction="token"` with `mask_padding=False`, where it makes the loss
    independent of how micro-batches are trimmed. Half-precision input is computed in float32. As released, the
    loss has a gradient at padding positions too: log-probs must be constant 0 there, so that nothing flows on.

    Raises:
        UserError: if shapes differ, only some masked log-probs are given, `image_coef` asks for masked log-probs
            that are not there, or the batch is longer than `pad_to`.
    """
    check_inputs(policy, reference, weights, config, masks, pad_to)
    masks = masks or real_tokens(policy, reference)
    policy, reference, weights = (
        at_least_float32(policy),
        at_least_float32(reference),
        at_least_float32(weights),
    )
    ratios = {
        name: value if config.reference_free else value - getattr(reference, name)
        for name, value in policy._asdict().items()
        if value is not None
    }
    units = _units(masks, weights, config, policy.has_masked)
    padding = _padding(policy.standard, config, pad_to)
    sums: Values = {}
    for term, included in units.items():
        values = _term_values(term, ratios, weights, config)
        sums[term] = torch.where(included, values, 0.0).sum() + padding * _value_at_start(term, config)
    counts = _count(units, padding)
    coefficients = _coefficients(config)
    overall = [pair for pair in RESPONSE_PAIRS if coefficients[pair] > 0]
    more_sums, more_counts = metric_sums(policy, reference, ratios, weights, masks, config.beta, overall)
    sums |= more_sums
    counts |= more_counts
    loss, parts, metrics = summarise(sums, counts, config)
    return LossOutput(loss, parts, metrics, sums, counts, coefficients)


def pair_losses(
    chosen: Tensor,
    rejected: Tensor,
    config: LossConfig,
    chosen_weights: Tensor | None = None,
    rejected_weights: Tensor | None = None,
) -> Tensor:
    """A pair's loss from log-ratios (batch, length): the same shape, or (batch,) for the sequence reduction."""
    weighted_chosen = chosen if chosen_weights is None else chosen_weights * chosen
    weighted_rejected = rejected if rejected_weights is None else rejected_weights * rejected
    margin = weighted_chosen - weighted_rejected
    if config.reduction == "sequence":
        margin, chosen, rejected = margin.sum(-1), chosen.sum(-1), rejected.sum(-1)
    if config.divergence == "js":
        margin = margin - (F.softplus(chosen) - F.softplus(rejected))
    elif config.divergence == "alpha":
        a = config.alpha_divergence_coef
        # Rounded down to four decimals, as released: the exponential of the logarithm of the largest float is inf.
        largest = math.floor(math.log(torch.finfo(chosen.dtype).max) * 1e4) / 1e4
        margin = ((-a * rejected).clamp(max=largest).exp() - (-a * chosen).clamp(max=largest).exp()) / a
    logits = config.beta * margin
    losses = -(1 - config.label_smoothing) * F.logsigmoid(logits)
    if config.label_smoothing:
        losses = losses - config.label_smoothing * F.logsigmoid(-logits)
    return losses


def loss_counts(
    masks: Masks, weights: Weights, config: LossConfig, *, has_masked: bool, pad_to: int | None = None
) -> Values:
    """The counts of the loss terms without any log-prob: for `LossOutput.scaled`, before the first backward pass.

    Add them up over the micro-batches of an optimizer step and over ranks. With `reduction="token"` and
    `mask_padding=False` the padded length is part of the objective: where micro-batches are trimmed to different
    lengths, give all of them one `pad_to`.
    """
    return _count(_units(masks, weights, config, has_masked), _padding(masks.standard, config, pad_to))


def add_up(values: Iterable[Mapping[str, Tensor]]) -> Values:
    """Add dictionaries of sums, or of counts, key by key."""
    total: Values = {}
    for one in values:
        for key, value in one.items():
            total[key] = total[key] + value if key in total else value
    return total


def summarise(
    sums: Mapping[str, Tensor], counts: Mapping[str, Tensor], config: LossConfig
) -> tuple[Tensor, Values, Values]:
    """(loss, parts, metrics) from sums and counts that were added up over any number of batches."""
    coefficients = _coefficients(config)
    parts = dict.fromkeys((*PAIRS, "anchor"), torch.zeros_like(sums["standard_pair"].detach()))
    for term in coefficients:
        if term in sums:
            name = term.split("/")[0]
            parts[name] = parts[name] + _mean(sums[term].detach(), counts[term])
    metrics = {key: value / counts[key] for key, value in sums.items() if key not in coefficients}
    return _weighted_means(sums, counts, coefficients), parts, metrics


def expected_loss_at_start(
    config: LossConfig, has_masked: bool, counts: Mapping[str, Tensor] | None = None
) -> float | None:
    """The loss where policy and reference agree, as at the first step: 6.4 log 2 for the defaults.

    `counts` (from `loss_counts` or `LossOutput.counts`) leaves out the terms that count nothing. None for
    `reference_free`: the policy's own log-probs remain in the loss, which has no closed form then.
    """
    if config.reference_free:
        return None
    coefficients = _coefficients(config)
    return sum(
        coefficients[term] * _value_at_start(term, config)
        for term in _terms(config, has_masked)
        if counts is None or counts[term] > 0
    )


def _terms(config: LossConfig, has_masked: bool) -> list[str]:
    pairs = list(PAIRS) if has_masked else list(RESPONSE_PAIRS)
    if config.anchor is None:
        return pairs
    # The released code keeps the anchors of switched-off image pairs, at reward 0.
    as_released = config.reduction == "token" and not config.mask_padding and config.anchor != "chosen_up"
    return pairs + [_ANCHOR + pair for pair in (PAIRS if as_released else pairs)]


def _coefficients(config: LossConfig) -> dict[str, float]:
    standard, revised = config.standard_pair_coef, config.revised_pair_coef
    pairs = {
        "standard_pair": standard,
        "revised_pair": revised,
        "standard_image": config.image_coef * standard,
        "revised_image": config.image_coef * revised,
    }
    return pairs | {_ANCHOR + pair: config.anchor_coef for pair in PAIRS}


def _term_values(term: str, ratios: Values, weights: Weights, config: LossConfig) -> Tensor:
    pair = term.removeprefix(_ANCHOR)
    chosen, rejected = PAIRS[pair]
    if pair == term:
        sides = {
            "revised_pair": (weights.revised_score, weights.generated_score),
            "revised_image": (weights.revised_image, weights.revised_image),
        }.get(pair, (None, None))
        return pair_losses(ratios[chosen], ratios[rejected], config, *sides)
    rewards = config.beta * ratios[chosen] if rejected in ratios else torch.zeros_like(ratios[chosen])
    return _anchor_losses(pair, rewards.sum(-1) if config.reduction == "sequence" else rewards, config)


def _anchor_losses(pair: str, rewards: Tensor, config: LossConfig) -> Tensor:
    excess = rewards - config.anchor_value
    if config.anchor == "squared":
        return excess.square()
    pushed_down = config.anchor == "released" and pair.startswith("revised")
    return -F.logsigmoid(-excess if pushed_down else excess)


def _value_at_start(term: str, config: LossConfig) -> float:
    """The term where every log-ratio is 0, as it is at padding."""
    if not term.startswith(_ANCHOR):
        return math.log(2)
    zero = torch.zeros((), dtype=torch.float64)
    return float(_anchor_losses(term.removeprefix(_ANCHOR), zero, config))


def _units(masks: Masks, weights: Weights, config: LossConfig, has_masked: bool) -> Values:
    """Which entries of each loss term count: bool, (batch, length) per token or (batch,) per sequence."""
    terms = _terms(config, has_masked)
    if config.reduction == "token" and not config.mask_padding:
        return dict.fromkeys(terms, torch.ones_like(masks.standard))
    rows = rows_in(masks, weights)
    if config.reduction == "sequence":
        return {term: rows[term.removeprefix(_ANCHOR)] for term in terms}
    units: Values = {}
    for term in terms:
        pair = term.removeprefix(_ANCHOR)
        chosen, rejected = (mask_of(name, masks) for name in PAIRS[pair])
        units[term] = (chosen | rejected if term == pair else chosen) & rows[pair].unsqueeze(-1)
    return units


def _padding(like: Tensor, config: LossConfig, pad_to: int | None) -> int:
    """Positions that `pad_to` adds to a batch shaped as `like`, (batch, length)."""
    if pad_to is None or config.reduction == "sequence" or config.mask_padding:
        return 0
    return like.shape[0] * (pad_to - like.shape[1])


def _count(units: Values, padding: int) -> Values:
    return {term: included.sum() + padding for term, included in units.items()}


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1)


def _weighted_means(
    sums: Mapping[str, Tensor], counts: Mapping[str, Tensor], coefficients: Mapping[str, float]
) -> Tensor:
    loss = torch.zeros_like(sums["standard_pair"].detach())
    for term, coefficient in coefficients.items():
        if coefficient and term in sums:
            loss = loss + coefficient * _mean(sums[term], counts[term])
    return loss
