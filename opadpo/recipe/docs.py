"""The page about the recipe, made from its fields: `python -m opadpo.recipe.docs > docs/recipes.md`."""

import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from opadpo.recipe.model import FieldInfo, Recipe, describe
from opadpo.recipe.reading import preset_names, preset_text

INTRODUCTION = """\
# Recipes

<!-- Made from the fields in opadpo/recipe/ by `make pages`; change the help texts there. -->

One file, `recipe.yaml` in the workspace, holds every setting of every step. A setting that is not written there has the
default below. The whole file is checked before anything starts, and every mistake is told at once. A command of a step
takes `--set section.key=value` to override a setting for that run, and `opadpo recipe` prints this list.

Settings marked ○ change how fast or where a step runs, never what it makes: changing one leaves everything up to
date. Changing any other makes the artefacts stale that were made with it, and `opadpo status` says so.

Secrets never stand in a recipe: it names the environment variable that holds them.
"""


def page() -> str:
    """The page as Markdown: recipes that ship with the package, then a table per section."""
    return "\n".join([INTRODUCTION, *_presets(), *_section(Recipe, "")])


def _presets() -> Iterator[str]:
    yield "## Recipes that ship with the package\n"
    for name in preset_names():
        first, *_ = preset_text(name).splitlines()
        yield f"- `{name}`: {first.lstrip('# ')}"
    yield "\n`opadpo recipe NAME` prints one, and `opadpo init WORKSPACE --recipe NAME` starts a workspace with it.\n"


def _section(section: type[BaseModel], key: str) -> Iterator[str]:
    if key:
        yield f"{'#' * (key.count('.') + 2)} {key}\n"
        yield f"{' '.join((section.__doc__ or '').split())}\n"
    else:
        yield "## The recipe as a whole\n"
    prefix = f"{key}." if key else ""
    direct = [info for info in describe(section, prefix) if "." not in info.key.removeprefix(prefix)]
    if direct:
        yield "| setting | default | meaning |"
        yield "| --- | --- | --- |"
        yield from (_row(info) for info in direct)
        yield ""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _section(field.annotation, f"{prefix}{name}")
        elif (named := _section_by_name(field.annotation)) is not None:
            yield from _section(named, f"{prefix}{name}.NAME")


def _section_by_name(annotation: Any) -> type[BaseModel] | None:
    """The section of which a setting holds several by names of the user's own; None if it holds something else."""
    value = get_args(annotation)[-1] if get_origin(annotation) is dict else None
    return value if isinstance(value, type) and issubclass(value, BaseModel) else None


def _row(info: FieldInfo) -> str:
    mark = "" if info.outcome else " ○"
    cells = (f"`{info.key}`{mark}", _code(_yaml(info.default)), f"{info.help} ({_code(_choices(info.type))})")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(text: str) -> str:
    return f"`{text}`"


def _choices(annotation: str) -> str:
    """`Literal['a', 'b'] | None` as `a | b | null`."""
    text = re.sub(r"Literal\[(.*?)\]", lambda match: match[1].replace("'", "").replace(", ", " | "), annotation)
    return text.replace("None", "null")


def _yaml(value: Any) -> str:
    """A default as it is written in a recipe file."""
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    print(page(), end="")
