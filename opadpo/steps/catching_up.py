"""The method from anywhere: a workspace made or opened, and whatever is missing before a step, made first."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from opadpo.errors import UserError, WorkspaceError
from opadpo.progress import Progress
from opadpo.recipe import dump_recipe, parse_recipe, preset_text
from opadpo.steps import plans
from opadpo.steps.build import build
from opadpo.steps.caption import caption
from opadpo.steps.evaluate import evaluate
from opadpo.steps.prepare import prepare
from opadpo.steps.result import StepResult
from opadpo.steps.revise import revise
from opadpo.steps.rollout import rollout
from opadpo.steps.status import WorkspaceStatus, status
from opadpo.steps.train import train
from opadpo.workspace import RECIPE_FILE, Workspace


class Step(NamedTuple):
    """One step of the method, as it runs without further questions."""

    run: Callable[[Workspace, Progress], StepResult]
    """Does it, or what is missing of it."""
    makes: tuple[str, ...]
    """Artefacts that have to be done."""


def _train(stage: plans.Stage) -> Callable[[Workspace, Progress], StepResult]:
    return lambda workspace, progress: train(workspace, stage, progress=progress)


MODELS = (plans.BASE, "opa", "opadpo")
"""What the method compares."""

STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "prepare": Step(lambda workspace, progress: prepare(workspace, progress=progress), ("prompts", "base.json")),
        "rollout": Step(lambda workspace, progress: rollout(workspace, progress=progress), ("rollouts",)),
        "revise": Step(lambda workspace, progress: revise(workspace, progress=progress), ("expert",)),
        "build": Step(
            lambda workspace, progress: build(workspace, progress=progress), ("datasets/opa", "datasets/opadpo")
        ),
        "opa": Step(_train("opa"), ("adapters/opa",)),
        "opadpo": Step(_train("opadpo"), ("adapters/opadpo",)),
        "caption": Step(
            lambda workspace, progress: caption(workspace, MODELS, progress=progress, prompt_set="heldout"),
            tuple(f"captions/{model}/heldout.parquet" for model in MODELS),
        ),
        "evaluate": Step(lambda workspace, progress: evaluate(workspace, MODELS, progress=progress), ()),
    }
)
"""The method, in order."""


def run_step(workspace: Workspace, step: str, *, progress: Progress) -> StepResult:
    """Run one step of the method; as everywhere, only what is missing is made.

    Raises:
        UserError: if there is no such step.
        OpadpoError: as the step.
    """
    return _step(step).run(workspace, progress)


def catch_up(workspace: Workspace, before: str, *, progress: Progress) -> list[str]:
    """Run every earlier step whose artefacts are missing or were left half-made; returns their names.

    Each is told first. What is stale stays as it is, and is told.

    Raises:
        UserError: if there is no such step.
        OpadpoError: as the steps.
    """
    _step(before)
    names = list(STEPS)
    ran = []
    for name in names[: names.index(before)]:
        found = status(workspace)
        states = {artefact: _state(found, artefact) for artefact in STEPS[name].makes}
        if name == "revise" and _state(found, "reviews.db") == "done":
            continue  # revisions that were imported or made by people need no expert
        if any(state in ("missing", "partial") for state in states.values()):
            progress.say(f"{_made(states)} not there yet: `{name}` runs first, with this workspace's sizes.")
            for message in STEPS[name].run(workspace, progress).warnings:
                progress.warn(message)
            ran.append(name)
        elif stale := [artefact for artefact, state in states.items() if state == "stale"]:
            progress.warn(f"{', '.join(stale)}: stale, used as it is; `{name}` makes it anew.")
    return ran


def _made(states: Mapping[str, str]) -> str:
    lacking = [artefact for artefact, state in states.items() if state in ("missing", "partial")]
    return f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'}"


def _state(found: WorkspaceStatus, artefact: str) -> str:
    return next((each.state for each in found.artefacts if each.artefact == artefact), "missing")


def _step(name: str) -> Step:
    if name not in STEPS:
        raise UserError("There is no such step", seen=name, remedy=f"use one of {', '.join(STEPS)}")
    return STEPS[name]


def open_or_make(root: Path | str, recipe: str | None = None, settings: Sequence[str] = ()) -> Workspace:
    """Open a workspace, or make it with a recipe and `section.key=value` settings.

    For a workspace that is there `recipe` and `settings` have to agree with its recipe; None and no settings take it
    as it is.

    Raises:
        WorkspaceError: if there is none and no recipe to make one with, or if it was made with another recipe or
            other settings.
        RecipeError: if the recipe has mistakes.
        UserError: if there is no such recipe, or the settings are not a list of texts.
    """
    if isinstance(settings, str) or not all(isinstance(setting, str) for setting in settings):
        raise UserError("The settings are not a list of texts", seen=settings, remedy='write ["section.key=value"]')
    root = Path(root).expanduser()
    if not (root / RECIPE_FILE).exists() and recipe is not None:
        return Workspace.create(root, preset_text(recipe), list(settings))
    workspace = Workspace.open(root)
    if recipe is not None:
        wanted = parse_recipe(preset_text(recipe)).name
        if workspace.recipe.name != wanted:
            raise WorkspaceError(
                "This workspace was made with another recipe",
                seen=f"{root.name}: recipe {workspace.recipe.name}; asked for {wanted}",
                remedy="name another folder, or set `recipe = None` to take the workspace as it is",
            )
    if others := _differing(workspace, settings):
        raise WorkspaceError(
            "This workspace was made with other settings",
            seen=f"{root.name}: {'; '.join(others)}",
            remedy="set `settings = []` to take the workspace as it is, edit its recipe.yaml, or name another folder",
        )
    return workspace


def _differing(workspace: Workspace, settings: Sequence[str]) -> list[str]:
    """Settings that the workspace's recipe has otherwise."""
    asked_for = parse_recipe(dump_recipe(workspace.recipe), list(settings))
    found = []
    for key in dict.fromkeys(setting.partition("=")[0].strip() for setting in settings):
        there, asked = (_value(each.model_dump(mode="json"), key) for each in (workspace.recipe, asked_for))
        if there != asked:
            found.append(f"{key} is {there}, asked for {asked}")
    return found


def _value(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
