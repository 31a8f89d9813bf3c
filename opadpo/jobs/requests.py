"""From what somebody asks for to what runs: commands, overrides, artefacts, resources; every problem at once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opadpo.errors import RecipeError, UserError
from opadpo.jobs.over_there import PIN_FILE
from opadpo.jobs.record import OPADPO, PEOPLE, SNAPSHOT, STEPS, WORKSPACE, JobRequest, Resources, Step, one_line
from opadpo.jobs.targets import make_target
from opadpo.layout import checked_name
from opadpo.recipe import Recipe, load_recipe, parse_recipe, preset_names, preset_text
from opadpo.recipe.base import Section
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

BASE = "base"
TRAINING: tuple[Step, ...] = ("opa", "opadpo")
SAMPLING: tuple[Step, ...] = ("rollout", "caption")
DEFAULT_SET = "heldout"

INPUTS: dict[Step, tuple[tuple[str, Step], ...]] = {
    "rollout": (("prompts", "prepare"),),
    "revise": (("rollouts", "rollout"),),
    "build": (("prompts", "prepare"), ("rollouts", "rollout")),
    "opa": (("datasets/opa", "build"),),
    "opadpo": (("datasets/opadpo", "build"),),
}
"""What a step reads, with the step that makes it, as far as a look at the workspace tells."""


@dataclass(frozen=True)
class Planned:
    """What a request comes to."""

    title: str
    commands: list[list[str]]
    overrides: list[str]
    recipe: Recipe
    runs: list[str]
    writes: list[str]
    target: str
    target_settings: TargetSection
    resources: Resources
    problems: list[str] = field(default_factory=list)
    """Each begins with the field of the request, or the setting, that it belongs to."""


def plan(request: JobRequest, workspace: Workspace, coming: list[str]) -> Planned:
    """What a request comes to under the workspace's recipe; nothing is written and nothing started.

    `coming` are artefacts that jobs make which have not ended.
    """
    problems = list(_wrong_names(request))
    overrides = [*_of_preset(request, workspace, problems), *request.overrides]
    recipe = _recipe(workspace, overrides, problems)
    name, settings = _target(request, workspace.recipe, problems)
    steps = _steps(request, settings)
    problems += _wrong_steps(request, settings)
    resources = _resources(request, settings, recipe)
    if spread := _one_process_each(recipe, resources, steps, settings, overrides):
        overrides += spread
        recipe = _recipe(workspace, overrides, problems)
        resources = _resources(request, settings, recipe)
    problems += _unused_gpus(request, recipe)
    problems += make_target(name, settings, workspace).problems(resources)
    problems += _too_many_processes(recipe, resources)
    if not problems:
        problems += _missing(request, steps, workspace, coming)
        problems += _missing_inputs(request, steps, settings, workspace, coming)
        problems += _other_base(request, steps, recipe, workspace)
    runs = [_trained(request, step, steps) for step in steps if step in TRAINING]
    return Planned(
        title=one_line(request.title or "") or _default_title(request, runs),
        commands=[_command(request, step, steps, workspace, overrides) for step in steps],
        overrides=overrides,
        recipe=recipe,
        runs=runs,
        writes=[artefact for step in steps for artefact in _writes(request, step, steps, workspace)],
        target=name,
        target_settings=settings,
        resources=resources,
        problems=problems,
    )


# -- checks ----------------------------------------------------------------------------------------------------


def _wrong_names(request: JobRequest) -> Iterator[str]:
    named = [("name", request.name), ("start", request.start), ("prompt_set", request.prompt_set)]
    named += [("models", model) for model in request.models]
    for key, value in named:
        if value is None:
            continue
        try:
            checked_name(value)
        except UserError as error:
            yield f"{key}: {error.what}, seen {value!r}; {error.remedy}"
    if request.name == BASE:
        yield f"name: seen {BASE}, which is the base model's; choose another"
    for override in request.overrides:
        if override.partition("=")[0].strip().split(".")[0] == "jobs":
            yield f"{override.partition('=')[0]}: a job cannot change where jobs run; change recipe.yaml"


def _wrong_steps(request: JobRequest, settings: TargetSection) -> Iterator[str]:
    if request.steps and request.step != "pipeline":
        yield "steps: only a pipeline has steps; leave them out, or make step pipeline"
    if "pipeline" in request.steps:
        yield "steps: seen pipeline; name single steps"
    here = sorted(PEOPLE & {request.step, *request.steps})
    if settings.mirrored and here:
        yield (
            f"target: {', '.join(here)} cannot run in a copy of the workspace, as people work on the one here; run that"
            " on this machine, or where the workspace is on a shared file system"
        )


def _of_preset(request: JobRequest, workspace: Workspace, problems: list[str]) -> list[str]:
    if request.preset is None:
        return []
    if request.preset not in preset_names():
        problems.append(f"preset: there is no recipe {request.preset!r}; use one of {', '.join(preset_names())}")
        return []
    preset = parse_recipe(preset_text(request.preset), source=request.preset)
    return list(differences(workspace.recipe, preset))


def differences(old: Section, new: Section, prefix: str = "") -> Iterator[str]:
    """`key=value` for every setting in which `new` differs; what jobs are is the workspace's own affair."""
    values = new.model_dump(mode="json")
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after or (not prefix and name in ("jobs", "name")):
            continue
        if isinstance(after, Section) and isinstance(before, Section):
            yield from differences(before, after, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(values[name], ensure_ascii=False)}"


def _recipe(workspace: Workspace, overrides: list[str], problems: list[str]) -> Recipe:
    try:
        return load_recipe(workspace.root / "recipe.yaml", overrides)
    except RecipeError as error:
        problems += error.problems
        return workspace.recipe


def _target(request: JobRequest, recipe: Recipe, problems: list[str]) -> tuple[str, TargetSection]:
    known = recipe.jobs.named()
    name = request.target or recipe.jobs.target
    if name not in known:
        problems.append(f"target: there is no {name!r} in the recipe; use one of {', '.join(known)}")
        name = next(iter(known))
    return name, known[name]


def _resources(request: JobRequest, settings: TargetSection, recipe: Recipe) -> Resources:
    wanted = request.gpus if request.gpus is not None else settings.gpus
    if isinstance(wanted, list):
        wanted = list(dict.fromkeys(wanted))
    return Resources(
        gpus=0 if recipe.model.device == "cpu" else wanted,
        nodes=request.nodes or settings.nodes,
        processes=recipe.train.processes,
        time=request.time or settings.time,
    )


def _too_many_processes(recipe: Recipe, resources: Resources) -> Iterator[str]:
    count = len(resources.gpus) if isinstance(resources.gpus, list) else resources.gpus
    for key, processes in (("train", recipe.train.processes), ("model", recipe.model.processes)):
        if count and processes > count * resources.nodes:
            yield (
                f"{key}.processes: seen {processes} with {count * resources.nodes} GPUs; each process needs one:"
                " ask for more GPUs, or set it lower"
            )


def _one_process_each(
    recipe: Recipe, resources: Resources, steps: list[Step], settings: TargetSection, overrides: list[str]
) -> list[str]:
    """Overrides with which every GPU of the job gets a process, where nothing else is said.

    On Slurm what launches the processes on the nodes sees to that.
    """
    count = len(resources.gpus) if isinstance(resources.gpus, list) else resources.gpus or 0
    if count < 2 or settings.kind == "slurm":
        return []
    said = {override.partition("=")[0].strip() for override in overrides}
    wanted = []
    for key, processes, users in (
        ("train.processes", recipe.train.processes, TRAINING),
        ("model.processes", recipe.model.processes, SAMPLING),
    ):
        if processes == 1 and key not in said and not set(users).isdisjoint(steps):
            wanted.append(f"{key}={count}")
    return wanted


def _unused_gpus(request: JobRequest, recipe: Recipe) -> Iterator[str]:
    if request.gpus and recipe.model.device == "cpu":
        yield "gpus: the recipe's model.device is cpu, so nothing would run on them; leave them out, or set it to cuda"


def _missing_inputs(
    request: JobRequest, steps: list[Step], settings: TargetSection, workspace: Workspace, coming: list[str]
) -> Iterator[str]:
    """What the steps read that is neither there nor made by an earlier one, or by a job that has not ended."""
    made = list(coming)
    for step in steps:
        for artefact, maker in INPUTS.get(step, ()):
            there = workspace.manifest(artefact) is not None or overlap([artefact], made) is not None
            if not there and not (settings.mirrored and maker in steps):
                yield f"step: {step} needs {artefact}, which is not there yet; run {maker} first, or a pipeline"
        made += _writes(request, step, steps, workspace)


def _other_base(request: JobRequest, steps: list[Step], recipe: Recipe, workspace: Workspace) -> Iterator[str]:
    """A base model that is not the one that everything in the workspace was made with."""
    if "prepare" in steps:
        return
    try:
        pin = json.loads((workspace.root / PIN_FILE).read_text(encoding="utf-8"))
        pinned, revision = pin["base"], pin["requested_revision"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # not pinned yet, or damaged: the step says what to do
    if (pinned, revision) != (recipe.model.base, recipe.model.revision):
        changed = any(each.startswith(("model.base=", "model.revision=")) for each in request.overrides)
        key = "preset" if request.preset and not changed else "model.base"
        asked, there = (_versioned(*one) for one in ((recipe.model.base, recipe.model.revision), (pinned, revision)))
        yield f"{key}: its base model is {asked}, and this workspace's is {there}; make a workspace for the other one"


def _versioned(base: str, revision: str | None) -> str:
    return f"{base} ({revision})" if revision else base


def _missing(request: JobRequest, steps: list[Step], workspace: Workspace, coming: list[str]) -> Iterator[str]:
    """Adapters that are asked for and neither there nor about to be made by this job or another one."""
    made = {_trained(request, step, steps) for step in steps if step in TRAINING}
    for key, names in (("start", [request.start] if request.start else []), ("models", request.models)):
        for name in names:
            artefact = f"adapters/{name}"
            if name == BASE or name in made or overlap([artefact], coming) is not None:
                continue
            if workspace.manifest(artefact) is None:
                yield f"{key}: there is no adapter {name!r} in the workspace; train it first, or name another"


# -- what runs -------------------------------------------------------------------------------------------------


def _steps(request: JobRequest, settings: TargetSection) -> list[Step]:
    if request.step != "pipeline":
        return [request.step]
    wanted = request.steps or [step for step in STEPS if not (settings.mirrored and step in PEOPLE)]
    return [step for step in STEPS if step in wanted]


def _trained(request: JobRequest, step: Step, steps: list[Step]) -> str:
    """Name of the adapter that a stage makes; a pipeline's name is that of its last stage."""
    last = [each for each in steps if each in TRAINING][-1]
    return request.name if request.name and step == last else step


def _models(request: JobRequest, steps: list[Step], workspace: Workspace) -> list[str]:
    """Models that are captioned: those asked for, else the base, the adapters that are there, and those made here."""
    if request.models:
        return list(dict.fromkeys(request.models))
    folder = workspace.root / "adapters"
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    made = [_trained(request, step, steps) for step in steps if step in TRAINING]
    return list(dict.fromkeys([BASE, *there, *made]))


def _command(
    request: JobRequest, step: Step, steps: list[Step], workspace: Workspace, overrides: list[str]
) -> list[str]:
    """The argument list of one step; a step that has nothing left to do says so and ends at once."""
    words = ["train", step, WORKSPACE] if step in TRAINING else [step, WORKSPACE]
    words += SNAPSHOT
    if step in TRAINING:
        name = _trained(request, step, steps)
        words += ["--name", name] if name != step else []
        last = [each for each in steps if each in TRAINING][-1]
        words += ["--from", request.start] if request.start and step == last else []
    elif step == "caption":
        words += ["--model", ",".join(_models(request, steps, workspace))]
        words += ["--set", request.prompt_set] if request.prompt_set else []
    elif step == "evaluate" and request.models:
        words += ["--model", ",".join(dict.fromkeys(request.models))]
    for override in overrides:
        words += ["--set", override]
    return [*OPADPO, *words, "--json"]


def _writes(request: JobRequest, step: Step, steps: list[Step], workspace: Workspace) -> list[str]:
    """Artefacts that a step makes, or the folder in which they are."""
    if step in TRAINING:
        return [f"adapters/{_trained(request, step, steps)}"]
    if step == "caption":
        prompt_set = request.prompt_set or DEFAULT_SET
        return [f"captions/{model}/{prompt_set}.parquet" for model in _models(request, steps, workspace)]
    if step == "evaluate":
        return [f"evaluations/{model}" for model in request.models] or ["evaluations"]
    return {"prepare": ["prompts"], "rollout": ["rollouts"], "revise": ["expert"], "build": ["datasets"]}[step]


def overlap(first: list[str], second: list[str]) -> str | None:
    """An artefact that both lists name, or of which one names the folder; None if there is none."""
    for one in first:
        for other in map(Path, second):
            if Path(one) == other or Path(one) in other.parents or other in Path(one).parents:
                return one
    return None


def _default_title(request: JobRequest, runs: list[str]) -> str:
    if request.step == "pipeline":
        return "pipeline"
    return runs[0] if runs else request.step
