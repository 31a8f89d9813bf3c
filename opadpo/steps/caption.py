"""`opadpo caption`: responses of the base and of aligned models to a set of prompts."""

import time
from collections.abc import Sequence

from opadpo.errors import UserError
from opadpo.hashing import derive_seed
from opadpo.manifest import Plan
from opadpo.models.adapters import adapter_digest, check_fits
from opadpo.models.base import read_pin
from opadpo.models.loading import load_processing
from opadpo.progress import Progress
from opadpo.records import Caption, Prompt
from opadpo.steps import plans
from opadpo.steps.benchmarks import BENCHMARKS, SETS
from opadpo.steps.responding import Origin, Shards, check_positions, cut_warning, reusable
from opadpo.steps.result import StepResult
from opadpo.steps.sets import HELDOUT, artefact_of_set, folder_of_set, make_set, prompts_of_set
from opadpo.steps.speakers import Job, Speaker, SpeakerTeam, speaking
from opadpo.tables import iter_records, write_records
from opadpo.workspace import Workspace

SHARD_ROWS = 512


def caption(
    workspace: Workspace,
    models: Sequence[str],
    *,
    progress: Progress,
    prompt_set: str = HELDOUT,
    offline: bool = False,
) -> StepResult:
    """Caption a set of prompts with several models on one loaded base.

    A benchmark's set is made first, where it is missing or stale.

    Args:
        workspace: with prompts and adapters.
        models: names of adapters, and `base` for the model without one.
        progress: told about every model.
        prompt_set: `heldout`, the name of a subset, or that of a benchmark's set.
        offline: fetch no files of a benchmark.

    Raises:
        MissingArtefact: if an adapter, the prompts, a benchmark's files or the pinned base are not there; no caption is
            made then.
        UserError: if no model is named, or the set is unknown.
        DataError: if a benchmark's files are not the published ones.
        ModelError: if an adapter is of another base.
        Busy: if another process writes the same captions.
    """
    started = time.monotonic()
    names = list(dict.fromkeys(models))
    if not names:
        raise UserError("No model to caption with", seen="an empty list", remedy="name `base` or adapters")
    for name in names:
        if name != plans.BASE:
            workspace.adapter(name)
            workspace.require(f"adapters/{name}", plans.training_command(workspace, name))
    made = make_set(workspace, prompt_set, progress=progress, offline=offline)
    prompts = prompts_of_set(workspace, prompt_set)
    wanted = {name: plans.captions(workspace, name, prompt_set) for name in names}
    missing = {name: plan for name, plan in wanted.items() if workspace.state(plan) != "done"}
    warnings: list[str] = []
    reused = 0
    if missing:
        run = _Captioning(workspace, prompts, prompt_set, progress)
        run.check(list(missing))
        with speaking(workspace, artefact_of_set(prompt_set), run.pin, run.processing, progress) as speaker:
            for name, plan in missing.items():
                reused += run.caption(name, plan, speaker)
        warnings = run.warnings
    return StepResult(
        step="caption",
        status="done" if missing or made else "up_to_date",
        outputs=[*made, *(plan.artefact for plan in (missing or wanted).values())],
        counts={"models": len(names), "captions": len(names) * len(prompts), "reused": reused},
        warnings=warnings,
        following=_scored_by(workspace, prompt_set),
        seconds=time.monotonic() - started,
    )


def _scored_by(workspace: Workspace, prompt_set: str) -> str:
    """The option of `evaluate` for a benchmark's set that the recipe's benchmarks do not read."""
    readers = [name for name, each in BENCHMARKS.items() if prompt_set in SETS and each.prompt_set == prompt_set]
    chosen = set(readers) & set(workspace.recipe.evaluate.benchmarks)
    return f"--benchmark {','.join(readers)}" if readers and not chosen else ""


class _Captioning:
    """One run over several models."""

    def __init__(self, workspace: Workspace, prompts: Sequence[Prompt], prompt_set: str, progress: Progress) -> None:
        self.workspace, self.prompt_set, self.progress = workspace, prompt_set, progress
        recipe = workspace.recipe
        self.section = recipe.caption
        self.pin = read_pin(workspace)
        self.processing = load_processing(self.pin, recipe)
        folder = folder_of_set(workspace, prompt_set)
        check_positions(self.processing, prompts, folder, self.section.max_new_tokens, "caption.max_new_tokens")
        self.jobs = [Job(prompt, 0, derive_seed(recipe.seed, "caption", prompt.prompt_id)) for prompt in prompts]
        self.warnings: list[str] = []

    def check(self, names: Sequence[str]) -> None:
        """Check every adapter before the first caption is made."""
        for name in names:
            if name != plans.BASE:
                check_fits(self.workspace.adapter(name), self.pin)

    def caption(self, name: str, plan: Plan, speaker: Speaker | SpeakerTeam) -> int:
        """Make one model's captions; returns how many were there already."""
        adapter = None if name == plans.BASE else self.workspace.adapter(name)
        origin = Origin(
            model=self.pin.name,
            adapter=name,
            adapter_hash=adapter_digest(adapter) if adapter else "",
            template=self.processing.template,
            image_aspect=self.processing.aspect,
            sampling=self.section.sampling,
        )
        shards = Shards(
            Caption,
            origin,
            lambda job, response: Caption(
                prompt_id=job.prompt.prompt_id,
                prompt_set=self.prompt_set,
                response=response.text,
                response_token_ids=response.token_ids,
                finish_reason=response.finish_reason,
                **origin.fields(),
            ),
            batch_size=self.section.batch_size,
            shard_rows=SHARD_ROWS,
        )
        speaker.use(adapter)
        with self.workspace.writing(plan) as writer:
            target = self.workspace.captions(name, self.prompt_set)
            older = [target] if reusable(self.workspace, plan, "model", "base", "seed") else []
            pool = shards.pool([*older, *sorted(writer.folder.glob("part-*.parquet"))])
            parts = shards.write(writer.folder, self.jobs, pool, speaker, self.progress, f"Captions of {name}")
            rows = [row for part in parts for row in iter_records(part, Caption)]
            write_records(writer.folder / target.name, rows, Caption)
            self.warnings += [f"{name}: {text}" for text in cut_warning(rows, "caption.max_new_tokens")]
            writer.finish({"captions": len(rows)})
        return shards.reused
