"""Verbs that hand a workspace's contents on to other programs, and take them back."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from opadpo.cli import layout
from opadpo.cli.completion import complete_models
from opadpo.cli.options import DEFAULT_SET, RECIPE, RECIPE_WITH_SET, split_set
from opadpo.cli.running import Outcome, Run, verb
from opadpo.errors import UserError


@verb(options=RECIPE_WITH_SET)
def export(
    run: Run,
    format: Annotated[
        Literal["reviews", "lmms-eval", "vlmevalkit"],
        typer.Option("--format", metavar="reviews|lmms-eval|vlmevalkit", help="What to write.", show_default=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="lmms-eval, vlmevalkit: whose captions.",
            autocompletion=complete_models,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to [a file in WORKSPACE/exports].", show_default=False),
    ] = None,
) -> Outcome:
    """Write contents of the workspace into a file for other programs.

    reviews: every revision, decision and draft, one JSON object per line; `opadpo import-reviews` takes it back.

    lmms-eval, vlmevalkit: a model's captions of a set of prompts (--set NAME) as predictions of those programs.
    """
    run.overrides, prompt_set = split_set(run.overrides)
    if format == "reviews":
        path, counts = _export_reviews(run, output)
    else:
        from opadpo.steps.exporting import export_predictions

        if model is None:
            raise UserError("Whose captions?", seen="no --model", remedy="name one, for instance --model base")
        path, counts = export_predictions(run.workspace, model, prompt_set or DEFAULT_SET, format, output)
    return Outcome({"step": "export", "status": "done", "outputs": [str(path)], "counts": counts}, _text(path, counts))


def _export_reviews(run: Run, output: Path | None) -> tuple[Path, dict[str, int]]:
    from opadpo.review.exchange import export_reviews
    from opadpo.review.store import ReviewStore

    path = output or run.workspace.root / "exports" / "reviews.jsonl"
    with ReviewStore.of(run.workspace) as store:
        return path, export_reviews(store, path)


@verb(options=RECIPE)
def import_reviews(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.", show_default=False)],
    run: Run,
) -> Outcome:
    """Add the reviews of a file to the workspace; what is there already is left alone.

    It is added whole or not at all. What people decided can be taken back at the desk, but never be removed.
    """
    from opadpo.review.exchange import import_reviews as call
    from opadpo.review.store import ReviewStore
    from opadpo.tables import iter_rollouts

    with ReviewStore.of(run.workspace) as store:
        counts = call(file, store)
        reviewed = store.rollouts()
    if run.workspace.manifest("rollouts") is not None:
        strange = len(reviewed - {rollout.rollout_id for rollout in iter_rollouts(run.workspace)})
        if strange:
            run.progress.warn(
                f"{layout.number(strange)} of the {layout.number(len(reviewed))} records with revisions are not among"
                " the rollouts of this workspace: is the file of another one?"
            )
    return Outcome({"step": "import-reviews", "status": "done", "counts": counts}, _text(file, counts))


def _text(path: Path, counts: dict[str, int]) -> str:
    parts = [
        f"{layout.number(count)} {name if count > 1 else name.removesuffix('s')}"
        for name, count in counts.items()
        if count
    ]
    return f"{path}: {', '.join(parts) or 'nothing'}"


def register(cli: typer.Typer) -> None:
    """Add the verbs to the command line."""
    cli.command()(export)
    cli.command("import-reviews")(import_reviews)
