"""Figures that compare models by what they say."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from opadpo.plots.style import BAD, GOOD, MUTED, SERIES, calm, series


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
    calm(axes)
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
