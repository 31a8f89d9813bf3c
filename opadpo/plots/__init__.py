"""Every figure of the project; notebook, app, demo and report call the same functions.

Colours tell models apart under colour-blind sight, and markers or dashes repeat them. All functions return a
`matplotlib.figure.Figure` and touch no global state.
"""

from opadpo.plots.data import expert_trust, lengths, scores
from opadpo.plots.models import CaptionedImage, Point, before_and_after, tradeoff
from opadpo.plots.saving import described, png, save, svg, svg_uri
from opadpo.plots.style import SERIES, Series, series
from opadpo.plots.training import (
    RESPONSES,
    Row,
    attention,
    likelihoods,
    masked_images,
    on_policy,
    rewards,
    training_curves,
)

FIGURES = ("tradeoff.png", "on_policy.png", "before_and_after.png")
"""Names of the figures in a workspace's `figures/` folder."""

__all__ = [
    "FIGURES",
    "RESPONSES",
    "SERIES",
    "CaptionedImage",
    "Point",
    "Row",
    "Series",
    "attention",
    "before_and_after",
    "described",
    "expert_trust",
    "lengths",
    "likelihoods",
    "masked_images",
    "on_policy",
    "png",
    "rewards",
    "save",
    "scores",
    "series",
    "svg",
    "svg_uri",
    "tradeoff",
    "training_curves",
]
