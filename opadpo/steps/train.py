"""`opadpo train`: OPA, OPA-DPO and the ablations."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.damage import damaged
from opadpo.errors import RecipeError, UserError
from opadpo.files import atomic_write
from opadpo.layout import checked_name
from opadpo.manifest import Plan, changed_values
from opadpo.models.adapters import adapter_digest
from opadpo.models.base import BasePin, read_pin
from opadpo.processes.team import processes_wanted, team
from opadpo.progress import Progress
from opadpo.recipe import Recipe
from opadpo.recipe.checks import impossible_combinations
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from opadpo.training.job import TrainingJob, TrainingOutcome


def train(
    workspace: Workspace,
    stage: plans.Stage,
    *,
    name: str | None = None,
    start: str | None = None,
    progress: Progress,
) -> StepResult:
    """Train a stage and write `adapters/<name>`; checkpoints and metrics go to `runs/<name>`.

    A killed run continues from its newest complete checkpoint. With `train.processes` above 1 it starts that many
    processes.

    Args:
        workspace: prepared, with the stage's data set.
        stage: `opa` or `opadpo`.
        name: of the model; by default the stage's. `dpo` and `dpo-plain` are the ablations from the base.
        start: `base` or the adapter to start from (and, for `opadpo`, the reference), instead of what `name` means.
        progress: where to tell how far it is.

    Raises:
        UserError: if a name is `base` or cannot be part of a path, or a model would start from itself.
        MissingArtefact: if the data set or the starting adapter is not there.
        DataError: if there is nothing to train on.
        ModelError: if the starting adapter does not fit.
        Busy: if the same model is being trained.
        StepFailed: if training has to stop (a loss that is not finite, no GPU memory); it says what to do.
    """
    started = time.monotonic()
    name, what = plans.variant(stage, name, start)
    _check_names(name, what.start)
    workspace.require(f"datasets/{stage}", f"run `opadpo build {workspace.shown}`")
    if what.start != plans.BASE:
        workspace.require(f"adapters/{what.start}", plans.training_command(workspace, what.start))
    pin = read_pin(workspace)
    plan = plans.adapter(workspace, name, what)
    manifest = workspace.manifest(plan.artefact)
    if manifest is not None and workspace.state(plan) == "done":
        return StepResult(step=plan.step, status="up_to_date", outputs=[plan.artefact], counts=dict(manifest.counts))
    warnings = _off_policy_warnings(workspace, what, pin)
    with workspace.writing(plan) as writer:
        for message in warnings:
            progress.warn(message)
        job = _job(workspace, plan, name, what, pin, writer.folder)
        _continue_or_clear(plan, job.run, progress)
        outcome = _carry_out(job, progress)
        writer.finish(outcome.counts, content=adapter_digest(writer.folder))
    return StepResult(
        step=plan.step,
        status="done",
        outputs=[plan.artefact, f"runs/{name}"],
        counts=outcome.counts,
        dropped=outcome.dropped,
        figures=outcome.figures,
        warnings=warnings,
        seconds=time.monotonic() - started,
    )


def _check_names(name: str, start: str) -> None:
    checked_name(name)
    checked_name(start)
    if name == plans.BASE:
        raise UserError("`base` is the model without an adapter", seen=f"--name {name}", remedy="choose another name")
    if name == start:
        raise UserError(
            "A model cannot start from itself",
            seen=f"--name {name} --from {start}",
            remedy="give the new model another name",
        )


def _off_policy_warnings(workspace: Workspace, what: plans.Variant, pin: BasePin) -> list[str]:
    """Why the data is off-policy for this run, if it is."""
    from opadpo.training.onpolicy import REASON

    if what.stage != "opadpo":
        return []
    warnings = []
    others = _other_samplers(workspace.rollouts, pin.name)
    if others:
        warnings.append(
            f"The generated responses are off-policy: {', '.join(others)} sampled them, not {pin.name}; {REASON}."
            " Run `opadpo rollout` with this recipe's model."
        )
    guessed, rows = _inexact_ids(workspace.rollouts)
    if guessed:
        warnings.append(
            f"The token ids of {guessed} of {rows} generated responses are not those that were sampled: the server told"
            " only their text, which was tokenized again. They are on-policy as nearly as that goes; sample with"
            " `rollout.engine: local`, or with a server that tells token ids (vLLM), to be exact."
        )
    if what.start == plans.BASE:
        warnings.append(
            f"OPA is skipped: corrections and references are off-policy for the base model; {REASON}."
            " Train from an OPA adapter (`--from opa`) unless this is the ablation."
        )
    return warnings


def _inexact_ids(rollouts: Path) -> tuple[int, int]:
    """(rollouts whose token ids are not what was sampled, all rollouts)."""
    exact = [each for column in _columns(rollouts, "token_ids_exact") for each in column[0]]
    return exact.count(False), len(exact)


def _columns(rollouts: Path, *names: str) -> Iterator[list[list[Any]]]:
    """Columns of every file of rollouts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(rollouts.glob("*.parquet")):
        try:
            columns = pq.read_table(file, columns=list(names)).to_pydict()
        except (pa.ArrowException, OSError) as error:
            raise damaged(file, error) from error
        yield [columns[name] for name in names]


def _other_samplers(rollouts: Path, model: str) -> list[str]:
    """Models that sampled rollouts and are not `model` without an adapter."""
    found: set[tuple[str, str]] = set()
    for models, adapters in _columns(rollouts, "model", "adapter"):
        found |= set(zip(models, adapters, strict=True))
    return sorted(
        f"{name} with adapter {adapter}" if adapter != plans.BASE else name
        for name, adapter in found
        if (name, adapter) != (model, plans.BASE)
    )


def _job(workspace: Workspace, plan: Plan, name: str, what: plans.Variant, pin: BasePin, output: Path) -> "TrainingJob":
    from opadpo.training.job import TrainingJob

    return TrainingJob(
        name=name,
        stage=what.stage,
        start=what.start,
        start_folder=None if what.start == plans.BASE else workspace.adapter(what.start),
        recipe=_with_processes(workspace.recipe),
        opadpo=plans.opadpo_section(workspace, what),
        pin=pin,
        dataset=workspace.dataset(what.stage),
        images=workspace.prompts,
        run=workspace.run(name),
        output=output,
    )


def _continue_or_clear(plan: Plan, run: Path, progress: Progress) -> None:
    """Keep the run folder of the same plan; of what another plan left, only the reference may still be of use."""
    from opadpo.training.job import PLAN_FILE, REFERENCE_FOLDER

    marker = run / PLAN_FILE
    same = marker.exists() and plan.key in marker.read_text(encoding="utf-8", errors="replace")
    if run.exists() and not same:
        if any(run.glob("checkpoint-*")):
            why = "; ".join(_changes(marker, plan)) or f"{marker} is damaged"
            progress.say(f"Training starts from the beginning: {why}. The run before it is removed.")
        for path in run.iterdir():
            if path.is_dir() and path.name != REFERENCE_FOLDER:
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()
    run.mkdir(parents=True, exist_ok=True)
    if not same:
        atomic_write(marker, json.dumps({"key": plan.key, **plan.model_dump(mode="json")}, indent=2, sort_keys=True))


def _changes(marker: Path, plan: Plan) -> list[str]:
    """What is different from the plan of the run before."""
    try:
        before = json.loads(marker.read_text(encoding="utf-8"))
        return changed_values({key: before[key] for key in ("settings", "inputs")}, plan.model_dump(mode="json"))
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _carry_out(job: "TrainingJob", progress: Progress) -> "TrainingOutcome":
    from opadpo.training.job import TrainingOutcome

    processes = job.recipe.train.processes
    if processes == 1:
        from opadpo.training.run import run_job

        return run_job(job, progress)
    with team(processes) as members:
        outcomes = members.everyone("train", job.model_dump_json(), progress)
    return TrainingOutcome.model_validate_json(outcomes[0])


def _with_processes(recipe: Recipe) -> Recipe:
    """The recipe with as many processes as a launcher has started, if one has: they have to share the batches."""
    started = recipe.train.model_copy(update={"processes": processes_wanted(recipe.train.processes)})
    recipe = recipe.model_copy(update={"train": started})
    if problems := impossible_combinations(recipe):
        raise RecipeError(problems, source="the recipe, with the processes that were started,")
    return recipe
