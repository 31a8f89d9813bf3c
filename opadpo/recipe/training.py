"""Sections of the recipe for training."""

from typing import Literal

from pydantic import Field

from opadpo.recipe.base import Section, setting
from opadpo.recipe.loss import LossConfig


class LoraSection(Section):
    """The adapter."""

    rank: int = setting(256, "Rank r.", ge=1)
    alpha: float = setting(512, "Scaling alpha; the update is multiplied by alpha / r.", gt=0)
    dropout: float = setting(0.0, "Dropout on the adapter's input.", ge=0, lt=1)
    targets: Literal["language", "all"] = setting(
        "language",
        "`language`: every linear layer of the language model but lm_head; `all`: projector and vision tower as well"
        " (as the released OPA stage).",
    )


class TrainerSection(Section):
    """What both stages share."""

    learning_rate: float = setting(2e-5, "Peak learning rate.", gt=0)
    epochs: float = setting(1.0, "Passes over the data.", gt=0)
    max_steps: int | None = setting(None, "Stop after this many updates, whatever the epochs.", ge=1)
    batch_size: int = setting(32, "Examples per update, over all processes and micro-batches together.", ge=1)
    micro_batch_size: int = setting(
        8, "Examples per forward pass and process; changes memory, never the result.", outcome=False, ge=1
    )
    micro_batch_tokens: int | None = setting(
        None,
        "In training as many examples per forward pass and process as have this many tokens together, prompts counted"
        " once for each image, instead of `micro_batch_size`. Long and short examples fill memory alike. Needs"
        " `packing`.",
        outcome=False,
        ge=1,
    )
    schedule: Literal["cosine", "linear", "constant"] = setting("cosine", "Learning-rate schedule after warm-up.")
    warmup_ratio: float = setting(0.0, "Share of the updates with a rising learning rate.", ge=0, lt=1)
    warmup_steps: int | None = setting(None, "Number of warm-up updates, instead of the share.", ge=0)
    weight_decay: float = setting(0.0, "AdamW weight decay.", ge=0)
    max_grad_norm: float = setting(1.0, "Clip the gradient's norm here.", gt=0)
    optimizer: Literal["adamw", "adamw_8bit"] = setting(
        "adamw", "Optimizer; `adamw_8bit` needs bitsandbytes and a CUDA GPU."
    )
    precision: Literal["float32", "bfloat16", "float16"] = setting("float32", "Data type of the computation.")
    packing: bool = setting(
        True,
        "Put all responses to a prompt into one sequence, each blind to the others: image and prompt are computed once,"
        " and the loss is the same up to rounding (in bfloat16 a token's log-prob moves by up to 6e-3). Needs"
        " `model.attention: sdpa`.",
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations in the backward pass: less memory, about a third more time.",
        outcome=False,
    )
    save_steps: int = setting(50, "Updates between checkpoints.", outcome=False, ge=1)
    keep_checkpoints: int = setting(2, "Checkpoints kept.", outcome=False, ge=1)
    logging_steps: int = setting(1, "Updates between lines of metrics.jsonl.", outcome=False, ge=1)
    eval_share: float = setting(0.0, "Share of the examples kept out of training and evaluated.", ge=0, lt=1)
    eval_steps: int = setting(50, "Updates between evaluations.", outcome=False, ge=1)
    report_to: list[str] = setting(
        [], "Trackers of transformers.Trainer, for example [wandb, tensorboard, trackio].", outcome=False
    )


class OpaSection(TrainerSection):
    """`opadpo train opa`: supervised fine-tuning that makes references and corrections on-policy."""

    lora: LoraSection = setting(LoraSection(), "The adapter.")
    responses: list[Literal["standard", "revised"]] = setting(
        ["standard", "revised"], "Which responses of an example are trained on.", min_length=1
    )
    image_aspect: Literal["pad", "square", "native"] | None = setting(
        None,
        "Image geometry of this stage only; none: `image.aspect`. The released code crops here and pads elsewhere.",
    )


class MaskingSection(Section):
    """The image of the image-focused pairs."""

    mode: Literal["pixels", "patches"] = setting("pixels", "Mask single random pixels, or whole patches.")
    ratio: float = setting(0.3, "Share of the image that is replaced by its mean value.", gt=0, lt=1)
    resample: Literal["epoch", "never"] = setting("epoch", "Draw the mask afresh every epoch, or once per example.")


class OpadpoSection(TrainerSection):
    """`opadpo train opadpo`: preference optimisation from the on-policy adapter."""

    lora: LoraSection = setting(
        LoraSection(),
        "The adapter where training starts from the base (`dpo`, `dpo-plain`); else the started one's.",
    )
    loss: LossConfig = Field(default=LossConfig(), description="The loss.")
    reference: Literal["cached", "on_the_fly"] = setting(
        "cached",
        "Where the frozen reference's log-probs come from, never from a second model. `cached`: computed once before"
        " training and kept in runs/NAME/reference; every later epoch saves its pass under the clean image, and so does"
        " every later run of the same name from the same start on the same data. `on_the_fly`: computed in each step;"
        " better for one short run, as there is then nothing to save, and where the disk has no room. With"
        " `masking.resample: epoch` every epoch has new masked images, which cost one pass each either way; with"
        " `never` they too are computed once.",
        outcome=False,
    )
    use_score_weights: bool = setting(True, "Weigh tokens by their sentence's score in the revised pair.")
    use_image_weights: bool = setting(True, "Weigh tokens by their sentence's error type in the image pair.")
    masking: MaskingSection = setting(MaskingSection(), "The masked image.")
    pad_to: int | None = setting(
        None, "Length that responses count as padded to in every mean; the released code uses 896.", ge=1
    )


class TrainSection(Section):
    """`opadpo train`: the two stages."""

    processes: int = setting(
        1,
        "Processes that train together, one per GPU; where a launcher has started several, its number counts.",
        outcome=False,
        ge=1,
    )
    sharding: Literal["none", "fsdp"] = setting(
        "none",
        "`none`: every process holds the whole model; `fsdp`: each holds a part of every parameter (FSDP2), on GPUs.",
        outcome=False,
    )
    ignore_memory_estimate: bool = setting(
        False,
        "Start training also where the estimate says that it does not fit into memory.",
        outcome=False,
    )
    opa: OpaSection = setting(OpaSection(), "First stage.")
    opadpo: OpadpoSection = setting(OpadpoSection(), "Second stage, and the ablations from the base.")
