"""Verbs that show a workspace."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from opadpo.cli import layout
from opadpo.cli.options import RECIPE
from opadpo.cli.running import Outcome, Run, verb

if TYPE_CHECKING:
    from opadpo.steps.status import ArtefactStatus, WorkspaceStatus

COLOURS = {"done": typer.colors.GREEN, "stale": typer.colors.YELLOW, "partial": typer.colors.CYAN}

MAX_COUNTS = 4
ALWAYS = ("failed", "requests_at_batch_service", "dropped", "reviewed", "rejected", "flagged", "unresolved")
"""Counts that the table never leaves out; the others beyond `MAX_COUNTS` are in `--json`."""


@verb(options=RECIPE)
def status(run: Run) -> Outcome:
    """Say what is done, missing or stale, why, and what comes next."""
    from opadpo.steps.status import status as look

    found = look(run.workspace)
    return Outcome(found.model_dump(mode="json"), status_text(found), always=True)


def status_text(found: "WorkspaceStatus") -> str:
    """The table of `opadpo status`."""
    rows: list[tuple[str, ...]] = []
    for artefact in found.artefacts:
        rows.append((artefact.state, artefact.artefact, _when(artefact.finished_at), _contents(artefact)))
        rows += [("", "", "", f"- {reason}") for reason in artefact.reasons]
    lines = layout.table(rows, header=("state", "artefact", "made", "")).splitlines()
    text = [f"{found.workspace}  (recipe {found.recipe})", ""]
    for line in lines:
        state = line[2:].partition(" ")[0]
        text.append(typer.style(line, fg=COLOURS[state]) if state in COLOURS else line)
    if found.trust is not None:
        text += ["", found.trust.text()]
    if found.agreement is not None:
        text += ["", found.agreement.text()]
    text += ["", f"next: {found.next}" if found.next else "Everything is there and up to date."]
    return "\n".join(text)


def _contents(artefact: "ArtefactStatus") -> str:
    from opadpo.manifest import in_words

    counts = {key: value for key, value in artefact.counts.items() if value and "/" not in key}
    shown = [key for place, key in enumerate(counts) if place < MAX_COUNTS or key in ALWAYS]
    parts = [in_words(key, counts[key]) for key in shown]
    if artefact.writer:
        parts.append(f"being written by {artefact.writer}")
    if artefact.overrides:
        parts.append("with " + " ".join(f"--set {override}" for override in artefact.overrides))
    return ", ".join(parts)


def _when(moment: datetime | None) -> str:
    if moment is None:
        return ""
    age = (datetime.now(UTC) - moment).total_seconds()
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= seconds:
            return f"{age // seconds:.0f} {unit} ago"
    return "just now"


def _file(name: str, help: str) -> Any:
    return typer.Option(name, metavar="FILE", exists=True, dir_okay=False, help=help, show_default=False)


@verb()
def app(
    run: Run,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen at; another than this machine's needs accounts.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen at; 0 takes a free one.")
    ] = 7860,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in your browser.")] = False,
    certificate: Annotated[Path | None, _file("--certificate", "Speak HTTPS with this certificate (PEM).")] = None,
    key: Annotated[Path | None, _file("--key", "The certificate's private key, if it is not in the same file.")] = None,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Believe the X-Forwarded headers of the proxy here.", show_default=False),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The address that people use, if a proxy answers it.", show_default=False),
    ] = None,
) -> Outcome:
    """Open the workspace in the browser.

    Shows its state, and its rollouts with images and revisions, until Ctrl+C. Without accounts it is opened with the
    link that it prints, on this machine only; `opadpo users add` makes accounts.
    """
    from app.listening import Address
    from app.server import serve

    try:
        address = Address(host, port, certificate, key, proxy, public_url)
        serve(run.workspace, address, open_browser=browser)
    except KeyboardInterrupt:
        run.progress.say("closed")
    return Outcome({"step": "app", "status": "closed"}, "")


def register(cli: typer.Typer) -> None:
    """Add the verbs to the command line."""
    cli.command()(status)
    cli.command()(app)
