"""Figures of training: how a run goes, and what a step of it looks like."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure

from opadpo.plots.style import BAD, GOOD, MUTED, PLAIN, STANDARD, SURFACE, calm, series

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def training_curves(name: str, lines: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and, for preference runs, accuracy and margin of the rewards by update; thin: as logged, thick: smoothed."""
    wanted = (
        ("loss", "loss"),
        ("rewards/accuracies", "pairs in the right order, share"),
        ("rewards/margins", "reward margin, nats"),
    )
    panels = [(key, label) for key, label in wanted if any(key in line for line in lines)]
    figure = Figure(figsize=(max(4.2, 2.8 * len(panels)), 2.9), layout="constrained")
    style = series(name)
    for axes, (key, label) in zip(figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
        rows = [(line["step"], line[key]) for line in lines if key in line]
        steps, values = [step for step, _ in rows], [value for _, value in rows]
        axes.plot(steps, values, color=style.color, linewidth=0.8, alpha=0.35)
        axes.plot(steps, _smoothed(values), color=style.color, linewidth=2.0)
        axes.set_xlabel("update")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(label, loc="left", fontsize=10)
        calm(axes)
    return figure


def _smoothed(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Running means over a share of the values, on both sides of each."""
    reach = max(1, round(len(values) * share / 2))
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


RESPONSES = ("generated", "standard", "revised")

RESPONSE_LOOKS = {"generated": (MUTED, "-"), "standard": (STANDARD, "--"), "revised": (GOOD, "-.")}
"""Response -> colour and dashes."""


def on_policy(means: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean log-prob per token of each response under each model (`means[model][response]`).

    Far below the model's own responses means off-policy: preference pairs of such texts hardly move the model.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(means), 1)
    for offset, (model, values) in enumerate(means.items()):
        style = series(model, offset)
        places = [i + (offset - (len(means) - 1) / 2) * width for i in range(len(RESPONSES))]
        heights = [values[response] for response in RESPONSES]
        label, hatch = f"under {style.label}", "//" if offset else None
        axes.bar(places, heights, width * 0.92, color=style.color, label=label, hatch=hatch, edgecolor=SURFACE)
        for place, height in zip(places, heights, strict=True):
            below = {"xytext": (0, -3), "textcoords": "offset points", "ha": "center", "va": "top"}
            axes.annotate(f"{height:.2f}", (place, height), fontsize=8.5, **below)
    lowest = min((v for values in means.values() for v in values.values()), default=-1.0)
    axes.set_ylim(lowest * 1.12, 0)
    labels = ["the model's own\n(generated)", "reference\n(standard)", "corrected\n(revised)"]
    axes.set_xticks(range(len(RESPONSES)), labels)
    axes.set_ylabel("mean log-prob per token, nats")
    axes.set_title("On-policy: how likely the model finds each response", loc="left", fontsize=11)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=len(means))
    calm(axes)
    return figure


def likelihoods(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> Figure:
    """How likely a model finds each response before and after OPA: one value per response and text, in nats per token.

    Where the curves of corrections and references come to lie over that of the model's own texts, they have become
    on-policy.
    """
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    panels = (("base", "before OPA", before), ("opa", "after OPA", after))
    values = [value for side in (before, after) for one in side.values() for value in one]
    low, high = min(values, default=-1.0), max(values, default=0.0)
    edges = [low + (high - low) * place / 24 for place in range(25)]
    for axes, (_, title, side) in zip(figure.subplots(1, 2, sharex=True, sharey=True), panels, strict=True):
        for name, (color, dashes) in RESPONSE_LOOKS.items():
            if side.get(name):
                axes.hist(
                    side[name], bins=edges, histtype="step", linewidth=1.8, color=color, linestyle=dashes, label=name
                )
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("mean log-prob per token of a response, nats")
        calm(axes)
    figure.axes[0].set_ylabel("responses")
    figure.axes[0].legend(frameon=False, fontsize=9, loc="upper left")
    return figure


def rewards(lines: Sequence[Mapping[str, float]]) -> Figure:
    """Rewards of chosen and rejected responses by update, and their margin: how far they have come apart."""
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = (("rewards/chosen", "chosen", GOOD, "-"), ("rewards/rejected", "rejected", BAD, "--"))
    for key, label, color, dashes in looks:
        rows = [(line["step"], line[key]) for line in lines if key in line]
        left.plot(*_curve(rows), color=color, linestyle=dashes, linewidth=2.0, label=label)
    left.axhline(0, color=MUTED, linewidth=0.8)
    left.set_title("rewards, nats", loc="left", fontsize=10)
    left.legend(frameon=False, fontsize=9)
    margins = [(line["step"], line["rewards/margins"]) for line in lines if "rewards/margins" in line]
    right.plot(*_curve(margins), color=series("opadpo").color, linewidth=2.0)
    right.set_title("margin: chosen less rejected, nats", loc="left", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("update")
        axes.xaxis.get_major_locator().set_params(integer=True)
        calm(axes)
    return figure


def _curve(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in rows], _smoothed([value for _, value in rows])


SMALL = 128
"""Side of an image up to which a file holds every pixel of it."""


def masked_images(rows: Sequence[tuple[str, Sequence["npt.NDArray[np.uint8]"]]], titles: Sequence[str]) -> Figure:
    """Images as the model sees them, (height, width, 3) each: a line for each example, a column for each title."""
    size = 1.7
    figure = Figure(figsize=(size * len(titles) + 0.2, (size + 0.1) * max(len(rows), 1) + 0.2), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), len(titles), squeeze=False)
    for line, (_, images) in zip(grid, rows, strict=False):
        for axes, image in zip(line, images, strict=False):
            # Small ones go into a file as they are, large ones in the size that is seen.
            axes.imshow(image, interpolation="none" if max(image.shape) <= SMALL else "nearest")
    for axes in grid.flat:
        axes.axis("off")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9, loc="left")
    return figure


class Row(NamedTuple):
    """A packed row: what lies in it, and what each of its positions sees."""

    title: str
    """What it is."""
    parts: Sequence[tuple[str, int]]
    """Name and number of tokens of the prompt and of each response, in order."""
    visible: "npt.NDArray[np.bool_]"
    """(positions, positions): which keys (columns) each query (line) sees."""


def attention(rows: Sequence[Row]) -> Figure:
    """The attention masks of packed rows: what a position (line) sees (coloured columns)."""
    from matplotlib.colors import ListedColormap

    figure = Figure(figsize=(4.2 * max(len(rows), 1), 4.4), layout="constrained")
    for axes, row in zip(figure.subplots(1, max(len(rows), 1), squeeze=False)[0], rows, strict=False):
        axes.imshow(row.visible, cmap=ListedColormap(["none", PLAIN]), interpolation="nearest", vmin=0, vmax=1)
        ends = list(accumulate(length for _, length in row.parts))
        for end in ends[:-1]:
            axes.axhline(end - 0.5, color=BAD, linewidth=0.9)
            axes.axvline(end - 0.5, color=BAD, linewidth=0.9)
        middles = [end - length / 2 - 0.5 for end, (_, length) in zip(ends, row.parts, strict=True)]
        names = [name.replace("_", "\n") for name, _ in row.parts]
        axes.set_xticks(middles, names, fontsize=8.5)
        axes.set_yticks(middles, names, fontsize=8.5, rotation=90, va="center")
        axes.tick_params(length=0)
        axes.set_title(row.title, loc="left", fontsize=10)
        axes.set_xlabel("is seen")
        axes.set_ylabel("sees")
    return figure
