"""Properties of the loss: batching never changes it, and each option means what it says."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.errors import UserError
from opadpo.training.loss import (
    Logps,
    LossConfig,
    Masks,
    Weights,
    add_up,
    expected_loss_at_start,
    loss_counts,
    opadpo_loss,
    summarise,
)

configs = st.builds(
    LossConfig,
    beta=st.sampled_from([0.1, 0.7]),
    reduction=st.sampled_from(["token", "sequence"]),
    standard_pair_coef=st.sampled_from([0.0, 1.0]),
    image_coef=st.sampled_from([0.0, 0.2]),
    anchor=st.sampled_from(["released", "chosen_up", "squared", None]),
    anchor_value=st.sampled_from([0.0, 0.3]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    divergence=st.sampled_from(["reverse_kl", "js", "alpha"]),
    reference_free=st.booleans(),
    mask_padding=st.booleans(),
)


def batch(seed: int, rows: int, length: int, *, out_of_revised: tuple[int, ...] = (), masked: bool = True):
    """(policy, reference, weights, masks) in float64 with responses of random lengths."""
    generator = torch.Generator().manual_seed(seed)

    def real() -> torch.Tensor:
        lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
        return torch.arange(length) < lengths

    def logps(mask: torch.Tensor) -> torch.Tensor:
        return torch.where(mask, -3 * torch.rand(rows, length, generator=generator, dtype=torch.float64), 0.0)

    masks = Masks(real(), real(), real())
    fields = (*masks, masks.standard, masks.revised) if masked else masks
    policy, reference = Logps(*map(logps, fields)), Logps(*map(logps, fields))
    weights = Weights(
        *(torch.where(m, 1 + torch.rand(rows, length, generator=generator, dtype=torch.float64), 0.0)
          for m in (masks.generated, masks.revised, masks.revised))
    )  # fmt: skip
    for row in out_of_revised:
        weights.generated_score[row] = 0
        weights.revised_score[row] = 0
    return policy, reference, weights, masks


def each(values: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same kind of tuple with every tensor changed."""
    return type(values)(*(None if v is None else change(v) for v in values))


def with_grad(policy: Logps) -> Logps:
    return each(policy, lambda v: v.clone().requires_grad_())


def gradients(policy: Logps) -> list[torch.Tensor]:
    return [torch.zeros_like(v) if v.grad is None else v.grad for v in policy if v is not None]


def log_ratios(policy: Logps, reference: Logps) -> dict[str, Any]:
    return {
        name: getattr(policy, name) - getattr(reference, name)
        for name in Logps._fields
        if getattr(policy, name) is not None
    }


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    config=configs,
    seed=st.integers(0, 10_000),
    assignment=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    out=st.booleans(),
)
def test_splitting_a_batch_changes_neither_loss_nor_gradients(config, seed, assignment, out):
    length, pad_to = 6, 9
    policy, reference, weights, masks = batch(
        seed, len(assignment), length, out_of_revised=(0,) if out else (), masked=config.image_coef > 0
    )
    whole_policy = with_grad(policy)
    whole = opadpo_loss(whole_policy, reference, weights, config, masks=masks, pad_to=pad_to)
    whole.loss.backward()

    split_policy = with_grad(policy)
    parts = []
    for group in range(4):
        rows = [i for i, g in enumerate(assignment) if g == group]
        if rows:
            width = max(int(m[rows].sum(-1).max()) for m in masks)
            parts.append(
                [each(v, lambda t: t[rows, :width]) for v in (split_policy, reference, weights, masks)]  # noqa: B023
            )
    total = add_up(loss_counts(m, w, config, has_masked=p.has_masked, pad_to=pad_to) for p, _, w, m in parts)
    outputs = [opadpo_loss(p, r, w, config, masks=m, pad_to=pad_to) for p, r, w, m in parts]
    loss = torch.stack([output.scaled(total) for output in outputs]).sum()
    loss.backward()

    assert loss.item() == pytest.approx(whole.loss.item(), abs=1e-10)
    # Gradients at padding never reach the model: log-probs are constants there.
    real = (*masks, masks.standard, masks.revised)
    for ours, expected, mask in zip(gradients(split_policy), gradients(whole_policy), real, strict=False):
        torch.testing.assert_close(ours[mask], expected[mask], atol=1e-10, rtol=0)
    again, means, metrics = summarise(add_up(o.sums for o in outputs), add_up(o.counts for o in outputs), config)
    assert again.item() == pytest.approx(whole.loss.item(), abs=1e-10)
    for expected, got in ((whole.parts, means), (whole.metrics, metrics)):
        assert got.keys() == expected.keys()
        for key, value in got.items():
            assert value.item() == pytest.approx(expected[key].item(), abs=1e-10, nan_ok=True), key


@settings(max_examples=30, deadline=None)
@given(config=configs, seed=st.integers(0, 10_000))
def test_pad_to_equals_materialised_padding(config, seed):
    policy, reference, weights, masks = batch(seed, 3, 5, masked=config.image_coef > 0)
    output = opadpo_loss(policy, reference, weights, config, masks=masks, pad_to=11)

    def padded(values: Any) -> Any:
        return each(values, lambda v: torch.nn.functional.pad(v, (0, 6)))

    long = opadpo_loss(padded(policy), padded(reference), padded(weights), config, masks=padded(masks))
    assert output.loss.item() == pytest.approx(long.loss.item(), abs=1e-12)
    for key, value in long.counts.items():
        assert output.counts[key] == value, key


@settings(max_examples=40, deadline=None)
@given(config=configs, seed=st.integers(0, 10_000), masked=st.booleans())
def test_loss_at_the_first_step_has_its_closed_form(config, seed, masked):
    config = config.model_copy(update={"reference_free": False} | ({} if masked else {"image_coef": 0.0}))
    policy, _, weights, masks = batch(seed, 3, 5, out_of_revised=(0, 1, 2), masked=masked)
    output = opadpo_loss(policy, policy, weights, config, masks=masks)
    expected = expected_loss_at_start(config, masked, output.counts)
    assert output.loss.item() == pytest.approx(expected, abs=1e-12)


def test_closed_form_of_the_defaults():
    assert expected_loss_at_start(LossConfig(), has_masked=True) == pytest.approx(6.4 * math.log(2), abs=1e-12)
    assert expected_loss_at_start(LossConfig(), has_masked=True) == pytest.approx(4.436142, abs=1e-6)
    assert expected_loss_at_start(LossConfig().plain(), has_masked=False) == pytest.approx(math.log(2))
    assert expected_loss_at_start(LossConfig(reference_free=True), has_masked=True) is None


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_sequence_reduction_is_one_logistic_per_pair_on_weighted_sums():
    config = LossConfig(reduction="sequence", anchor="chosen_up", anchor_value=0.2, label_smoothing=0.1)
    policy, reference, weights, masks = batch(3, 4, 6)
    output = opadpo_loss(policy, reference, weights, config, masks=masks)
    x = log_ratios(policy, reference)
    ones = torch.ones_like(x["standard"])
    pairs = {
        "standard_pair": (x["standard"], ones, x["generated"], ones),
        "revised_pair": (x["revised"], weights.revised_score, x["generated"], weights.generated_score),
        "standard_image": (x["standard"], ones, x["standard_masked"], ones),
        "revised_image": (x["revised"], weights.revised_image, x["revised_masked"], weights.revised_image),
    }
    anchor = 0.0
    for name, (c, wc, r, wr) in pairs.items():
        terms = []
        for row in range(4):
            z = float((wc[row] * c[row]).sum() - (wr[row] * r[row]).sum())
            terms.append(0.9 * softplus(-0.1 * z) + 0.1 * softplus(0.1 * z))
            anchor += softplus(0.2 - 0.1 * float(c[row].sum())) / 4
        assert output.parts[name].item() == pytest.approx(sum(terms) / 4, abs=1e-10)
    assert output.parts["anchor"].item() == pytest.approx(anchor, abs=1e-10)
    p = {k: v.item() for k, v in output.parts.items()}
    by_hand = p["standard_pair"] + p["revised_pair"] + 0.2 * (p["standard_image"] + p["revised_image"]) + p["anchor"]
    assert output.loss.item() == pytest.approx(by_hand, abs=1e-10)


def test_mask_padding_averages_over_real_tokens_only():
    config = LossConfig(mask_padding=True, image_coef=0.0, anchor="chosen_up")
    policy, reference, weights, masks = batch(5, 3, 7, masked=False)
    output = opadpo_loss(policy, reference, weights, config, masks=masks)
    s, r, g = log_ratios(policy, reference).values()
    either = masks.standard | masks.generated
    expected = -torch.nn.functional.logsigmoid(0.1 * (s - g))[either].mean()
    assert output.parts["standard_pair"].item() == pytest.approx(expected.item(), abs=1e-12)
    up = [-torch.nn.functional.logsigmoid(0.1 * x)[m].mean() for x, m in ((s, masks.standard), (r, masks.revised))]
    assert output.parts["anchor"].item() == pytest.approx(torch.stack(up).sum().item(), abs=1e-12)


@pytest.mark.parametrize("options", [{"mask_padding": True}, {"reduction": "sequence"}])
def test_a_row_whose_revision_changes_nothing_is_out_of_the_revised_pair(options):
    config = LossConfig(**options)
    policy, reference, weights, masks = batch(7, 3, 6, out_of_revised=(1,))
    both = opadpo_loss(policy, reference, weights, config, masks=masks)
    p, r, w, m = (each(v, lambda t: t[[0, 2]]) for v in (policy, reference, weights, masks))
    without = opadpo_loss(p, r, w, config, masks=m)
    for key in ("revised_pair", "anchor/revised_pair", "rewards/margins/revised_pair"):
        assert both.sums[key].item() == pytest.approx(without.sums[key].item(), abs=1e-12)
        assert both.counts[key] == without.counts[key]
    assert both.counts["standard_pair"] > without.counts["standard_pair"]
    assert both.counts["revised_image"] > without.counts["revised_image"]


def test_as_released_such_a_row_counts_but_has_no_gradient_from_the_pair():
    policy, reference, weights, masks = batch(7, 3, 6, out_of_revised=(1,))
    policy = with_grad(policy)
    config = LossConfig(anchor=None)
    output = opadpo_loss(policy, reference, weights, config, masks=masks)
    assert output.counts["revised_pair"] == 18
    output.sums["revised_pair"].backward()
    assert policy.revised.grad is not None
    assert policy.revised.grad[1].abs().sum() == 0
    assert policy.revised.grad[0].abs().sum() > 0


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_anchors_push_the_way_they_say(reduction):
    policy, reference, weights, masks = batch(11, 3, 6)
    signs = {}
    for anchor in ("released", "chosen_up"):
        fresh = with_grad(policy)
        config = LossConfig(anchor=anchor, reduction=reduction, standard_pair_coef=0, revised_pair_coef=0)
        opadpo_loss(fresh, reference, weights, config, masks=masks).loss.backward()
        grads = dict(zip(Logps._fields, gradients(fresh), strict=True))
        real = {"standard": masks.standard, "revised": masks.revised}
        signs[anchor] = {k: grads[k][m].sign().unique().tolist() for k, m in real.items()}
        assert all(grads[k].abs().sum() == 0 for k in ("generated", "standard_masked", "revised_masked"))
    assert signs["released"] == {"standard": [-1.0], "revised": [1.0]}
    assert signs["chosen_up"] == {"standard": [-1.0], "revised": [-1.0]}


def test_plain_dpo_sees_only_revised_over_generated():
    config = LossConfig().plain()
    policy, reference, weights, masks = batch(13, 3, 6, masked=False)
    policy = with_grad(policy)
    output = opadpo_loss(policy, reference, weights, config, masks=masks)
    output.loss.backward()
    standard, revised, generated = gradients(policy)
    assert standard.abs().sum() == 0
    assert revised.abs().sum() > 0
    assert generated.abs().sum() > 0
    assert output.loss.item() == pytest.approx(output.parts["revised_pair"].item(), abs=1e-12)


def test_rewards_are_sums_over_the_response_and_accuracy_counts_rows():
    policy, reference, weights, masks = batch(17, 5, 6, out_of_revised=(4,))
    metrics = opadpo_loss(policy, reference, weights, LossConfig(), masks=masks).metrics
    x = {k: 0.1 * (getattr(policy, k) - getattr(reference, k)).sum(-1) for k in Logps._fields}
    standard, revised = x["standard"] - x["generated"], (x["revised"] - x["generated"])[:4]
    both = torch.cat([standard, revised])
    assert metrics["rewards/chosen/standard_pair"].item() == pytest.approx(x["standard"].mean().item())
    assert metrics["rewards/rejected/revised_pair"].item() == pytest.approx(x["generated"][:4].mean().item())
    assert metrics["rewards/margins"].item() == pytest.approx(both.mean().item())
    assert metrics["rewards/accuracies"].item() == pytest.approx((both > 0).double().mean().item())
    image = (x["revised"] - x["revised_masked"]).mean().item()
    assert metrics["rewards/margins/revised_image"].item() == pytest.approx(image)
    drift = (policy.generated - reference.generated)[masks.generated]
    assert metrics["kl"].item() == pytest.approx((drift.exp() - 1 - drift).mean().item())


def test_masks_tell_a_certain_token_from_padding():
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    logps = Logps(*(torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64),) * 3)
    weights = Weights(zeros + 1, zeros + 1, zeros + 1)
    config = LossConfig(mask_padding=True, image_coef=0.0)
    certain = Masks(*(torch.tensor([[True, True, False]]),) * 3)
    assert opadpo_loss(logps, logps, weights, config).counts["standard_pair"] == 1
    assert opadpo_loss(logps, logps, weights, config, masks=certain).counts["standard_pair"] == 2


def test_half_precision_input_is_computed_in_float32():
    policy, reference, weights, masks = batch(19, 3, 6)
    p, r, w = (each(v, lambda t: t.bfloat16()) for v in (policy, reference, weights))
    output = opadpo_loss(p, r, w, LossConfig(), masks=masks)
    p, r, w = (each(v, lambda t: t.float()) for v in (p, r, w))
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == opadpo_loss(p, r, w, LossConfig(), masks=masks).loss.item()


def test_inputs_that_do_not_fit_are_named():
    policy, reference, weights, _ = batch(23, 2, 4)
    clean = policy._replace(standard_masked=None, revised_masked=None)
    clean_reference = reference._replace(standard_masked=None, revised_masked=None)
    with pytest.raises(UserError, match=r"image_coef = 0\.2"):
        opadpo_loss(clean, clean_reference, weights, LossConfig())
    with pytest.raises(UserError, match="some responses only"):
        opadpo_loss(policy, clean_reference, weights, LossConfig())
    with pytest.raises(UserError, match=r"reference\.revised must be \(batch, length\)"):
        opadpo_loss(policy, reference._replace(revised=reference.revised[:, :3]), weights, LossConfig())
    with pytest.raises(UserError, match="length 4, pad_to 3"):
        opadpo_loss(policy, reference, weights, LossConfig(), pad_to=3)


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_alpha_divergence_never_overflows(reduction):
    policy, reference, weights, masks = batch(29, 2, 4)
    far = with_grad(each(policy, lambda v: 500 * v.float()))
    near = each(reference, lambda v: 0.001 * v.float())
    config = LossConfig(divergence="alpha", reduction=reduction)
    loss = opadpo_loss(far, near, weights, config, masks=masks).loss
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(g.isfinite().all() for g in gradients(far))
