"""Verbs that hand a workspace's contents on to other programs, and take them back."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from opadpo.cli import layout
from opadpo.cli.options import RECIPE
from opadpo.cli.running import Outcome, Run, verb


@verb(options=RECIPE)
def export(
    run: Run,
    format: Annotated[
        Literal["reviews"], typer.Option("--format", metavar="reviews", help="What to write.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to [WORKSPACE/exports/FORMAT.jsonl].", show_default=False),
    ] = None,
) -> Outcome:
    """Write contents of the workspace into a file for other programs.

    reviews: every revision, decision and draft, one JSON object per line; `opadpo import-reviews` takes it back.
    """
    from opadpo.review.exchange import export_reviews
    from opadpo.review.store import ReviewStore

    path = output or run.workspace.root / "exports" / f"{format}.jsonl"
    with ReviewStore.of(run.workspace) as store:
        counts = export_reviews(store, path)
    return Outcome({"step": "export", "status": "done", "outputs": [str(path)], "counts": counts}, _text(path, counts))


@verb(options=RECIPE)
def import_reviews(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.", show_default=False)],
    run: Run,
) -> Outcome:
    """Add the reviews of a file to the workspace; what is there already is left alone."""
    from opadpo.review.exchange import import_reviews as call
    from opadpo.review.store import ReviewStore

    with ReviewStore.of(run.workspace) as store:
        counts = call(file, store)
    return Outcome({"step": "import-reviews", "status": "done", "counts": counts}, _text(file, counts))


def _text(path: Path, counts: dict[str, int]) -> str:
    parts = [f"{layout.number(count)} {name}" for name, count in counts.items() if count]
    return f"{path}: {', '.join(parts) or 'nothing'}"


def register(cli: typer.Typer) -> None:
    """Add the verbs to the command line."""
    cli.command()(export)
    cli.command("import-reviews")(import_reviews)
