"""Arguments and options that several verbs share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from opadpo.cli.completion import complete_models, complete_recipes, complete_settings
from opadpo.errors import UserError

DEFAULT_SET = "heldout"
"""The set of prompts that is meant where none is named."""

Stage = Literal["opa", "opadpo"]

WorkspacePath = Annotated[Path, typer.Argument(metavar="WORKSPACE", help="The project's folder.", show_default=False)]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="A recipe that ships with the package, or the path of a .yaml file.",
        autocompletion=complete_recipes,
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a setting of the recipe for this run (repeatable); `opadpo recipe` lists them.",
        autocompletion=complete_settings,
        show_default=False,
    ),
]
OverridesAndSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME|SECTION.KEY=VALUE",
        help="Without `=`: the name of the set of prompts [heldout]. With `=`: override a setting of the recipe for"
        " this run (repeatable).",
        autocompletion=complete_settings,
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME[,NAME]",
        help="`base`, or adapters by name; several with commas, or repeat the option.",
        autocompletion=complete_models,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON as the result on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use what is on this machine; never reach for the hub.")]

OtherRecipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE.yaml",
        help="Read this recipe instead of the workspace's recipe.yaml.",
        show_default=False,
    ),
]

COMMON: dict[str, tuple[Any, Any]] = {"as_json": (AsJson, False), "quiet": (Quiet, False)}
"""Options of every verb: parameter name -> (annotated type, default)."""

RECIPE: dict[str, tuple[Any, Any]] = {"overrides": (Overrides, None), **COMMON}
"""Options of verbs that read a recipe but run nothing."""

STEP: dict[str, tuple[Any, Any]] = {
    "overrides": (Overrides, None),
    "recipe_file": (OtherRecipe, None),
    "offline": (Offline, False),
    **COMMON,
}
"""Options of every step."""

RECIPE_WITH_SET: dict[str, tuple[Any, Any]] = {**RECIPE, "overrides": (OverridesAndSet, None)}
"""Options of verbs that read a recipe and a named set of prompts; both meanings of `--set`."""

STEP_WITH_SET: dict[str, tuple[Any, Any]] = {**STEP, "overrides": (OverridesAndSet, None)}
"""The same for steps that work on a named set of prompts; both meanings of `--set`."""


def split_names(values: list[str] | None) -> list[str]:
    """The names in `a,b` and repeated options, in order, each once."""
    names = [name.strip() for value in values or [] for name in value.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def split_set(values: list[str] | None) -> tuple[list[str], str | None]:
    """(overrides, name of the set of prompts) of a `--set` that means both; names never contain `=`.

    Raises:
        UserError: if two sets are named.
    """
    overrides = [value for value in values or [] if "=" in value]
    names = list(dict.fromkeys(value for value in values or [] if "=" not in value))
    if len(names) > 1:
        raise UserError(
            "One set of prompts at a time",
            seen=", ".join(names),
            remedy="give --set NAME once, or write section.key=value",
        )
    return overrides, names[0] if names else None
