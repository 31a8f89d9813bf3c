"""Every figure of the project; notebook, app, demo and report call the same functions.

Colours tell models apart under colour-blind sight, and markers or dashes repeat them. All functions return a
`matplotlib.figure.Figure` and touch no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from opadpo.files import atomic_write

TEXT, MUTED, LINE, GOOD, BAD = "#1a1d23", "#565e6c", "#e2e5ea", "#0a6859", "#a82f10"


FIGURES = ("tradeoff.png", "on_policy.png", "before_and_after.png")
"""Names of the figures in a workspace's `figures/` folder."""


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


class Point(NamedTuple):
    """A model in the trade-off plot; all values in percent."""

    model: str
    hallucination: float
    coverage: float


def tradeoff(
    points: Sequence[Point],
    *,
    hallucination_label: str = "CHAIR_s: captions with a hallucination, %",
    coverage_label: str = "coverage: true objects that are mentioned, %",
) -> Figure:
    """Hallucination against coverage, one marker per model; the best corner is the upper left."""
    figure = Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = figure.subplots()
    unnamed = 0
    for point in points:
        style = series(point.model, unnamed)
        unnamed += point.model not in SERIES
        label = f"{style.label}: {point.hallucination:.1f} / {point.coverage:.1f}"
        place = (point.hallucination, point.coverage)
        axes.scatter(*place, s=90, color=style.color, marker=style.marker, label=label, zorder=3)
    # A legend, since labels beside the markers would cover each other where models are close.
    axes.legend(
        frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), title="hallucination / coverage"
    )
    highest = max((p.hallucination for p in points), default=50.0)
    lowest = min((p.coverage for p in points), default=50.0)
    axes.set_xlim(-0.03 * highest, highest * 1.1 + 2)
    axes.set_ylim(max(0.0, lowest - 12), 101)
    axes.set_xlabel(hallucination_label)
    axes.set_ylabel(coverage_label)
    axes.set_title("Less made up, at what cost in coverage", loc="left", fontsize=11)
    axes.annotate("better", (0.02, 0.97), xycoords="axes fraction", fontsize=8.5, color=MUTED, va="top")
    _calm(axes)
    return figure


def training_curves(name: str, lines: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and, for preference runs, accuracy and margin of the rewards by update; thin: as logged, thick: smoothed."""
    wanted = (
        ("loss", "loss"),
        ("rewards/accuracies", "pairs in the right order, share"),
        ("rewards/margins", "reward margin, nats"),
    )
    panels = [(key, label) for key, label in wanted if any(key in line for line in lines)]
    figure = Figure(figsize=(3.4 * max(len(panels), 1) + 0.6, 3.0), layout="constrained")
    style = series(name)
    for axes, (key, label) in zip(figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
        rows = [(line["step"], line[key]) for line in lines if key in line]
        steps, values = [step for step, _ in rows], [value for _, value in rows]
        axes.plot(steps, values, color=style.color, linewidth=0.8, alpha=0.35)
        axes.plot(steps, _smoothed(values), color=style.color, linewidth=2.0)
        axes.set_xlabel("update")
        axes.set_title(label, loc="left", fontsize=10)
        _calm(axes)
    return figure


def _smoothed(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Running means over a share of the values, on both sides of each."""
    reach = max(1, round(len(values) * share / 2))
    windows = (values[max(0, place - reach) : place + reach + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


RESPONSES = ("generated", "standard", "revised")


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
        axes.bar(places, heights, width * 0.92, color=style.color, label=label, hatch=hatch, edgecolor="white")
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
    _calm(axes)
    return figure


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
        axes.imshow([[(count / most) ** 0.5 for count in row] for row in rows], cmap="Blues", vmin=0, vmax=1.3)
        for y, row in enumerate(rows):
            for x, count in enumerate(row):
                weight = "bold" if x == y else "normal"
                color = "white" if (count / most) ** 0.5 > 0.8 else TEXT
                axes.text(x, y, str(count), ha="center", va="center", color=color, fontweight=weight)
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


class CaptionedImage(NamedTuple):
    """A row of the before-and-after figure."""

    image: Path
    before: Sequence[tuple[str, bool]]
    """Sentences of the first model, each with True where it names something that is not there."""
    after: Sequence[tuple[str, bool]]
    """The same of the second model."""


def before_and_after(rows: Sequence[CaptionedImage], *, models: tuple[str, str] = ("base", "opadpo")) -> Figure:
    """Images with the captions of two models; hallucinating sentences carry a triangle and are red."""
    from opadpo.images import open_rgb

    figure = Figure(figsize=(9.6, 0.5 + 1.75 * max(len(rows), 1)), layout="constrained")
    grid = figure.subplots(max(len(rows), 1), 3, squeeze=False, gridspec_kw={"width_ratios": [1, 2.4, 2.4]})
    for line, row in zip(grid, rows, strict=False):
        line[0].imshow(open_rgb(row.image))
        for axes, sentences in ((line[1], row.before), (line[2], row.after)):
            for position, (sentence, wrong) in enumerate(sentences):
                text = f"\u25b2 {sentence}" if wrong else f"\u2713 {sentence}"
                axes.text(
                    0, 0.95 - 0.19 * position, text, fontsize=9, color=BAD if wrong else GOOD, va="top", wrap=True
                )
    for axes in grid.flat:
        axes.axis("off")
    for axes, model in zip(grid[0][1:], models, strict=True):
        axes.set_title(series(model).label, loc="left", fontsize=10, color=series(model).color)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (150 dpi), atomically."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    atomic_write(path, buffer.getvalue())


def svg(figure: Figure) -> bytes:
    """A figure as SVG that needs no font: letters are outlines."""
    import io

    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "opadpo"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _calm(axes: Axes) -> None:
    """No box, a light grid behind the marks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.grid(color=LINE, linewidth=0.7)
    axes.set_axisbelow(True)
