"""Metrics of the OPA-DPO loss in the field's terms, as sums and counts that add up over batches and ranks.

rewards/chosen/<pair>       beta x the log-ratio summed over the chosen response, unweighted; mean over the rows
                            in the pair
rewards/rejected/<pair>     the same of the rejected side
rewards/margins/<pair>      chosen - rejected
rewards/accuracies/<pair>   share of rows with a margin above 0 (equal sides, as at the first step, count 0)
rewards/chosen, ...         the same pooled over the response pairs whose coefficient is not 0
token_rewards/<response>    beta x log-ratio, mean per token: the released code's policy/*_mean
logps/<response>            the policy's log-prob, mean per token; /min and /max: of a row, mean over rows
kl                          KL(reference || policy) per token, estimated on the generated response by
                            exp(x) - 1 - x with the log-ratio x: unbiased for samples of the reference,
                            never negative; x is cut at 20
"""

import math
from collections.abc import Collection

import torch

from opadpo.training.loss_inputs import PAIRS, Logps, Masks, Values, Weights, mask_of, rows_in


@torch.no_grad()
def metric_sums(
    policy: Logps,
    reference: Logps,
    ratios: Values,
    weights: Weights,
    masks: Masks,
    beta: float,
    overall: Collection[str],
) -> tuple[Values, Values]:
    """Sums and counts of all metrics; `ratios` are the log-ratios by response, `overall` the pairs pooled."""
    sums, counts = _reward_sums(ratios, weights, masks, beta, overall)
    for response, ratio in ratios.items():
        mask, logps = mask_of(response, masks), getattr(policy, response)
        filled = mask.any(-1)
        lowest = torch.where(mask, logps, math.inf).amin(-1)
        highest = torch.where(mask, logps, -math.inf).amax(-1)
        entries = {
            f"token_rewards/{response}": (beta * ratio, mask),
            f"logps/{response}": (logps, mask),
            f"logps/{response}/min": (lowest, filled),
            f"logps/{response}/max": (highest, filled),
        }
        for key, (value, where) in entries.items():
            sums[key], counts[key] = torch.where(where, value, 0.0).sum(), where.sum()
    drift = (policy.generated - reference.generated).clamp(max=20)
    sums["kl"] = torch.where(masks.generated, torch.expm1(drift) - drift, 0.0).sum()
    counts["kl"] = masks.generated.sum()
    return sums, counts


def _reward_sums(
    ratios: Values, weights: Weights, masks: Masks, beta: float, overall: Collection[str]
) -> tuple[Values, Values]:
    sums: Values = {}
    counts: Values = {}
    for pair, rows in rows_in(masks, weights).items():
        if PAIRS[pair][1] not in ratios:
            continue
        chosen, rejected = (beta * ratios[name].sum(-1) for name in PAIRS[pair])
        margins = chosen - rejected
        accuracies = (margins > 0).to(margins.dtype)
        values = {"chosen": chosen, "rejected": rejected, "margins": margins, "accuracies": accuracies}
        for name, value in values.items():
            total, count = torch.where(rows, value, 0.0).sum(), rows.sum()
            keys = [f"rewards/{name}/{pair}"] + ([f"rewards/{name}"] if pair in overall else [])
            for key in keys:
                sums[key] = sums[key] + total if key in sums else total
                counts[key] = counts[key] + count if key in counts else count
    return sums, counts
