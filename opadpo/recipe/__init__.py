"""The recipe: one file for every setting of every step, validated whole before anything starts."""

from opadpo.recipe.model import Recipe, describe, outcome
from opadpo.recipe.reading import (
    apply_overrides,
    dump_recipe,
    load_recipe,
    parse_recipe,
    preset_names,
    preset_text,
)

__all__ = [
    "Recipe",
    "apply_overrides",
    "describe",
    "dump_recipe",
    "load_recipe",
    "outcome",
    "parse_recipe",
    "preset_names",
    "preset_text",
]
