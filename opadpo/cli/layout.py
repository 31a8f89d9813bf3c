"""Plain text for people: aligned tables and the summary of a step."""

import shlex
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opadpo.checks import Check
    from opadpo.steps.result import Score, StepResult

NEXT = {
    "prepare": "opadpo rollout {workspace}",
    "rollout": "opadpo revise {workspace}",
    "revise": "opadpo build {workspace}",
    "build": "opadpo train opa {workspace}",
    "train opa": "opadpo train opadpo {workspace}",
    "train opadpo": "opadpo caption {workspace} --model base,opa,opadpo",
    "caption": "opadpo evaluate {workspace}",
    "evaluate": "opadpo report {workspace}",
}
"""Step -> the command that usually follows."""


def table(rows: Sequence[Sequence[str]], *, header: Sequence[str] | None = None, indent: int = 2) -> str:
    """Columns of text under each other; the last column is wrapped to the terminal's width."""
    lines = [*([header] if header else []), *rows]
    if not lines:
        return ""
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]) - 1)]
    offset = indent + sum(width + 2 for width in widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - offset, 30)
    text = []
    for row in lines:
        start = " " * indent + "".join(cell.ljust(width + 2) for cell, width in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
        text.append((start + wrapped[0]).rstrip())
        text += [" " * offset + line for line in wrapped[1:]]
    return "\n".join(text)


def checks_table(checks: "Sequence[Check]") -> str:
    """Findings under each other, then what each that is not ok costs and what to do about it."""
    text = [table([(check.state, check.name, check.seen) for check in checks])]
    for check in checks:
        if check.state != "ok":
            text.append(f"\n{check.name}: {check.cost}\n" + table([(f"-> {check.remedy}",)]))
    return "\n".join(text)


def number(value: Any) -> str:
    """A figure as people write it: thousands apart, floats short."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def duration(seconds: float) -> str:
    """`8.1 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def words(key: str) -> str:
    """A key of a result as a label."""
    return key.replace("_", " ")


def summary(result: "StepResult", root: Path | None) -> str:
    """What a step did: counts, figures, rows left out and why, what was written, and the command that follows."""
    if result.status == "up_to_date":
        head = f"{result.step}: everything is there already, nothing to do"
    else:
        head = f"{result.step}: done" + (f" in {duration(result.seconds)}" if result.seconds else "")
    parts = [head]
    if result.counts:
        parts.append(table([(words(key), number(value)) for key, value in result.counts.items()]))
    if result.scores:
        parts.append(scores_table(result.scores))
    elif result.figures:
        parts.append(_figures(result.figures))
    if result.dropped:
        rows = [(words(reason), number(count)) for reason, count in result.dropped.items()]
        parts.append("left out:\n" + table(rows))
    if result.outputs and result.status == "done":
        parts.append("wrote " + ", ".join(result.outputs))
    following = NEXT.get(result.step)
    if following and root is not None:
        parts.append(
            "next: " + " ".join([following.format(workspace=shlex.quote(str(root))), *result.following.split()])
        )
    return "\n".join(parts)


_ARROWS = {"lower": "↓", "higher": "↑", None: " "}


def scores_table(scores: "Sequence[Score]") -> str:
    """Per benchmark and metric a row per model: value, interval, difference to the base; parts of it are left out."""
    text = []
    for title in dict.fromkeys(score.title for score in scores):
        own = [score for score in scores if score.title == title]
        models = {score.model: score for score in own}
        counted = ", ".join(
            f"{model} {number(score.n)}" + (f" ({number(score.failed)} failed)" if score.failed else "")
            for model, score in models.items()
        )
        text.append(f"{title}; N: {counted}")
        rows = []
        for metric in dict.fromkeys(score.metric for score in own if "/" not in score.metric):
            for place, score in enumerate(score for score in own if score.metric == metric):
                label = f"{_ARROWS[score.direction]} {words(metric)}" if place == 0 else ""
                rows.append((label, score.model, *_cells(score)))
        header = ("", "", "value", "interval", "less base", "interval", "p")
        width = len(header) if any(score.difference for score in own) else 4
        text.append(table([row[:width] for row in rows], header=header[:width]))
    if any("/" in score.metric for score in scores):
        text.append("  parts of the questions: in the evaluations' files, and with --json")
    text.append("  ↓ lower is better, ↑ higher is better")
    return "\n".join(text)


def _cells(score: "Score") -> tuple[str, ...]:
    value = (f"{score.value:.1f}", f"{score.low:.1f} to {score.high:.1f}")
    found = score.difference
    if found is None:
        return (*value, "", "", "")
    p_value = f"{found.p_value:.4f}" if found.p_value >= 0.0001 else "<0.0001"
    return (*value, f"{found.value:+.1f}", f"{found.low:+.1f} to {found.high:+.1f}", p_value)


def _figures(figures: Mapping[str, Any]) -> str:
    """Figures by name; those of mappings (model -> benchmark -> metric -> value) in a table, a row per mapping."""
    text = []
    plain = [(words(key), number(value)) for key, value in figures.items() if not isinstance(value, Mapping)]
    if plain:
        text.append(table(plain))
    rows = list(_leaves({key: value for key, value in figures.items() if isinstance(value, Mapping)}))
    if rows:
        depth = max(len(path) for path, _ in rows)
        columns = list(dict.fromkeys(column for _, values in rows for column in values))
        cells = [
            (*path, *[""] * (depth - len(path)), *[number(values.get(column, "")) for column in columns])
            for path, values in rows
        ]
        text.append(table(cells, header=(*[""] * depth, *[words(column) for column in columns])))
    return "\n".join(text)


def _leaves(figures: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(names on the way, plain values) of every mapping that has plain values."""
    values = {key: value for key, value in figures.items() if not isinstance(value, Mapping)}
    if values:
        yield path, values
    for key, inner in figures.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, (*path, words(key)))
