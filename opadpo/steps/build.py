"""`opadpo build`: rollouts and their revisions become the data sets that training reads."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from opadpo.errors import DataError, MissingArtefact
from opadpo.progress import Progress
from opadpo.recipe.sections import BuildSection
from opadpo.records import (
    PreferenceExample,
    Prompt,
    Revision,
    Rollout,
    SentenceReview,
    WeightSpan,
    assemble,
    assembled_pieces,
)
from opadpo.review.store import ReviewStore, has_store
from opadpo.review.verdicts import Verdict, verdicts
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.tables import iter_prompts, iter_rollouts
from opadpo.text.filters import FILTERS
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from datasets import Dataset

DROPPED_FILE = "dropped.jsonl"
_CHUNK = 2000


class Dropped(NamedTuple):
    """A rollout that gives no example, and why."""

    rollout_id: str
    prompt_id: str
    reason: str
    detail: str = ""


def build(workspace: Workspace, *, progress: Progress) -> StepResult:
    """Write `datasets/opa` and `datasets/opadpo` from the revisions that count (`choose_revision`).

    Both hold a row per usable rollout. A row whose revised text equals the generated one is in both: OPA trains on it
    and it is in the standard pair; the trainer leaves it out of the revised pair.

    Raises:
        MissingArtefact: if there are no prompts, rollouts or revisions.
        DataError: if no row is left; the message counts the reasons.
    """
    started = time.monotonic()
    workspace.require("prompts", f"run `opadpo prepare {workspace.shown}`")
    workspace.require("rollouts", f"run `opadpo rollout {workspace.shown}`")
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    made = False
    no_revisions = MissingArtefact(
        "There are no revisions yet", seen=workspace.reviews_db, remedy=f"run `opadpo revise {workspace.shown}`"
    )
    if not has_store(workspace):
        raise no_revisions
    with ReviewStore.of(workspace) as store:
        if not store.counts()["revisions"]:
            raise no_revisions
        head = store.head()
        for stage in ("opa", "opadpo"):
            plan = plans.dataset(workspace, stage, head)
            if workspace.state(plan) == "done":
                manifest = workspace.manifest(plan.artefact)
                stage_counts = dict(manifest.counts) if manifest else {}
            else:
                made = True
                with workspace.writing(plan) as writer:
                    stage_counts = _write(workspace, stage, store, writer.folder, progress)
                    writer.finish(stage_counts)
            for key, value in stage_counts.items():
                if key.startswith("dropped/"):
                    dropped[f"{stage}: {key.removeprefix('dropped/')}"] = value
                else:
                    counts[f"{stage}/{key}"] = value
    return StepResult(
        step="build",
        status="done" if made else "up_to_date",
        outputs=["datasets/opa", "datasets/opadpo"],
        counts=counts,
        dropped=dropped,
        warnings=_undecided(workspace, dropped),
        seconds=time.monotonic() - started,
    )


def choose_revision(
    store: ReviewStore, rollout_id: str, verdict: Verdict | None, section: BuildSection
) -> Revision | tuple[str, str]:
    """The revision that counts by the recipe's policy, or (reason, detail) why there is none.

    `verdict` is what people made of the record, None if nobody has looked at it.
    """
    if verdict is None:
        if section.revisions == "human_only":
            return "no_human_revision", ""
        return store.current(rollout_id) or ("no_revision", "")
    if verdict.revision_id is None:
        return "humans_disagree", ", ".join(verdict.people)
    return next(r for r in store.history(rollout_id) if r.revision_id == verdict.revision_id)


def _undecided(workspace: Workspace, dropped: dict[str, int]) -> list[str]:
    """What people still have to decide; both data sets leave out the same records for it."""
    found = []
    if count := dropped.get("opa: humans_disagree"):
        found.append(
            f"records left out because their reviewers disagree: {count}; somebody has to decide:"
            f" `opadpo app {workspace.shown}`, ids in datasets/opa/{DROPPED_FILE}"
        )
    if count := dropped.get("opa: flagged_revision"):
        found.append(f"flagged records left out: {count}; they wait for a second look: `opadpo app {workspace.shown}`")
    return found


def weight_spans(
    response: str, sentences: list[SentenceReview], section: BuildSection
) -> tuple[list[WeightSpan], list[WeightSpan]]:
    """(spans of the response, spans of the revised text), weighted by the recipe.

    A deleted sentence has a span in the response only, an added one (weight 1) in the revised text only; what lies
    between sentences has none.

    Raises:
        ValueError: if the sentences do not fit the response.
    """
    generated: list[WeightSpan] = []
    revised: list[WeightSpan] = []
    position = 0
    for text, sentence in assembled_pieces(response, sentences):
        end = position + len(text)
        if sentence is not None:
            revised.append(_span(position, end, sentence, section))
        position = end
    for sentence in sorted(sentences, key=lambda s: s.start):
        if sentence.kind != "added":
            generated.append(_span(sentence.start, sentence.end, sentence, section))
    return generated, revised


def _span(start: int, end: int, sentence: SentenceReview, section: BuildSection) -> WeightSpan:
    if sentence.score is None:
        return WeightSpan(start=start, end=end, score_weight=1.0, image_weight=1.0)
    return WeightSpan(
        start=start,
        end=end,
        score_weight=section.score_weights[sentence.score],
        image_weight=section.image_weights[sentence.error_type],
    )


def _write(
    workspace: Workspace, stage: plans.Stage, store: ReviewStore, folder: Path, progress: Progress
) -> dict[str, int]:
    """Write one data set and its dropped rows; returns the counts of its manifest."""
    from datasets import concatenate_datasets

    prompts = {prompt.prompt_id: prompt for prompt in iter_prompts(workspace)}
    reasons: Counter[str] = Counter()
    tables, chunk, verified, unchanged = [], [], 0, 0
    with (folder / DROPPED_FILE).open("w", encoding="utf-8") as dropped_file:
        for row in _rows(workspace, stage, store, prompts, progress):
            if isinstance(row, Dropped):
                reasons[row.reason] += 1
                dropped_file.write(json.dumps(row._asdict(), ensure_ascii=False) + "\n")
                continue
            verified += row.human_verified
            unchanged += row.revised == row.generated
            chunk.append(row)
            if len(chunk) == _CHUNK:
                tables.append(to_dataset(chunk))
                chunk = []
    if chunk:
        tables.append(to_dataset(chunk))
    total = sum(len(table) for table in tables)
    if not total:
        raise DataError(
            f"No row is left for datasets/{stage}",
            seen=", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "no rollouts",
            remedy=f"look at the reasons; run `opadpo revise {workspace.shown} --retry failed`, review records, or"
            " loosen `build.filters`",
        )
    with quiet_datasets():
        concatenate_datasets(tables).save_to_disk(folder)
    counts = {"rows": total, "human_verified": verified, "unchanged": unchanged, "dropped": reasons.total()}
    return counts | {f"dropped/{reason}": count for reason, count in sorted(reasons.items())}


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the progress bars of `datasets`; ours are enough."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def to_dataset(examples: list[PreferenceExample]) -> "Dataset":
    """Examples as a Hugging Face data set: one column per field, spans as lists of structs."""
    from datasets import Dataset, Features, List, Value

    span = {
        "schema_version": Value("int64"),
        "start": Value("int64"),
        "end": Value("int64"),
        "score_weight": Value("float64"),
        "image_weight": Value("float64"),
    }
    kinds = {int: Value("int64"), str: Value("string"), bool: Value("bool"), list[int]: List(Value("int64"))}
    columns = {
        name: List(span) if field.annotation == list[WeightSpan] else kinds[field.annotation]
        for name, field in PreferenceExample.model_fields.items()
    }
    return Dataset.from_list([example.model_dump() for example in examples], features=Features(columns))


def _rows(
    workspace: Workspace,
    stage: plans.Stage,
    store: ReviewStore,
    prompts: dict[str, Prompt],
    progress: Progress,
) -> Iterator[PreferenceExample | Dropped]:
    """An example or a reason for every rollout, in the order of the rollouts."""
    manifest = workspace.manifest("rollouts")
    total = manifest.counts.get("rollouts") if manifest else None
    section = workspace.recipe.build
    decided = verdicts(store, section.adjudicators)
    with progress.task(f"build {stage}", total) as task:
        for rollout in iter_rollouts(workspace):
            task.advance()
            prompt = prompts.get(rollout.prompt_id)
            if prompt is None:
                yield Dropped(rollout.rollout_id, rollout.prompt_id, "no_prompt")
                continue
            chosen = choose_revision(store, rollout.rollout_id, decided.get(rollout.rollout_id), section)
            if isinstance(chosen, Revision):
                yield _row(workspace, stage, prompt, rollout, chosen)
            else:
                yield Dropped(rollout.rollout_id, rollout.prompt_id, *chosen)


def _row(
    workspace: Workspace, stage: plans.Stage, prompt: Prompt, rollout: Rollout, revision: Revision
) -> PreferenceExample | Dropped:
    section = workspace.recipe.build

    def drop(reason: str, detail: str = "") -> Dropped:
        return Dropped(rollout.rollout_id, rollout.prompt_id, reason, detail)

    if revision.status != "done":
        return drop(f"{revision.status}_revision", revision.note)
    if not rollout.response.strip():
        return drop("empty_response")
    if not revision.text.strip():
        return drop("empty_revision")
    for name in section.filters:
        if FILTERS[name](rollout.response):
            return drop(name)
    if plans.needs_reference(workspace.recipe, stage) and not prompt.reference.strip():
        return drop("no_reference")
    try:
        generated_spans, revised_spans = weight_spans(rollout.response, revision.sentences, section)
    except ValueError as error:
        return drop("sentences_do_not_fit", str(error))
    if assemble(rollout.response, revision.sentences) != revision.text:
        return drop("sentences_do_not_fit", "its text is not what its sentences make of the response")
    return PreferenceExample.create(
        prompt_id=prompt.prompt_id,
        rollout_id=rollout.rollout_id,
        revision_id=revision.revision_id,
        question=prompt.question,
        image=prompt.image_file,
        standard=prompt.reference,
        revised=revision.text,
        generated=rollout.response,
        generated_token_ids=rollout.response_token_ids,
        generated_finished=rollout.finish_reason == "stop",
        generated_spans=generated_spans,
        revised_spans=revised_spans,
        human_verified=revision.author_kind == "human",
    )
