"""Figures as files and as text."""

import base64
import re
from pathlib import Path

from matplotlib.figure import Figure

from opadpo.files import atomic_write
from opadpo.plots.style import DARK, TEXT

COLOR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")
HATCHED = re.compile(r'fill="(#[0-9a-f]{6})"')
"""The ground of a hatched area, which is no style in the file."""
LONG = re.compile(r"\b(\d+\.\d\d)\d+\b(?![\"%]?\))")
"""A length to more than a hundredth of a point."""
LOOK = '<style type="text/css">'


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
    """A figure as SVG in the colours of the page that shows it, light or dark; its letters are the reader's.

    As an image it goes by the `color-scheme` of the element that holds it. Where that is not understood it is light.
    """
    import io

    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "opadpo", "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # Black text has no colour of its own in the file: it takes that of the whole.
    look = f"{LOOK}svg{{color-scheme: light dark; {_twin('fill', TEXT)}}} "
    text = LONG.sub(r"\1", buffer.getvalue().decode())
    text = HATCHED.sub(r'style="fill: \1"', text)
    text = COLOR.sub(lambda match: _twin(match[1], match[2]), text)
    return text.replace(LOOK, look, 1).encode()


def _twin(what: str, color: str) -> str:
    """A colour as a declaration, with its twin behind it for those who know what that means."""
    plain = f"{what}: {color}"
    return f"{plain}; {what}: light-dark({color}, {DARK[color]})" if color in DARK else plain


def svg_uri(figure: Figure) -> str:
    """A figure as SVG in a data URI."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg(figure)).decode()}"


def described(figure: Figure) -> str:
    """What a figure shows, in the words of its titles: for those who cannot see it."""
    titles = (axes.get_title(loc="left") for axes in figure.axes)
    return "Figure: " + "; ".join(title for title in titles if title)
