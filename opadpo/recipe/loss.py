"""The loss section of the recipe; `opadpo.training.loss` re-exports it and documents the formulas."""

from typing import Literal

from opadpo.recipe.base import Section, setting


class LossConfig(Section):
    """Which objective OPA-DPO minimises. The defaults are the released code's."""

    beta: float = setting(
        0.1,
        "Inverse temperature: how strongly the policy is tied to the reference.",
        gt=0,
    )
    reduction: Literal["token", "sequence"] = setting(
        "token",
        "`token`: one logistic per position, as released; `sequence`: one per pair, on the weighted sum over"
        " the response (the paper's equations).",
    )
    standard_pair_coef: float = setting(1.0, "Weight of the standard response over the generated one.", ge=0)
    revised_pair_coef: float = setting(1.0, "Weight of the revised response over the generated one.", ge=0)
    image_coef: float = setting(
        0.2,
        "Weight of the image terms: the same response under the clean image over the masked one; 0 switches"
        " the masked images off.",
        ge=0,
    )
    anchor: Literal["released", "chosen_up", "squared"] | None = setting(
        "released",
        "Anchor on the chosen rewards. `released`: as in the released code, which pushes the standard response"
        " up and the revised one down; `chosen_up`: push both above anchor_value; `squared`: keep both near"
        " anchor_value; none: no anchor.",
    )
    anchor_coef: float = setting(1.0, "Weight of the anchor.", ge=0)
    anchor_value: float = setting(0.0, "The reward that the anchor compares with.")
    label_smoothing: float = setting(
        0.0,
        "Assumed share of pairs whose preference is the wrong way round (conservative DPO).",
        ge=0,
        lt=0.5,
    )
    divergence: Literal["reverse_kl", "js", "alpha"] = setting(
        "reverse_kl",
        "Divergence from the reference that the objective is derived from; `alpha` ignores token weights.",
    )
    alpha_divergence_coef: float = setting(1.0, "The a of the alpha divergence.", gt=0)
    reference_free: bool = setting(False, "Leave the reference's log-probs out.")
    mask_padding: bool = setting(
        False, "Average over real tokens only; the released code counts padding in every mean."
    )

    def plain(self) -> "LossConfig":
        """The ablation `dpo-plain`: the revised over the generated response and nothing else."""
        return self.model_copy(update={"standard_pair_coef": 0.0, "image_coef": 0.0, "anchor": None})
