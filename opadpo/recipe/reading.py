"""Reading, overriding and writing recipes; every mistake is reported at once."""

import copy
import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from opadpo.errors import RecipeError, UserError
from opadpo.recipe.checks import impossible_combinations
from opadpo.recipe.model import Recipe, describe


class _Loader(yaml.SafeLoader):
    """YAML without its habit of taking the last of several values of one key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if key.tag != "tag:yaml.org,2002:merge" and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def preset_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("opadpo.recipe") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """The commented YAML of a preset, or of a file whose path is given.

    Raises:
        UserError: if there is neither such a preset nor such a file.
    """
    if name in preset_names():
        return (resources.files("opadpo.recipe") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.read_text(encoding="utf-8")
    raise UserError(
        "There is no such recipe",
        seen=name,
        remedy=f"use one of {', '.join(preset_names())}, or the path of a .yaml file",
    )


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key=value` overrides.

    Raises:
        UserError: if there is no such file.
        RecipeError: with every mistake in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError("There is no such recipe file", seen=path, remedy="name a .yaml file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            [f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"], source=str(path)
        ) from error
    return parse_recipe(text, overrides, source=path.name)


def parse_recipe(text: str, overrides: list[str] | None = None, *, source: str = "recipe") -> Recipe:
    """Parse and validate the text of a recipe.

    Raises:
        RecipeError: with every mistake in it.
    """
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(
            [f"not valid YAML: {' '.join(str(error).split())}; mend the line named"], source=source
        ) from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise RecipeError([f"the top level must be a mapping of sections; seen {type(data).__name__}"], source=source)
    data, wrong_overrides = _override(data, overrides or [])
    recipe, problems = _validate(data)
    if recipe is None or wrong_overrides:
        raise RecipeError([*wrong_overrides, *problems], source=source if problems else "command line")
    return recipe


def apply_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of recipe data with `section.key=value` overrides; values are YAML.

    Raises:
        RecipeError: for an override without `=` or through a value that is no section.
    """
    result, problems = _override(data, overrides)
    if problems:
        raise RecipeError(problems, source="command line")
    return result


def _override(data: dict[str, Any], overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """A copy of recipe data with those overrides that can be read, and what is wrong with the others."""
    result, problems = copy.deepcopy(data), []
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key.strip():
            problems.append(f"--set {override!r}: write section.key=value")
            continue
        *path, last = key.strip().split(".")
        node: Any = result
        for part in path:
            if isinstance(node, dict):
                node[part] = {} if node.get(part) is None else node[part]
                node = node[part]
        if not isinstance(node, dict):
            problems.append(f"--set {override!r}: {'.'.join(path)} is a value, not a section")
            continue
        try:
            node[last] = yaml.safe_load(value) if value else None
        except yaml.YAMLError:
            problems.append(f"--set {override!r}: the value is not valid YAML; quote it")
    return result, problems


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every field written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _validate(data: dict[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, or None with every mistake in it."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors()]
        return None, [*problems, *_remaining_problems(data, error)]
    problems = impossible_combinations(recipe)
    return (None if problems else recipe), problems


def _remaining_problems(data: dict[str, Any], error: ValidationError) -> list[str]:
    """Impossible combinations of what is left when the invalid keys are taken out, so that all are told at once."""
    remaining = copy.deepcopy(data)
    for detail in error.errors():
        _remove(remaining, [str(part) for part in detail["loc"]])
    try:
        return impossible_combinations(Recipe.model_validate(remaining))
    except ValidationError:
        return []


def _remove(data: Any, path: list[str]) -> None:
    for depth, part in enumerate(path):
        if not isinstance(data, dict):
            return
        key = next((k for k in data if str(k) == part), None)
        if key is None:
            return
        if depth == len(path) - 1 or not isinstance(data[key], dict):
            del data[key]
            return
        data = data[key]


def _problem(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        names = [info.key for info in describe()]
        names += sorted({name.rsplit(".", depth)[0] for name in names for depth in (1, 2) if name.count(".") >= depth})
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else "remove it; `opadpo recipe` lists every key"
        return f"{key}: unknown key, seen {detail['input']!r}; {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    help_text = next((info.help for info in describe() if info.key == key), "")
    return f"{key}: {message}, seen {detail['input']!r}" + (f"; meaning: {help_text}" if help_text else "")
