"""The method from anywhere: a workspace made or opened, and whatever is missing before a step, made first."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from opadpo.errors import UserError, WorkspaceError
from opadpo.files import given_path
from opadpo.progress import Progress
from opadpo.recipe import dump_recipe, parse_recipe, preset_text
from opadpo.steps import plans
from opadpo.steps.benchmarks import benchmark_of
from opadpo.steps.build import build
from opadpo.steps.caption import caption
from opadpo.steps.evaluate import evaluate
from opadpo.steps.prepare import prepare
from opadpo.steps.result import StepResult
from opadpo.steps.revise import revise
from opadpo.steps.rollout import rollout
from opadpo.steps.sets import HELDOUT
from opadpo.steps.status import WorkspaceStatus, status
from opadpo.steps.train import train
from opadpo.workspace import RECIPE_FILE, Workspace

MODELS = (plans.BASE, "opa", "opadpo")
"""What the method compares."""

Run = Callable[[Workspace, Sequence[str], Progress], StepResult]
"""Does a step, or what is missing of it; the last ones with these models."""


class Step(NamedTuple):
    """One step of the method, as it runs without further questions."""

    run: Run
    makes: tuple[str, ...]
    """Artefacts that have to be done."""


def _train(stage: plans.Stage) -> Run:
    return lambda workspace, _, progress: train(workspace, stage, progress=progress)


def _caption(workspace: Workspace, models: Sequence[str], progress: Progress) -> StepResult:
    sets = captioned_sets(workspace)
    return together([caption(workspace, models, progress=progress, prompt_set=each) for each in sets])


def together(results: Sequence[StepResult]) -> StepResult:
    """One result of a step that was run for several sets of prompts with the same models."""
    counts = Counter(results[0].counts)
    for result in results[1:]:
        counts.update({name: number for name, number in result.counts.items() if name != "models"})
    return results[0].model_copy(
        update={
            "status": "done" if any(each.status == "done" for each in results) else "up_to_date",
            "outputs": [output for each in results for output in each.outputs],
            "counts": dict(counts),
            "warnings": list(dict.fromkeys(warning for each in results for warning in each.warnings)),
        }
    )


def _evaluate(workspace: Workspace, models: Sequence[str], progress: Progress) -> StepResult:
    if not workspace.recipe.evaluate.benchmarks:
        return StepResult(step="evaluate", status="up_to_date", outputs=[], warnings=[NO_BENCHMARK])
    return evaluate(workspace, models, progress=progress)


NO_BENCHMARK = "The recipe names no benchmark, so nothing counts what is made up: `evaluate.benchmarks` takes some."

STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "prepare": Step(lambda workspace, _, progress: prepare(workspace, progress=progress), ("prompts", "base.json")),
        "rollout": Step(lambda workspace, _, progress: rollout(workspace, progress=progress), ("rollouts",)),
        "revise": Step(lambda workspace, _, progress: revise(workspace, progress=progress), ("expert",)),
        "build": Step(
            lambda workspace, _, progress: build(workspace, progress=progress), ("datasets/opa", "datasets/opadpo")
        ),
        "opa": Step(_train("opa"), ("adapters/opa",)),
        "opadpo": Step(_train("opadpo"), ("adapters/opadpo",)),
        "caption": Step(_caption, tuple(f"captions/{model}/{HELDOUT}.parquet" for model in MODELS)),
        "evaluate": Step(_evaluate, ()),
    }
)
"""The method, in order."""


def captioned_sets(workspace: Workspace) -> list[str]:
    """The sets that models describe: the held-out prompts, and those of the recipe's benchmarks.

    Raises:
        UserError: if a benchmark is unknown.
    """
    return list(dict.fromkeys([HELDOUT, *(benchmark_of(n).prompt_set for n in workspace.recipe.evaluate.benchmarks)]))


def checked_models(models: Sequence[str]) -> list[str]:
    """Names of models, each once.

    Raises:
        UserError: if they are not a list of names, or there is none.
    """
    if isinstance(models, str) or not isinstance(models, Sequence) or not all(isinstance(each, str) for each in models):
        raise UserError("The models are not a list of names", seen=repr(models), remedy='write ["base", "opadpo"]')
    if not models:
        raise UserError("No model is named", seen="[]", remedy='write ["base", "opadpo"]')
    return list(dict.fromkeys(models))


def run_step(workspace: Workspace, step: str, *, progress: Progress, models: Sequence[str] = MODELS) -> StepResult:
    """Run one step of the method; as everywhere, only what is missing is made.

    Args:
        workspace: where.
        step: a name of `STEPS`.
        progress: told how far it is.
        models: which ones describe images and are scored; of no meaning to the other steps.

    Raises:
        UserError: if there is no such step, or the models are not a list of names.
        OpadpoError: as the step.
    """
    return _step(step).run(workspace, checked_models(models), progress)


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
            for message in STEPS[name].run(workspace, MODELS, progress).warnings:
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
    if not isinstance(settings, list | tuple) or not all(isinstance(setting, str) for setting in settings):
        raise UserError(
            "The settings are not a list of texts",
            seen=repr(settings),
            remedy='write ["section.key=value"], or []',
        )
    if recipe is not None and not isinstance(recipe, str):
        raise UserError(
            "The recipe is not a name", seen=repr(recipe), remedy='write "toy", or None to take a workspace as it is'
        )
    root = given_path(root, "workspace")
    if not (root / RECIPE_FILE).exists() and recipe is not None:
        return Workspace.create(root, preset_text(recipe), list(settings))
    workspace = Workspace.open(root)
    if recipe is not None:
        wanted = parse_recipe(preset_text(recipe)).name
        if workspace.recipe.name != wanted:
            raise WorkspaceError(
                "This workspace was made with another recipe",
                seen=f"{workspace.root.name}: recipe {workspace.recipe.name}; asked for {wanted}",
                remedy="name another folder, or set `recipe = None` to take the workspace as it is",
            )
    if others := _differing(workspace, settings):
        raise WorkspaceError(
            "This workspace was made with other settings",
            seen=f"{workspace.root.name}: {'; '.join(others)}",
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
