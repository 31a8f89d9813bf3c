"""Verbs before the first step: a try-out, a new workspace, what is installed, recipes."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from opadpo.cli import layout
from opadpo.cli.completion import complete_recipes
from opadpo.cli.options import RECIPE, RecipeName
from opadpo.cli.running import Outcome, Run, verb
from opadpo.errors import UserError


@verb(workspace=False)
def demo(
    run: Run,
    workspace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep everything here, and continue what is here.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Draws scenes, samples and training order [0].", show_default=False),
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of training images [500].", show_default=False)
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the temporary workspace that is used without DIR.")
    ] = False,
) -> Outcome:
    """Run the whole method on a tiny world, in minutes on a CPU.

    Samples, corrects, trains and compares a tiny vision-language model that makes things up; draws a table and three
    figures. Needs no internet and no GPU. Run again with the same --workspace, it continues where it was stopped.
    """
    from opadpo.steps.demo import demo as call

    result = call(workspace, seed=seed, size=size, keep=keep, progress=run.progress)
    run.progress.warn_of_rest(result.warnings)
    return Outcome(result.model_dump(mode="json"), layout.summary(result, None))


@verb(options=RECIPE)
def init(
    run: Run,
    recipe: RecipeName = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="WORKSPACE",
            help="Take over what another workspace has made and the new recipe leaves valid (hard links where the"
            " disk allows). Without --recipe its recipe is taken as well.",
            show_default=False,
        ),
    ] = None,
) -> Outcome:
    """Make a workspace: a folder with a recipe.

    --set writes the values into the new recipe file. With --from, prompts, the pinned base model, rollouts,
    revisions, data sets and adapters are linked as long as they would come out the same under the new recipe;
    the rest is made again by its step.
    """
    from opadpo.steps.init import init as make

    assert run.root is not None
    result = make(run.root, recipe, source=source, overrides=run.overrides, progress=run.progress)
    made = f"made {run.root} with " + ", ".join(["recipe.yaml", *result.outputs])
    following = f"next: look at {run.root / 'recipe.yaml'}, then run `opadpo status {shlex.quote(str(run.root))}`"
    return Outcome(result.model_dump(mode="json"), f"{made}\n{following}")


@verb(workspace=False)
def doctor(
    run: Run,
    recipe: RecipeName = None,
    workspace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Check the disk under this workspace, and its recipe.", show_default=False),
    ] = None,
) -> Outcome:
    """Check this machine: what is missing, what that costs you.

    Each line that is not ok comes with what to do.
    Exit status 1 if something is missing that the package or the recipe cannot work without.
    """
    from opadpo.doctor import examine

    report = examine(recipe=recipe, workspace=workspace)
    text = f"{layout.checks_table(report.checks)}\n\n{report.verdict}"
    return Outcome(report.as_dict(), text, exit_status=1 if report.missing else 0, always=True)


@verb(workspace=False)
def recipe(
    run: Run,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Print this recipe (or .yaml file) instead.",
            autocompletion=complete_recipes,
            show_default=False,
        ),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only settings below this key, for example train.opa.", show_default=False),
    ] = None,
) -> Outcome:
    """List all settings with their meaning, or print a recipe."""
    import yaml

    from opadpo.recipe import describe, parse_recipe, preset_names, preset_text

    if name is not None:
        text = preset_text(name)
        settings = parse_recipe(text).model_dump(mode="json")
        if section is not None:
            settings = _part(settings, section)
            text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        return Outcome({"recipe": name, "settings": settings}, text.rstrip(), always=True)
    infos = [i for i in describe() if section is None or i.key == section or i.key.startswith(f"{section}.")]
    if not infos:
        raise _no_section(section)
    lines = [f"{info.key}  ({info.type}) = {info.default}\n{layout.table([(info.help,)], indent=4)}" for info in infos]
    lines.append(f"\nRecipes: {', '.join(preset_names())}. `opadpo recipe NAME` prints one.")
    return Outcome({"settings": [i._asdict() for i in infos], "recipes": preset_names()}, "\n".join(lines), always=True)


def _part(settings: dict[str, Any], section: str) -> dict[str, Any]:
    """The settings below a dotted key, in their place.

    Raises:
        UserError: if there is no such key.
    """
    value: Any = settings
    parts = section.split(".")
    try:
        for part in parts:
            value = value[part]
    except (KeyError, TypeError) as error:
        raise _no_section(section) from error
    for part in reversed(parts):
        value = {part: value}
    return value


def _no_section(section: str | None) -> UserError:
    from opadpo.recipe import describe

    known = ", ".join(dict.fromkeys(info.key.partition(".")[0] for info in describe()))
    return UserError("There is no such section", seen=section, remedy=f"use one of {known}")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(demo)
    app.command()(init)
    app.command()(doctor)
    app.command()(recipe)
