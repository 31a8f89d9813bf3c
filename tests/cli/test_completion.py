"""What the shell offers on TAB."""

from pathlib import Path

import typer
from typer.main import get_command

from opadpo.cli.completion import complete_models, complete_recipes, complete_settings
from opadpo.cli.entry import app
from opadpo.recipe import preset_names


def test_recipes() -> None:
    assert complete_recipes("") == preset_names()
    assert complete_recipes("to") == ["toy"]


def test_settings_come_with_their_help() -> None:
    offered = dict(complete_settings("rollout.temp"))
    assert list(offered) == ["rollout.temperature="]
    assert "greedy" in offered["rollout.temperature="]


def test_models_are_those_of_the_workspace(finished: Path) -> None:
    context = typer.Context(get_command(app))
    context.params["workspace"] = finished
    assert complete_models(context, "") == ["base", "dpo", "opa", "opadpo"]
    assert complete_models(context, "base,op") == ["base,opa", "base,opadpo"]
    context.params["workspace"] = None
    assert complete_models(context, "") == ["base"]
