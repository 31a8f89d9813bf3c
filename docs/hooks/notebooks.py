"""Notebooks as pages: Markdown cells as they are, code in fences, outputs as they were stored. Nothing is run."""

import html
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters.ansi import ansi2html

PLACE = '<div class="cell-output" data-output="{}"></div>'
PLACES = re.compile(PLACE.format(r"(\d+)"))
HIDDEN = "hide-input"
"""Tag of cells whose code is not shown."""


def paths(root: Path) -> list[Path]:
    """The notebooks in their order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def title(path: Path) -> str:
    """The first heading."""
    found = re.search(r"^# (.+)$", page(path), re.MULTILINE)
    return found[1] if found else path.stem


def page(path: Path) -> str:
    """The page as Markdown, with an empty place for each output."""
    return _parts(path)[0]


def with_outputs(rendered: str, path: Path) -> str:
    """The page made from `page(path)`, with the outputs in their places."""
    outputs = _parts(path)[1]
    return PLACES.sub(lambda match: f'<div class="cell-output">{outputs[int(match[1])]}</div>', rendered)


@cache
def _parts(path: Path) -> tuple[str, list[str]]:
    blocks: list[str] = []
    outputs: list[str] = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
        elif cell.cell_type == "code":
            if cell.source.strip() and HIDDEN not in cell.metadata.get("tags", []):
                blocks.append(f"````python\n{cell.source}\n````")
            for output in filter(None, map(_output, cell.outputs)):
                blocks.append(PLACE.format(len(outputs)))
                outputs.append(output)
    return "\n\n".join(blocks) + "\n", outputs


def _output(output: Any) -> str:
    """One output as HTML, the richest form that was stored; empty if it has none that a page can show."""
    if output.output_type == "stream":
        return f"<pre>{ansi2html(output.text)}</pre>"
    if output.output_type == "error":
        return f"<pre>{ansi2html(chr(10).join(output.traceback))}</pre>"
    data = output.data
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            return data[kind]
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            return f'<img alt="" src="data:{kind};base64,{data[kind].strip()}">'
    return f"<pre>{html.escape(data['text/plain'])}</pre>" if "text/plain" in data else ""
