"""Colours, markers and the calm look that all figures share."""

from typing import NamedTuple

from matplotlib.axes import Axes

TEXT, MUTED, LINE, GOOD, BAD = "#1a1d23", "#565e6c", "#e2e5ea", "#0a6859", "#a82f10"


class ScoreLook(NamedTuple):
    """How a sentence's score is drawn."""

    fill: str
    line: str


SCORES = {
    1: ScoreLook("#a3240a", "#a3240a"),
    2: ScoreLook("#f2a553", "#b56a15"),
    3: ScoreLook("#f9eab8", "#a5821f"),
    4: ScoreLook("#ffffff", "#3f9484"),
}
"""Score -> its colours, those of the review desk."""


class Series(NamedTuple):
    """How a model is drawn."""

    color: str
    marker: str
    label: str


SERIES = {
    "base": Series("#5f6776", "o", "base"),
    "opa": Series("#a85b00", "s", "OPA"),
    "opadpo": Series("#3f4bc4", "D", "OPA-DPO"),
    "dpo": Series("#a82f10", "^", "DPO without OPA"),
    "dpo-plain": Series("#0a6859", "v", "plain DPO"),
}
_OTHERS = [("#7a3b8f", "P"), ("#2f7ea8", "X"), ("#6b7a1f", "h"), ("#8f3b5b", "*")]


def series(name: str, position: int = 0) -> Series:
    """Colour, marker and label of a model; models with names of their own are told apart by `position`."""
    if name in SERIES:
        return SERIES[name]
    color, marker = _OTHERS[position % len(_OTHERS)]
    return Series(color, marker, name)


def calm(axes: Axes) -> None:
    """No box, a light grid behind the marks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.grid(color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
