"""Colours, markers and the calm look that all figures share.

A figure is drawn in the light colours. `DARK` has the twin of each for a page that is dark: an SVG carries both.
"""

from typing import NamedTuple

from matplotlib.axes import Axes

TEXT, MUTED, LINE, GOOD, BAD = "#1a1d23", "#565e6c", "#e2e5ea", "#0a6859", "#a82f10"
SURFACE, ACCENT, STANDARD = "#ffffff", "#3f4bc4", "#a85b00"
PLAIN = "#6672e0"
"""Of pixels, which have one colour for both: it stands out from a light page and from a dark one."""


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
    "opa": Series(STANDARD, "s", "OPA"),
    "opadpo": Series(ACCENT, "D", "OPA-DPO"),
    "dpo": Series(BAD, "^", "DPO without OPA"),
    "dpo-plain": Series(GOOD, "v", "plain DPO"),
}
_OTHERS = [("#7a3b8f", "P"), ("#2f7ea8", "X"), ("#6b7a1f", "h"), ("#8f3b5b", "*")]

DARK = {
    SURFACE: "#15181d", TEXT: "#e6e8ec", "#000000": "#e6e8ec", MUTED: "#a1a9b6", LINE: "#2a2f38",
    GOOD: "#64d1bd", BAD: "#ff9d83", ACCENT: "#a3adff", STANDARD: "#f0ab5e",
    "#a3240a": "#ff9478", "#f2a553": "#9a5f16", "#b56a15": "#c0802f", "#f9eab8": "#332b10", "#a5821f": "#8d752d",
    "#3f9484": "#3c8c7e",
    "#5f6776": "#98a1b0", "#7a3b8f": "#d59ae6", "#2f7ea8": "#7cc3ea", "#6b7a1f": "#c2d169", "#8f3b5b": "#eb98b8",
}  # fmt: skip
"""Light colour -> its twin on a dark page: those of the app, where it has them."""


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
