"""What the shell offers on TAB. Everything is looked up on disk; only settings import the recipe."""

from collections.abc import Iterator
from pathlib import Path

import typer

import opadpo


def complete_recipes(incomplete: str) -> list[str]:
    """Names of the recipes that ship with the package."""
    presets = Path(opadpo.__file__).parent / "recipe" / "presets"
    return sorted(path.stem for path in presets.glob("*.yaml") if path.stem.startswith(incomplete))


def complete_settings(incomplete: str) -> list[tuple[str, str]]:
    """Dotted keys of the recipe with their help."""
    from opadpo.recipe import describe

    return [(f"{info.key}=", info.help) for info in describe() if info.key.startswith(incomplete.partition("=")[0])]


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """`base` and the adapters of the workspace that was typed before; the last of several names is completed."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in ("base", *_adapters(ctx)) if name.startswith(last)]


def _adapters(ctx: typer.Context) -> Iterator[str]:
    # An option that still waits for its value stops the parser before it knows which word is the workspace.
    for word in (ctx.params.get("workspace"), *ctx.args):
        folder = Path(word).expanduser() / "adapters" if word else None
        if folder is not None and folder.is_dir():
            yield from sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
            return
