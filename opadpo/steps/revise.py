"""`opadpo revise`: sentence-level corrections by an expert, over the OpenAI protocol."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from opadpo.errors import StepFailed, WorkspaceError, disk_errors
from opadpo.expert.reviser import Reviser, Task
from opadpo.llm.asking import Asker
from opadpo.llm.batch_ledger import BatchLedger
from opadpo.llm.estimate import Estimate
from opadpo.llm.requests import Failure, Picture
from opadpo.llm.store import FailedRow, RequestStore
from opadpo.llm.wire import total_usage
from opadpo.llm.working import Asking, Work, carry_out
from opadpo.progress import Progress
from opadpo.records import Revision, Usage
from opadpo.review.store import ReviewStore, has_store
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.tables import iter_prompts, iter_rollouts
from opadpo.workspace import Workspace

OUTPUTS = ["expert", "reviews.db"]

_BATCH = 64
"""Revisions appended in one transaction; they can be made again from the requests, which are committed at once."""
_FOR_GOOD = {"empty_response"}
"""Kinds of failures that asking again cannot mend."""
_IGNORED = {"revision_id", "created_at", "usage"}
"""Fields in which two otherwise equal revisions may differ."""


def revise(
    workspace: Workspace,
    *,
    progress: Progress,
    retry_failed: bool = False,
    batch: bool = False,
    agree: Callable[[Estimate], bool] | None = None,
) -> StepResult:
    """Have the expert revise every rollout; append the revisions to `reviews.db`.

    Every answer is on disk before it is counted: a run that is killed and started again asks nothing twice. Rows
    without a result are in `expert/requests.db` with their reasons; `retry_failed` asks for those again. `batch` uses
    the provider's batch service. `agree` is asked where the estimate is above `revise.ask_above_usd`.

    Raises:
        MissingArtefact: if there are no rollouts.
        CostRefused: if the estimate is above that and nobody agrees.
        BudgetReached: if `revise.max_cost_usd` is used up; run again with a larger one, it continues.
        EndpointError: if the server cannot be used at all: address, key, model or quota.
        StepFailed: if the server has stopped answering, or no response at all could be revised.
    """
    workspace.require("prompts", f"run `opadpo prepare {workspace.shown}`")
    workspace.require("rollouts", f"run `opadpo rollout {workspace.shown}`")
    plan = plans.expert(workspace)
    manifest = workspace.manifest(plan.artefact)
    # Without reviews.db the revisions are made again, from the answers that are kept.
    done = manifest and workspace.state(plan) == "done" and has_store(workspace)
    if manifest and done and not (retry_failed and manifest.counts.get("failed")):
        with RequestStore.open(workspace.requests_db) as requests:
            if not BatchLedger(requests).open_parts():
                return _result("up_to_date", manifest.counts, requests, workspace)
    started = time.monotonic()
    with (
        workspace.lock(plan.artefact),
        disk_errors(workspace.root / plan.artefact),
        RequestStore.open(workspace.requests_db) as requests,
        ReviewStore.of(workspace) as reviews,
    ):
        run = _Run(workspace, requests, reviews)
        how = Asking(workspace.recipe.revise, requests, progress, retry_failed=retry_failed, batch=batch, agree=agree)
        run.go(how)
        if run.tally["failed"] and not run.tally["revised"]:
            raise _nothing_revised(requests, workspace)
        workspace.mark_done(plan, run.counts(), started_at=run.started_at)
        result = _result("done", run.counts(), requests, workspace)
        return result.model_copy(update={"seconds": time.monotonic() - started})


class _Question(NamedTuple):
    """What a task needs of a prompt; the rest is not kept in memory."""

    question: str
    reference: str
    image_file: str
    image_id: str


def tasks(workspace: Workspace) -> Iterator[Task]:
    """What there is to revise: one task for every rollout, in their order.

    Raises:
        WorkspaceError: if the prompt of a rollout is not there any more.
    """
    questions = {
        p.prompt_id: _Question(p.question, p.reference, p.image_file, p.image_id) for p in iter_prompts(workspace)
    }
    recipe = workspace.recipe
    for rollout in iter_rollouts(workspace):
        asked = questions.get(rollout.prompt_id)
        if asked is None:
            raise WorkspaceError(
                "A rollout's prompt is not there: the prompts have been made again since",
                seen=f"rollout {rollout.rollout_id}, prompt {rollout.prompt_id}",
                remedy=f"run `opadpo rollout {workspace.shown}`",
            )
        picture = Picture(
            workspace.prompts / asked.image_file,
            asked.image_id,
            recipe.revise.image_max_side,
            recipe.image.max_pixels,
            recipe.revise.image_detail,
            stored=True,
        )
        yield Task(rollout.rollout_id, asked.question, asked.reference, rollout.response, picture)


class _Run:
    """One run of the step."""

    def __init__(self, workspace: Workspace, requests: RequestStore, reviews: ReviewStore) -> None:
        self.workspace, self.requests, self.reviews = workspace, requests, reviews
        self.section = workspace.recipe.revise
        self.started_at = datetime.now(UTC)
        self.tally: Counter[str] = Counter()
        self.usage = Usage()
        self.revisions: list[Revision] = []
        self.failed: list[FailedRow] = []
        self.succeeded: list[str] = []

    def go(self, how: Asking) -> None:
        """Revise every rollout."""

        async def talk(task: Task, asker: Asker) -> Revision | Failure:
            return await Reviser(self.section, asker).revise(task)

        try:
            carry_out(Work("revise", lambda: tasks(self.workspace), talk, self._take), how)
        finally:
            self._flush()
        self.requests.forget_rows(self.started_at.isoformat())

    def counts(self) -> dict[str, int]:
        """What is in the artefact now."""
        names = ["rollouts", "revised", "failed", "sentences", "kept", "edited", "deleted", "added", "not_minimal"]
        names += [f"score_{score}" for score in (1, 2, 3, 4)]
        spent = {name: getattr(self.usage, name) for name in ("prompt_tokens", "completion_tokens", "requests")}
        return {**{name: self.tally[name] for name in names}, **spent}

    def _take(self, task: Task, outcome: Revision | Failure) -> None:
        """Count an outcome and note it for the next transaction."""
        self.tally["rollouts"] += 1
        self.usage = total_usage([self.usage, outcome.usage])
        if isinstance(outcome, Failure):
            self.tally["failed"] += 1
            self.failed.append(FailedRow(task.rollout_id, outcome.kind, outcome.reason))
        else:
            self.tally["revised"] += 1
            for sentence in outcome.sentences:
                self.tally[sentence.kind] += 1
                self.tally["not_minimal"] += sentence.not_minimal
                if sentence.score is not None:
                    self.tally["sentences"] += 1
                    self.tally[f"score_{sentence.score}"] += 1
            self.revisions.append(outcome)
            self.succeeded.append(task.rollout_id)
        if len(self.revisions) + len(self.failed) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        new = [r for r in self.revisions if not _same(r, self.reviews.newest_by("expert", r.rollout_id))]
        self.reviews.append(new)
        self.requests.put_rows(self.started_at.isoformat(), self.failed, self.succeeded)
        self.revisions, self.failed, self.succeeded = [], [], []


def _same(revision: Revision, other: Revision | None) -> bool:
    return other is not None and revision.model_dump(exclude=_IGNORED) == other.model_dump(exclude=_IGNORED)


def _failures(rows: Sequence[FailedRow]) -> str:
    """How many rows failed of each kind, and one that asking again may help as an example."""
    listed = ", ".join(f"{kind} {count}" for kind, count in Counter(row.kind for row in rows).most_common())
    example = next((row for row in rows if row.kind not in _FOR_GOOD), rows[0])
    return f"{listed}; the first: {example.row_id}: {example.reason}"


def _nothing_revised(requests: RequestStore, workspace: Workspace) -> StepFailed:
    rows = requests.failed_rows()
    return StepFailed(
        "No response could be revised",
        seen=f"{len(rows)} rollouts: {_failures(rows)}",
        remedy=f"see to the reason, then ask again: `opadpo revise {workspace.shown} --retry failed`",
    )


def _result(
    status: Literal["done", "up_to_date"], counts: dict[str, int], requests: RequestStore, workspace: Workspace
) -> StepResult:
    rows = requests.failed_rows()
    reasons = Counter(row.kind for row in rows)
    warnings: list[str] = []
    if rows:
        told = f"{len(rows)} of {counts['rollouts']} rollouts have no revision ({_failures(rows)})"
        if set(reasons) - _FOR_GOOD:
            told += f". Ask again with `opadpo revise {workspace.shown} --retry failed`"
        warnings.append(told)
    return StepResult(
        step="revise",
        status=status,
        outputs=OUTPUTS,
        counts=counts,
        dropped=dict(reasons.most_common()),
        figures={"spent_in_all": requests.spent().model_dump(exclude={"schema_version"})},
        warnings=warnings,
    )
