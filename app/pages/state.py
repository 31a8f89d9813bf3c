"""The workspace tab: what is done, missing and stale, and what to do next."""

from collections.abc import Mapping
from datetime import UTC
from html import escape

import gradio as gr

from app.markup import badge, body, header
from opadpo.errors import OpadpoError
from opadpo.manifest import in_words
from opadpo.plots import FIGURES
from opadpo.review.trust import Trust
from opadpo.steps.status import ArtefactStatus, WorkspaceStatus, status
from opadpo.workspace import Workspace


def build(workspace: Workspace, page: gr.Blocks) -> None:
    """Draw the tab inside an open page."""
    gr.HTML(header("Workspace", workspace.root.name), apply_default_css=False)
    content = gr.HTML(apply_default_css=False, elem_id="state")
    page.load(lambda: render(workspace), None, content, show_progress="hidden", api_visibility="private")
    gr.Timer(5).tick(lambda: render(workspace), None, content, show_progress="hidden", api_visibility="private")


def render(workspace: Workspace) -> str:
    """The state as HTML; a mistake in the recipe is shown in its place."""
    try:
        workspace = Workspace.open(workspace.root)
        found = status(workspace)
        content = _artefacts(workspace, found) + _trust(found.trust) + _figures(workspace)
        return body(f'<main class="o-state">{content}</main>')
    except OpadpoError as error:
        return body(f'<main class="o-state"><pre class="panel o-next">{escape(str(error))}</pre></main>')


def _artefacts(workspace: Workspace, found: WorkspaceStatus) -> str:
    """The table of artefacts, with the command to run next above it."""
    with_reasons = any(artefact.reasons for artefact in found.artefacts)
    rows = "".join(_row(artefact, with_reasons) for artefact in found.artefacts)
    next_step = (
        f'<p class="panel o-next"><span class="label">Next</span><code>{escape(found.next)}</code></p>'
        if found.next
        else '<p class="panel o-next">Everything is made and up to date.</p>'
    )
    return (
        f'<h1>{escape(workspace.root.name)} <span class="muted">recipe {escape(found.recipe)}</span></h1>{next_step}'
        '<div class="panel"><table class="o-table"><thead><tr><th>Artefact</th><th>State</th><th>Holds</th>'
        f"<th>Made</th>{'<th>Why</th>' if with_reasons else ''}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(artefact: ArtefactStatus, with_reasons: bool) -> str:
    when = artefact.finished_at.astimezone(UTC).strftime("%d %b %Y %H:%M UTC") if artefact.finished_at else ""
    reasons = f'<td class="muted o-why">{escape("; ".join(artefact.reasons))}</td>' if with_reasons else ""
    return (
        f"<tr><td><code>{escape(artefact.artefact)}</code></td><td>{badge(artefact.state)}</td>"
        f'<td class="num">{escape(holds(artefact.counts))}</td><td class="num muted o-when">{when}</td>{reasons}</tr>'
    )


def holds(counts: Mapping[str, int]) -> str:
    """Counts in words, without those that are 0 and those that only split another one (`dropped/...`)."""
    return ", ".join(in_words(name, number) for name, number in counts.items() if number and "/" not in name)


def _trust(trust: Trust | None) -> str:
    """What people did with the expert's verdicts: the figures in words, and who gave which score and error type."""
    if trust is None:
        return ""
    matrices = _matrix("Scores", trust.scores) + _matrix("Error types", trust.error_types)
    return (
        '<section class="panel o-trust"><h2>How far to trust the expert</h2>'
        f"<p>{escape(trust.text()).capitalize()}.</p>"
        "<p class=\"muted\">Sentences by verdict: the expert's in rows, people's in columns.</p>"
        f'<div class="o-matrices">{matrices}</div></section>'
    )


def _matrix(title: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """A confusion matrix: a row for each verdict of the expert, a column for each of people."""
    names = list(counts)
    head = "".join(f'<th scope="col">{escape(_words(name))}</th>' for name in names)
    cells = {row: "".join(_cell(counts[row][name], row == name) for name in names) for row in names}
    rows = "".join(f'<tr><th scope="row">{escape(_words(row))}</th>{cells[row]}</tr>' for row in names)
    return f"<table><caption>{title}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(count: int, same: bool) -> str:
    return f'<td class="num{" same" if same else ""}">{count:,}</td>'


def _words(name: str) -> str:
    return name.replace("_", " ").removesuffix(" error")


def _figures(workspace: Workspace) -> str:
    """The figures of the workspace, where a demo has drawn them."""
    there = [name for name in FIGURES if (workspace.root / "figures" / name).is_file()]
    pictures = "".join(
        f'<figure class="panel"><img src="/figures/{name}" alt="{escape(name.removesuffix(".png").replace("_", " "))}">'
        "</figure>"
        for name in there
    )
    return f'<div class="o-figures">{pictures}</div>' if there else ""
