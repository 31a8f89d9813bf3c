"""`opadpo evaluate`: figures of captions on benchmarks, with intervals, and differences to the base."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opadpo.errors import MissingArtefact, StepFailed, UserError, WorkspaceError
from opadpo.evaluation.benchmark import Benchmark, Context, Row
from opadpo.evaluation.comparing import JUDGE, compare, differing
from opadpo.evaluation.figures import total
from opadpo.evaluation.result import Evaluation, Provenance, read_evaluation, write_evaluation
from opadpo.evaluation.statistics import Difference, intervals
from opadpo.llm.estimate import Estimate
from opadpo.manifest import Plan
from opadpo.progress import Progress
from opadpo.records import Caption, Prompt
from opadpo.steps import plans
from opadpo.steps.benchmarks import benchmark_of
from opadpo.steps.result import Score, StepResult
from opadpo.steps.sets import HELDOUT, KEPT_FOLDER, files_of_set, folder_of_set, prompts_of_set, set_digest
from opadpo.tables import read_records
from opadpo.workspace import Workspace


def evaluate(
    workspace: Workspace,
    models: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    *,
    progress: Progress,
    retry_failed: bool = False,
    agree: Callable[[Estimate], bool] | None = None,
) -> StepResult:
    """Score captions; figures are in `StepResult.figures[model][benchmark]`, and in `scores` with their intervals.

    Args:
        workspace: with captions.
        models: names of models; None: every one that has captions.
        benchmarks: names of benchmarks; None: the recipe's.
        progress: told about every model.
        retry_failed: ask a judge again where it has failed before.
        agree: asked where a judge's estimate is above `evaluate.judge.ask_above_usd`.

    Raises:
        MissingArtefact: if a model has no captions; nothing is written then.
        UserError: if no benchmark is chosen, one is unknown, or the prompts are not of its kind.
        WorkspaceError: if captions are of other prompts than the set's, or answer one twice.
        StepFailed: if nothing could be judged.
        Busy: if another process has answers judged.
    """
    started = time.monotonic()
    chosen = [benchmark_of(name) for name in dict.fromkeys(benchmarks or workspace.recipe.evaluate.benchmarks)]
    if not chosen:
        raise UserError(
            "No benchmark is chosen", seen="evaluate.benchmarks: []", remedy="name some there, or with --benchmark"
        )
    pairs = [(model, each) for each in chosen for model in _models(workspace, models, each.prompt_set)]
    figures: dict[str, dict[str, Any]] = {}
    scores: list[Score] = []
    outputs, warnings, made = [], [], 0
    with progress.task("Scoring captions", len(pairs)) as task:
        for model, benchmark in pairs:
            plan = plans.evaluation(workspace, model, benchmark.name, benchmark.prompt_set)
            if workspace.state(plan) != "done" or (retry_failed and _has_failed(workspace, plan)):
                _make(workspace, plan, model, benchmark, _context(workspace, benchmark, progress, retry_failed, agree))
                made += 1
            evaluation = read_evaluation(workspace.evaluation(model, benchmark.name))
            warnings += _warnings(workspace, model, benchmark, evaluation)
            figures.setdefault(model, {})[benchmark.name] = evaluation.metrics
            outputs.append(plan.artefact)
            task.advance()
    with progress.task("Comparing with the base", len(pairs)) as task:
        for model, benchmark in pairs:
            scores += scores_of(workspace, model, benchmark)
            warnings += _hindrances(workspace, model, benchmark)
            task.advance()
    return StepResult(
        step="evaluate",
        status="done" if made else "up_to_date",
        outputs=outputs,
        counts={"models": len(figures), "evaluations": len(pairs), "made": made},
        figures=figures,
        scores=scores,
        warnings=list(dict.fromkeys(warnings)),
        seconds=time.monotonic() - started,
    )


def scores_of(workspace: Workspace, model: str, benchmark: Benchmark) -> list[Score]:
    """A model's metrics on a benchmark that was scored, each with its difference to the base where that was scored too.

    What is made up comes first, and then what is told, so that the one is never read without the other.

    Raises:
        MissingArtefact: if the model was not scored.
        WorkspaceError: if its figures are damaged.
    """
    evaluation = read_evaluation(workspace.evaluation(model, benchmark.name))
    compared = difference(workspace, model, plans.BASE, benchmark) if model != plans.BASE else {}
    return [
        Score(
            benchmark=benchmark.name,
            title=benchmark.title,
            model=model,
            metric=metric,
            direction=benchmark.direction(metric),
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n=evaluation.provenance.n,
            failed=evaluation.provenance.failed,
            difference=compared.get(metric),
        )
        for metric, interval in sorted(evaluation.intervals.items(), key=lambda pair: _rank(benchmark, pair[0]))
    ]


def _rank(benchmark: Benchmark, metric: str) -> int:
    name = metric.rpartition("/")[2]
    return [benchmark.hallucination, benchmark.coverage, name].index(name)


def difference(workspace: Workspace, model: str, other: str, benchmark: Benchmark) -> dict[str, Difference]:
    """Every metric of `model` less that of `other`; empty where `other` has no figures that hold today and are alike.

    Raises:
        MissingArtefact: if `model` was not scored.
        WorkspaceError: if figures are damaged.
        DataError: if the two have no item in common.
    """
    if workspace.state(plans.evaluation(workspace, other, benchmark.name, benchmark.prompt_set)) != "done":
        return {}
    first, second = (read_evaluation(workspace.evaluation(name, benchmark.name)) for name in (model, other))
    if differing(first, second):
        return {}
    section = workspace.recipe.evaluate
    return compare(
        first,
        second,
        benchmark,
        seed=workspace.recipe.seed,
        resamples=section.resamples,
        confidence=section.confidence,
    )


def rows_of(workspace: Workspace, model: str, prompt_set: str) -> tuple[list[Row], list[Prompt]]:
    """(captions of a model with their prompts, in the set's order; the prompts of the set).

    Raises:
        MissingArtefact: if the set is not there.
        WorkspaceError: if captions are of other prompts, answer one twice, or there are none.
    """
    path = workspace.captions(model, prompt_set)
    captions = read_records(path, Caption)
    prompts = prompts_of_set(workspace, prompt_set)
    by_prompt = {row.prompt_id: row for row in captions}
    strangers = len(by_prompt.keys() - {prompt.prompt_id for prompt in prompts})
    repeated = len(captions) - len(by_prompt)
    if strangers or repeated or not captions:
        what = "answer prompts twice" if repeated else "are not of the workspace's prompts"
        raise WorkspaceError(
            f"The captions {what if captions else 'are empty'}",
            seen=f"{path}: {repeated or strangers} of {len(captions)} rows",
            remedy=f"delete {path}, then run `{command_for(workspace, model, prompt_set)}`",
        )
    return [Row(by_prompt[prompt.prompt_id], prompt) for prompt in prompts if prompt.prompt_id in by_prompt], prompts


def _models(workspace: Workspace, wanted: Sequence[str] | None, prompt_set: str) -> list[str]:
    """The models to score: those asked for, or all that have captions; the base first."""
    if wanted is not None:
        names = list(dict.fromkeys(wanted))
        for name in names:
            workspace.captions(name, prompt_set)
            command = command_for(workspace, name, prompt_set)
            workspace.require(f"captions/{name}/{prompt_set}.parquet", f"run `{command}`")
        return names
    folders = sorted((workspace.root / "captions").glob("*"), key=lambda path: plans.place_of(path.name))
    names = [path.name for path in folders if workspace.manifest(f"captions/{path.name}/{prompt_set}.parquet")]
    if not names:
        raise MissingArtefact(
            "There are no captions to score yet",
            seen=workspace.root / "captions" / "*" / f"{prompt_set}.parquet",
            remedy=f"run `{command_for(workspace, plans.BASE, prompt_set)}`",
        )
    return names


def command_for(workspace: Workspace, model: str, prompt_set: str) -> str:
    """The command that makes a model's captions of a set."""
    named = "" if prompt_set == HELDOUT else f" --set {prompt_set}"
    return f"opadpo caption {workspace.shown} --model {model}{named}"


def _context(
    workspace: Workspace,
    benchmark: Benchmark,
    progress: Progress,
    retry_failed: bool,
    agree: Callable[[Estimate], bool] | None,
) -> Context:
    return Context(
        section=workspace.recipe.evaluate,
        files=folder_of_set(workspace, benchmark.prompt_set) / KEPT_FOLDER,
        progress=progress,
        judge_db=workspace.judge_db,
        judging=lambda: workspace.lock(JUDGE),
        retry_failed=retry_failed,
        agree=agree,
    )


def _make(workspace: Workspace, plan: Plan, model: str, benchmark: Benchmark, context: Context) -> None:
    """Score a model and write its figures."""
    evaluation = _score(workspace, model, benchmark, context)
    with workspace.writing(plan) as writer:
        write_evaluation(writer.folder / f"{benchmark.name}.json", evaluation)
        writer.finish({"items": len(evaluation.items), "failed": evaluation.provenance.failed})


def _has_failed(workspace: Workspace, plan: Plan) -> bool:
    manifest = workspace.manifest(plan.artefact)
    return bool(manifest and manifest.counts.get("failed"))


def _score(workspace: Workspace, model: str, benchmark: Benchmark, context: Context) -> Evaluation:
    rows, prompts = rows_of(workspace, model, benchmark.prompt_set)
    section = workspace.recipe.evaluate
    scored = benchmark.score(rows, context)
    failed = sum(scored.failures.values())
    if not scored.items:
        raise StepFailed(
            f"Nothing of {benchmark.title} could be judged",
            seen=f"{failed} of {len(rows)} answers failed: {_reasons(scored.failures)}",
            remedy="see to the reason, and run the command again with --retry failed",
        )
    counts = [item["counts"] for item in scored.items]
    first = rows[0].caption
    return Evaluation(
        benchmark=benchmark.name,
        metrics=benchmark.figures(total(counts)),
        intervals=intervals(
            counts,
            benchmark.figures,
            clusters=[item["image_id"] for item in scored.items],
            seed=workspace.recipe.seed,
            resamples=section.resamples,
            confidence=section.confidence,
        ),
        printed=scored.printed,
        items=scored.items,
        provenance=Provenance(
            model=model,
            base=first.model,
            adapter_hash=first.adapter_hash,
            template=first.template,
            image_aspect=first.image_aspect,
            decoding=first.sampling,
            prompt_set=benchmark.prompt_set,
            captions=workspace.fingerprint(f"captions/{model}/{benchmark.prompt_set}.parquet"),
            n=len(scored.items),
            failed=failed,
            failures=scored.failures,
            empty=sum(not row.caption.response.strip() for row in rows),
            set_size=len(prompts),
            set_digest=set_digest(prompts),
            settings={**{name: getattr(section, name) for name in benchmark.settings}, **scored.settings},
            files=files_of_set(workspace, benchmark.prompt_set),
        ),
    )


def _reasons(failures: Mapping[str, int], shown: int = 3) -> str:
    """The most frequent reasons with their numbers; evaluations of earlier versions have none."""
    listed = [f"{count:,} × {reason}" for reason, count in list(failures.items())[:shown]]
    rest = len(failures) - len(listed)
    return "; ".join(listed + ([f"and {rest:,} other reasons"] if rest else [])) or "reasons unknown"


def _warnings(workspace: Workspace, model: str, benchmark: Benchmark, evaluation: Evaluation) -> list[str]:
    """What a reader of the figures must know."""
    origin = evaluation.provenance
    captions = len({item["prompt_id"] for item in evaluation.items}) + origin.failed
    found = []
    if workspace.state(plans.captions(workspace, model, benchmark.prompt_set)) == "stale":
        command = command_for(workspace, model, benchmark.prompt_set)
        found.append(f"the captions of {model} are stale; run `{command}` to renew them")
    if origin.empty:
        found.append(f"{benchmark.title}: {origin.empty:,} of {captions:,} captions of {model} are empty")
    if origin.failed:
        found.append(
            f"{benchmark.title}: {origin.failed:,} items of {model} could not be judged and are in no figure"
            f" ({_reasons(origin.failures)}); ask again with --retry failed"
        )
    if captions < origin.set_size:
        found.append(f"{benchmark.title}: {model} has captions of {captions:,} of {origin.set_size:,} prompts")
    return found


def _hindrances(workspace: Workspace, model: str, benchmark: Benchmark) -> list[str]:
    """Why a model is not compared with the base, or not in what differs by training alone."""
    prompt_set = benchmark.prompt_set
    if model == plans.BASE or workspace.manifest(f"captions/{plans.BASE}/{prompt_set}.parquet") is None:
        return []
    if workspace.state(plans.evaluation(workspace, plans.BASE, benchmark.name, prompt_set)) != "done":
        command = f"opadpo evaluate {workspace.shown} --model {plans.BASE} --benchmark {benchmark.name}"
        return [f"{benchmark.title}: {model} is not compared with the base, which is not scored; run `{command}`"]
    evaluations = [read_evaluation(workspace.evaluation(name, benchmark.name)) for name in (model, plans.BASE)]
    if found := differing(*evaluations):
        seen = f"{model}: {found.first}; {plans.BASE}: {found.second}"
        why = f"their {found.what} differ ({seen}); {found.remedy}"
        return [f"{benchmark.title}: {model} is not compared with the base: {why}"]
    first, second = (each.provenance for each in evaluations)
    names = ("base", "template", "image_aspect", "decoding")
    differ = ", ".join(name.replace("_", " ") for name in names if getattr(first, name) != getattr(second, name))
    if not differ:
        return []
    return [f"{benchmark.title}: captions of {model} and of the base differ in {differ}, not by training alone"]
