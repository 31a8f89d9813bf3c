"""From a filled-in form to a request for a job, and back."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from pydantic import ValidationError

from app.jobs import forms
from app.jobs.messages import Choice, Entered, Form, Previewed, Problem
from opadpo.errors import RecipeError, UserError
from opadpo.jobs.record import STEPS, Job, JobRequest
from opadpo.jobs.service import Jobs
from opadpo.recipe import Recipe, parse_recipe, preset_names, preset_text
from opadpo.workspace import Workspace

KINDS = {"local": "here", "ssh": "by SSH", "slurm": "Slurm"}
TRAINED = ("opa", "opadpo")
PATHS = frozenset({"path", "images", "mmhal_template", "base"})
"""Settings that name files or folders, by the last part of their keys."""
NAMED = frozenset({"name", "start", "models", "prompt_set", "steps", "gpus", "target", "preset", "title"})
_KEY = re.compile(r"^(?:--set )?['\"]?([\w.\[\]]+)(?:=[^:]*)?: ")


class Submitting:
    """What the dialog of a new job asks."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def form(self, step: str | None, preset: str | None, clone: str | None, change: str | None) -> Form:
        """An empty form, or that of a job to clone, with one more setting changed to `change` (`key=value`).

        Raises:
            NotFound: if there is no such job.
            UserError: if there is no such step or preset.
        """
        entered = self._taken_from(self._jobs.get(clone)) if clone else Entered(step=step or "opadpo", preset=preset)
        base = self._base(entered.preset)
        if change:
            entered = entered.model_copy(update={"values": {**entered.values, **forms.values_of([change], base)}})
        if entered.step not in forms.STEPS:
            raise UserError("There is no such step", seen=entered.step, remedy=f"use one of {', '.join(forms.STEPS)}")
        workspace = self._workspace()
        names = [Choice(value=name, label=form.label) for name, form in forms.STEPS.items()]
        return Form(
            entered=entered,
            steps=names,
            pipeline=[choice for choice in names if choice.value in STEPS],
            presets=[
                Choice(value="", label=f"{workspace.recipe.name} (this workspace's)"),
                *(Choice(value=name, label=name) for name in preset_names()),
            ],
            targets=[
                Choice(value=info.name, label=f"{info.name}, {KINDS[info.kind]}" if info.kind != "local" else info.name)
                for info in sorted(self._jobs.targets(), key=lambda info: not info.default)
            ],
            models=_models(workspace),
            sets=_sets(workspace),
            groups=forms.groups(entered.step, base, entered.values),
        )

    def preview(self, entered: Entered) -> Previewed:
        """What a form would do, or every reason why it cannot; nothing is written."""
        try:
            found = self._jobs.preview(self.request(entered))
        except RecipeError as error:
            return Previewed(command="", changes=[], problems=[_problem(line) for line in error.problems])
        except UserError as error:
            told = ". ".join(str(part) for part in (error.what, error.seen, error.remedy) if part)
            return Previewed(command="", changes=[], problems=[Problem(key=None, text=told)])
        problems = [_problem(line) for line in found.problems]
        return Previewed(command=found.commands_text, changes=found.overrides, problems=problems)

    def request(self, entered: Entered) -> JobRequest:
        """What is asked for.

        Raises:
            RecipeError: with every field that cannot be, as `field: what is wrong`.
            UserError: for a setting or a preset that there is not.
        """
        base = self._base(entered.preset)
        kept = self._jobs.get(entered.cloned_from).request.overrides if entered.cloned_from else []
        changed = forms.overrides(entered.values, base)
        problems = [line for override in changed if (line := _outside(override, kept)) is not None]
        gpus = _gpus(entered.gpus)
        if gpus == "wrong":
            problems.append(f"gpus: seen {entered.gpus}; write how many (2), or which (0, 1)")
        if problems:
            raise RecipeError(problems, source="form")
        try:
            return JobRequest.model_validate(
                {
                    "step": entered.step,
                    "name": entered.name.strip() or None,
                    "start": entered.start or None,
                    "models": entered.models,
                    "prompt_set": entered.prompt_set or None,
                    "steps": entered.steps,
                    "target": entered.target or None,
                    "preset": entered.preset or None,
                    "overrides": changed,
                    "gpus": gpus,
                    "title": entered.title.strip() or None,
                }
            )
        except ValidationError as error:
            lines = [f"{one['loc'][0] if one['loc'] else 'form'}: {one['msg']}" for one in error.errors()]
            raise RecipeError(lines, source="form") from error

    def recipe(self, entered: Entered) -> Recipe | None:
        """The recipe that a form would run with, whatever else is wrong with the form; None while it cannot be."""
        try:
            found = self._jobs.preview(self.request(entered))
        except UserError:
            return None
        wrong = any("." in (_problem(line).key or "") for line in found.problems)
        return None if wrong else found.recipe

    def _taken_from(self, job: Job) -> Entered:
        request = self._jobs.clone_request(job.job_id)
        base = self._base(request.preset)
        gpus = request.gpus
        return Entered(
            step=request.step,
            preset=request.preset,
            target=request.target,
            name=request.name or "",
            start=request.start or "",
            models=request.models,
            prompt_set=request.prompt_set or "",
            steps=list(request.steps),
            gpus=", ".join(map(str, gpus)) if isinstance(gpus, list) else "" if gpus is None else str(gpus),
            title=request.title or "",
            values=forms.values_of(request.overrides, base),
            cloned_from=job.job_id,
        )

    def _workspace(self) -> Workspace:
        """With the recipe as it is now."""
        return Workspace.open(self._jobs.workspace.root)

    def _base(self, preset: str | None) -> Recipe:
        """The recipe that a form starts from. A preset is one of ours, never a path."""
        if not preset:
            return self._workspace().recipe
        if preset not in preset_names():
            raise UserError("There is no such preset", seen=preset, remedy=f"use one of {', '.join(preset_names())}")
        return parse_recipe(preset_text(preset), source=preset)


def _models(workspace: Workspace) -> list[str]:
    folder = workspace.root / "adapters"
    found = sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    return ["base", *found]


def _sets(workspace: Workspace) -> list[str]:
    found = {path.stem for path in (workspace.root / "captions").glob("*/*.parquet")}
    return ["heldout", *sorted(found - {"heldout"})]


def _outside(override: str, kept: Collection[str]) -> str | None:
    """Why a form may not set this: a path out of the workspace, or what runs commands; None if it may."""
    key, _, value = override.partition("=")
    if override in kept:  # whoever submitted the job that is cloned was allowed to
        return None
    if key.startswith("jobs.") or key.endswith("server_command"):
        return f"{key}: can be set in recipe.yaml only, since it says what is run"
    text = value.strip("\"'")
    leaves = text.startswith(("/", "~", "\\")) or ".." in PurePosixPath(text).parts
    if key.rpartition(".")[2] in PATHS and leaves:
        return f"{key}: seen {text}; a form can name files of the workspace only: set others in recipe.yaml"
    return None


def _gpus(text: str) -> "list[int] | int | str | None":
    """`2`, `0, 1` or nothing; "wrong" for anything else."""
    parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
    if not all(re.fullmatch(r"\d{1,4}", part) for part in parts):
        return "wrong"
    numbers = [int(part) for part in parts]
    return None if not numbers else numbers if "," in text or len(numbers) > 1 else numbers[0]


def _problem(line: str) -> Problem:
    found = _KEY.match(line)
    known = found and ("." in found[1] or found[1] in NAMED or found[1] == "seed")
    if not (found and known):
        return Problem(key=None, text=line)
    rest = line[found.end() :]
    return Problem(key=found[1], text=rest[:1].upper() + rest[1:])
