"""Figures of data: responses, revisions, and how people judged the expert."""

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from opadpo.plots.style import ACCENT, BAD, GOOD, MUTED, SCORES, STANDARD, SURFACE, TEXT, calm

_RESPONSE_COLORS = {"generated": MUTED, "standard": STANDARD, "revised": GOOD, "deleted": BAD}


def expert_trust(scores: Mapping[str, Mapping[str, int]], error_types: Mapping[str, Mapping[str, int]]) -> Figure:
    """The expert's scores and error types against people's (`matrix[expert][person]`), in sentences.

    Shades of one colour, dark for many, with the count in every cell: it reads in grey as well.
    """
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    panels = (("score", scores), ("error type", error_types))
    for axes, (what, matrix) in zip(figure.subplots(1, 2), panels, strict=True):
        names = list(matrix)
        rows = [[matrix[name].get(other, 0) for other in names] for name in names]
        most = max((count for row in rows for count in row), default=0) or 1
        for y, row in enumerate(rows):
            for x, count in enumerate(row):
                weight = "bold" if x == y else "normal"
                share = (count / most) ** 0.5
                # Nothing in between: there no colour of the number would be legible, in light or in dark.
                strength, color = (0.9, SURFACE) if share > 0.8 else (0.6 * share, TEXT)
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=ACCENT, alpha=strength, linewidth=0))
                axes.text(x, y, str(count), ha="center", va="center", color=color, fontweight=weight)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        labels = [name.replace("_error", "").replace("_", "\n") for name in names]
        axes.set_xticks(range(len(names)), labels, fontsize=9)
        axes.set_yticks(range(len(names)), labels, fontsize=9)
        total = sum(map(sum, rows))
        agreeing = sum(rows[place][place] for place in range(len(names)))
        axes.set_title(f"{what}: the same in {agreeing} of {total} sentences", loc="left", fontsize=11)
        axes.set_xlabel("people")
        axes.set_ylabel("expert")
        axes.tick_params(length=0)
    return figure


def lengths(counts: Mapping[str, Sequence[int]], *, unit: str = "tokens") -> Figure:
    """How long texts are: a histogram for each name, one above the other on the same axis."""
    longest = max((max(values, default=0) for values in counts.values()), default=0)
    edges = [place * max(longest, 1) / 24 for place in range(25)]
    figure = Figure(figsize=(6.4, 0.7 + 1.3 * max(len(counts), 1)), layout="constrained")
    grid = figure.subplots(max(len(counts), 1), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, values) in zip(grid, counts.items(), strict=False):
        color = _RESPONSE_COLORS.get(name, MUTED)
        axes.hist(values, bins=edges, color=color, edgecolor=SURFACE, linewidth=0.5)
        middle = median(values) if values else 0
        axes.axvline(middle, color=TEXT, linewidth=1.0, linestyle="--")
        told = f"{name}: {len(values):,} texts, half of them up to {middle:g} {unit}"
        axes.set_title(told, loc="left", fontsize=10)
        calm(axes)
    grid[-1].set_xlabel(f"length, {unit}")
    return figure


def scores(counts: Mapping[int, int]) -> Figure:
    """How many sentences got each score, in the colours of the review desk."""
    figure = Figure(figsize=(6.4, 2.2), layout="constrained")
    axes = figure.subplots()
    names = {1: "1  wrong", 2: "2  clear mistake", 3: "3  detail", 4: "4  right"}
    total = sum(counts.values()) or 1
    for place, (score, name) in enumerate(names.items()):
        look = SCORES[score]
        count = counts.get(score, 0)
        axes.barh(place, count, color=look.fill, edgecolor=look.line, height=0.7)
        told = f"{count:,}  ({count / total:.0%})"
        near = {"textcoords": "offset points", "va": "center", "fontsize": 9, "color": TEXT, "annotation_clip": False}
        axes.annotate(told, (count, place), xytext=(4, 0), **near)
        axes.annotate(name, (0, place), xytext=(-6, 0), ha="right", **near)
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.set_xlim(0, max([*counts.values(), 1]) * 1.18)
    axes.set_title("Scores of the sentences", loc="left", fontsize=11)
    calm(axes)
    axes.spines["left"].set_visible(False)
    return figure
