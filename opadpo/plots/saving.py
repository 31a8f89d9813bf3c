"""Figures as files and as text."""

from pathlib import Path

from matplotlib.figure import Figure

from opadpo.files import atomic_write


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (150 dpi), atomically."""
    atomic_write(path, png(figure))


def png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as PNG."""
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """A figure as SVG that needs no font: letters are outlines."""
    import io

    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "opadpo"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
