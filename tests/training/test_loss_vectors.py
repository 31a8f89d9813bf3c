"""The loss equals the released code to the last digit."""

import json
from pathlib import Path

import pytest
import torch

from opadpo.training.loss import Logps, LossConfig, Weights, opadpo_loss, pair_losses

VECTORS = Path(__file__).parents[1] / "vectors"
RELEASED_NAMES = {
    "standard": "standard_response",
    "revised": "AI_pseudo_response",
    "generated": "original_generate_response",
}
DIVERGENCES = {"reverse_kl": "reverse_kl", "js_divergence": "js", "alpha_divergence": "alpha"}
PARTS = {
    "standard_pair": "stand_gen",
    "revised_pair": "AI_gen",
    "standard_image": "stand_mask",
    "revised_image": "AI_mask",
    "anchor": "AncPO",
}
LOGP_STATS = {
    "generated": "original_logprobs",
    "standard": "standard_logprobs",
    "revised": "AI_logprobs",
    "standard_masked": "standard_mask_logprobs",
    "revised_masked": "AI_mask_logprobs",
}
REWARD_STATS = {
    "standard": ["stand_gen_chosen", "stand_mask_chosen"],
    "revised": ["AI_gen_chosen", "AI_mask_chosen"],
    "generated": ["stand_gen_reject", "AI_gen_reject"],
    "standard_masked": ["stand_mask_reject"],
    "revised_masked": ["AI_mask_reject"],
}
INTENDED_DIFFERENCES = {
    "p17_real_token_with_zero_reference_logprob": (
        "the released statistics drop a real token whose reference log-prob is exactly 0; ours count it"
    )
}


def load(name: str) -> list[dict]:
    return json.loads((VECTORS / name).read_text())["cases"]


CASES = {case["name"]: case for case in load("loss_cases.json")}


def config_of(settings: dict) -> LossConfig:
    """The settings of the released code as ours; flags that only choose weights act in `weights_of`."""
    values = {
        "beta": settings["beta"],
        "label_smoothing": settings["label_smoothing"],
        "divergence": DIVERGENCES[settings["f_divergence_type"]],
        "reference_free": settings["reference_free"],
    }
    if "CoPO" in settings:
        values |= {
            "standard_pair_coef": settings["standard_pair_coef"],
            "revised_pair_coef": settings["AI_pair_coef"],
            "image_coef": settings["CoPO_coef"] if settings["CoPO"] else 0.0,
            "anchor": ("released" if settings["mDPO_anchor"] else "squared") if settings["AncPO"] else None,
            "anchor_coef": settings["Anchor_coef"],
            "anchor_value": settings["Anchor_value"],
        }
    return LossConfig(**values)


def tensor(values: list, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def logps_of(case: dict, which: str, dtype: torch.dtype) -> Logps:
    clean = {ours: tensor(case["inputs"][f"{which}_clean"][theirs], dtype) for ours, theirs in RELEASED_NAMES.items()}
    if not case["settings"]["CoPO"]:
        return Logps(**clean)
    masked = case["inputs"][f"{which}_masked"]
    return Logps(
        **clean,
        standard_masked=tensor(masked["standard_response"], dtype),
        revised_masked=tensor(masked["AI_pseudo_response"], dtype),
    )


def weights_of(case: dict, dtype: torch.dtype) -> Weights:
    settings, inputs = case["settings"], case["inputs"]
    scores = {side: tensor(inputs["score_weights"][side], dtype) for side in list(RELEASED_NAMES.values())[1:]}
    images = tensor(inputs["image_weights"]["AI_pseudo_response"], dtype)
    if not (settings["detailed_report"] and settings["response_score"]):
        scores = {side: torch.ones_like(value) for side, value in scores.items()}
    if not (settings["detailed_report"] and settings["response_image_relation"]):
        images = torch.ones_like(images)
    return Weights(scores["original_generate_response"], scores["AI_pseudo_response"], images)


def run(case: dict, dtype: torch.dtype = torch.float64):
    policy, reference = logps_of(case, "policy", dtype), logps_of(case, "reference", dtype)
    for value in policy:
        if value is not None:
            value.requires_grad_()
    output = opadpo_loss(policy, reference, weights_of(case, dtype), config_of(case["settings"]))
    return policy, output


@pytest.mark.parametrize("name", CASES)
def test_loss_and_parts(name):
    _, output = run(CASES[name])
    expected = CASES[name]["outputs"]
    assert output.loss.item() == pytest.approx(expected["total_loss"], abs=1e-10)
    for ours, theirs in PARTS.items():
        assert output.parts[ours].item() == pytest.approx(expected["components"][theirs], abs=1e-10), ours


@pytest.mark.parametrize("name", CASES)
def test_loss_in_float32(name):
    _, output = run(CASES[name], torch.float32)
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(CASES[name]["outputs"]["total_loss_float32"], abs=2e-6)


@pytest.mark.parametrize("name", sorted(CASES.keys() - INTENDED_DIFFERENCES.keys()))
def test_statistics(name):
    _, output = run(CASES[name])
    stats = CASES[name]["outputs"]["stats"]
    off = set() if CASES[name]["settings"]["CoPO"] else {"standard_masked", "revised_masked"}
    for response in LOGP_STATS.keys() - off:
        theirs = f"logprobs/{LOGP_STATS[response]}"
        assert output.metrics[f"logps/{response}"].item() == pytest.approx(stats[theirs], abs=1e-10)
        assert output.metrics[f"logps/{response}/min"].item() == pytest.approx(stats[f"{theirs}_min"], abs=1e-10)
        assert output.metrics[f"logps/{response}/max"].item() == pytest.approx(stats[f"{theirs}_max"], abs=1e-10)
        for pair in REWARD_STATS[response]:
            if off and "mask" in pair:
                continue
            expected = stats[f"policy/{pair}_mean"]
            assert output.metrics[f"token_rewards/{response}"].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", INTENDED_DIFFERENCES)
def test_statistics_that_differ_on_purpose(name):
    _, output = run(CASES[name])
    stats = CASES[name]["outputs"]["stats"]
    theirs = {r: stats[f"policy/{pairs[0]}_mean"] for r, pairs in REWARD_STATS.items()}
    ours = {r: output.metrics[f"token_rewards/{r}"].item() for r in REWARD_STATS}
    assert ours != pytest.approx(theirs, abs=1e-10)
    inputs = CASES[name]["inputs"]
    for response, released in RELEASED_NAMES.items():
        real = tensor(inputs["tokens"][released]) != 0
        ratios = tensor(inputs["policy_clean"][released]) - tensor(inputs["reference_clean"][released])
        beta = CASES[name]["settings"]["beta"]
        assert ours[response] == pytest.approx(beta * ratios[real].mean().item(), abs=1e-10)


@pytest.mark.parametrize("case", load("dpo_loss_elementwise.json"), ids=lambda case: case["name"])
def test_pair_per_position(case):
    config = config_of(case["settings"])
    chosen = tensor(case["policy_chosen"]) - tensor(case["reference_chosen"])
    rejected = tensor(case["policy_rejected"]) - tensor(case["reference_rejected"])
    sides = [case[f"{side}_weights"] for side in ("chosen", "rejected")]
    weights = [None if side is None else tensor(side) for side in sides]
    torch.testing.assert_close(
        pair_losses(chosen, rejected, config, *weights), tensor(case["losses"]), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(config.beta * chosen, tensor(case["chosen_rewards"]), atol=1e-10, rtol=0)
    torch.testing.assert_close(config.beta * rejected, tensor(case["rejected_rewards"]), atol=1e-10, rtol=0)


@pytest.mark.parametrize("case", load("loss_gradients.json"), ids=lambda case: case["name"])
def test_gradients(case):
    policy, output = run(CASES[case["name"]])
    assert output.loss.item() == pytest.approx(case["total_loss"], abs=1e-10)
    output.loss.backward()
    expected = case["d_total_loss_d_policy_logprobs"]
    for field, value in policy._asdict().items():
        kind = "masked" if field.endswith("_masked") else "clean"
        released = RELEASED_NAMES[field.removesuffix("_masked")]
        torch.testing.assert_close(value.grad, tensor(expected[f"{kind}/{released}"]), atol=1e-8, rtol=0)
