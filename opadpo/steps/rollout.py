"""`opadpo rollout`: the model's own responses to the training prompts."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opadpo.errors import DataError, UserError
from opadpo.hashing import derive_seed
from opadpo.llm.estimate import Estimate
from opadpo.models.base import read_pin
from opadpo.models.families.base import Processing
from opadpo.models.loading import load_processing
from opadpo.progress import Progress
from opadpo.records import Prompt, Rollout
from opadpo.steps import plans
from opadpo.steps.responding import Origin, Shards, check_positions, cut_warning, reusable
from opadpo.steps.result import StepResult
from opadpo.steps.served import Served, Ways
from opadpo.steps.speakers import Job, Speaker, SpeakerTeam, speaking
from opadpo.tables import iter_prompts, iter_records, write_jsonl
from opadpo.workspace import Workspace, Writer

ALL = "all"
TOO_LONG = "prompt longer than rollout.max_prompt_tokens"


def rollout(
    workspace: Workspace,
    *,
    progress: Progress,
    retry_failed: bool = False,
    agree: Callable[[Estimate], bool] | None = None,
) -> StepResult:
    """Sample `rollout.samples_per_prompt` responses to every prompt of the recipe's subsets.

    Every row has its own seed, made from the recipe's seed, the prompt and the sample's number. Shards are written as
    they come; a killed run goes on behind the last one. Rows of an older run that were made in the same way are kept.
    With `rollout.engine: server` a server is asked instead (`opadpo.steps.served`): `retry_failed` asks again where it
    failed, and `agree` is asked where the estimate is above `rollout.server.ask_above_usd`.

    Raises:
        MissingArtefact: if there are no prompts or no pinned base model yet.
        UserError: if the recipe names a subset that is not there, or responses do not fit the model's positions.
        DataError: if every prompt is too long.
        ModelError: if the base model is damaged or has changed.
        Busy: if another process writes the rollouts.
        CostRefused, BudgetReached, EndpointError, StepFailed: as `opadpo.llm.working.carry_out`.
    """
    started = time.monotonic()
    workspace.require("prompts", f"run `opadpo prepare {workspace.shown}`")
    plan = plans.rollouts(workspace)
    manifest = workspace.manifest("rollouts")
    if manifest and workspace.state(plan) == "done" and not (retry_failed and manifest.counts.get("failed")):
        return StepResult(step="rollout", status="up_to_date", outputs=["rollouts"], counts=manifest.counts)
    section = workspace.recipe.rollout
    pin = read_pin(workspace)
    prompts = training_prompts(workspace, section.subsets)
    processing = load_processing(pin, workspace.recipe)
    kept, dropped = _by_length(prompts, processing, section.max_prompt_tokens)
    check_positions(processing, kept, workspace.prompts, section.max_new_tokens, "rollout.max_new_tokens")
    jobs = [
        Job(prompt, index, derive_seed(workspace.recipe.seed, prompt.prompt_id, index))
        for prompt in kept
        for index in range(section.samples_per_prompt)
    ]
    origin = Origin(pin.name, plans.BASE, "", processing.template, processing.aspect, section.sampling)
    with workspace.writing(plan) as writer:
        if section.engine == "server":
            ways = Ways(progress, retry_failed=retry_failed, agree=agree)
            result = Served(workspace, processing, pin, origin).sample(writer, jobs, dropped, ways)
        else:
            older = sorted(workspace.rollouts.glob("*.parquet")) if reusable(workspace, plan, "model", "base") else []
            with speaking(workspace, "prompts", pin, processing, progress) as speaker:
                result = _sample(writer, origin, jobs, dropped, speaker, older, progress)
    return result.model_copy(update={"seconds": time.monotonic() - started})


def _sample(
    writer: Writer,
    origin: Origin,
    jobs: Sequence[Job],
    dropped: list[dict[str, Any]],
    speaker: Speaker | SpeakerTeam,
    older: Sequence[Path],
    progress: Progress,
) -> StepResult:
    """Let the model of this process (and of those that serve it) answer every job."""
    section = writer.workspace.recipe.rollout
    shards = Shards(
        Rollout,
        origin,
        lambda job, response: Rollout.create(
            prompt_id=job.prompt.prompt_id,
            sample_index=job.sample_index,
            seed=job.seed,
            response=response.text,
            response_token_ids=response.token_ids,
            finish_reason=response.finish_reason,
            **origin.fields(),
        ),
        batch_size=section.batch_size,
        shard_rows=section.shard_rows,
    )
    pool = shards.pool([*older, *sorted(writer.folder.glob("part-*.parquet"))])
    shards.write(writer.folder, jobs, pool, speaker, progress, "Sampling responses")
    write_jsonl(writer.folder / "dropped.jsonl", dropped)
    warnings = cut_warning(iter_records(writer.folder, Rollout), "rollout.max_new_tokens")
    prompts = len({job.prompt.prompt_id for job in jobs})
    counts = {"rollouts": len(jobs), "prompts": prompts, "dropped": len(dropped)}
    writer.finish(counts)
    return StepResult(
        step="rollout",
        status="done",
        outputs=["rollouts"],
        counts={**counts, "reused": shards.reused},
        dropped={TOO_LONG: len(dropped)} if dropped else {},
        warnings=warnings,
    )


def training_prompts(workspace: Workspace, subsets: Sequence[str]) -> list[Prompt]:
    """The training prompts of these subsets, in their order in the workspace; `all` stands for every one.

    Raises:
        UserError: if a subset is not there; the message lists those that are.
    """
    prompts = [p for p in iter_prompts(workspace) if p.split == "train"]
    known = sorted({prompt.subset for prompt in prompts})
    unknown = [name for name in subsets if name != ALL and name not in known]
    if unknown:
        raise UserError(
            "rollout.subsets names a subset that is not in the workspace",
            seen=", ".join(unknown),
            remedy=f"use [{ALL}] or some of: {', '.join(known)}",
        )
    return [prompt for prompt in prompts if ALL in subsets or prompt.subset in subsets]


def _by_length(
    prompts: Sequence[Prompt], processing: Processing, limit: int
) -> tuple[list[Prompt], list[dict[str, Any]]]:
    """(prompts within the limit, a row for `dropped.jsonl` for each of the others)."""
    kept, dropped = [], []
    for prompt in prompts:
        tokens = len(processing.family.text_ids(processing, prompt.question)) - 1
        if tokens <= limit:
            kept.append(prompt)
        else:
            detail = f"{tokens} text tokens, the limit is {limit}"
            dropped.append({"prompt_id": prompt.prompt_id, "reason": TOO_LONG, "detail": detail})
    if not kept:
        raise DataError(
            "No prompt is short enough to be sampled",
            seen=f"{len(dropped)} prompts, rollout.max_prompt_tokens {limit}",
            remedy="raise rollout.max_prompt_tokens; the template's own text counts as well",
        )
    return kept, dropped
