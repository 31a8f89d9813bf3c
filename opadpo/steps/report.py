"""`opadpo report`: one HTML file that tells the whole story, and a model card."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo import __version__
from opadpo.errors import OpadpoError, UserError, disk_errors
from opadpo.files import atomic_write, make_folder
from opadpo.progress import Progress
from opadpo.recipe import dump_recipe
from opadpo.steps import plans
from opadpo.steps.reporting.examples import Examples, examples
from opadpo.steps.reporting.facts import Facts, best_model, gather
from opadpo.steps.result import Score, StepResult
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "report"
PAGE = "report.html"
CARD = "model_card.md"
TEMPLATES = Path(__file__).parent / "reporting"


def report(
    workspace: Workspace, model: str | None = None, *, output: Path | None = None, progress: Progress
) -> StepResult:
    """Write `report.html` and `model_card.md` about what a workspace has; what it lacks is named in them.

    The page needs no network and nothing beside it: figures and images are inside.

    Args:
        workspace: with prompts at least.
        model: the aligned model that is compared with the base; None: `opadpo`, else the one trained last.
        output: folder for both files; None: `report/` in the workspace.
        progress: told about the parts.

    Raises:
        MissingArtefact: if nothing has been prepared, or the model is not there.
        UserError: if `model` is the base, or `output` can be no folder.
    """
    started = time.monotonic()
    if model == plans.BASE:
        raise UserError("A report is about an aligned model", seen="--model base", remedy="name an adapter, or none")
    workspace.require("prompts", f"run `opadpo prepare {workspace.shown}`")
    if model is not None:
        workspace.adapter(model)
        workspace.require(f"adapters/{model}", plans.training_command(workspace, model))
    with progress.task("Writing the report", 3) as task:
        facts = gather(workspace)
        task.advance()
        content = _content(facts, model or best_model(facts))
        task.advance()
        folder = output or workspace.root / FOLDER
        with disk_errors(folder):
            make_folder(folder)
        atomic_write(folder / PAGE, _render("page.html.j2", content, escape=True))
        atomic_write(folder / CARD, _front_matter(content) + _render("card.md.j2", content, escape=False))
        task.advance()
    return StepResult(
        step="report",
        status="done",
        outputs=[str(folder / PAGE), str(folder / CARD)],
        counts={"models": len(facts.trained), "benchmarks": len(facts.tables)},
        warnings=content["trouble"],
        seconds=time.monotonic() - started,
    )


def _content(facts: Facts, model: str | None) -> dict[str, Any]:
    """What the templates lay out."""
    trouble = list(facts.trouble)
    found: dict[str, Examples] = {}
    for table in facts.tables if model else ():
        try:
            if shown := examples(facts.workspace, table, plans.BASE, model or ""):
                found[table.benchmark.name] = shown
        except OpadpoError as error:
            trouble.append(f"examples of {table.benchmark.title}: {error.what}")
    return {
        "facts": facts,
        "model": model,
        "label": _label,
        "examples": found,
        "figures": _figures(facts),
        "trouble": trouble,
        "old": [each for each in facts.status.artefacts if each.state == "stale"],
        "lacking": [each for each in facts.status.artefacts if each.state in ("missing", "partial") and each.command],
        "recipe": dump_recipe(facts.workspace.recipe),
        "version": __version__,
        "made_at": datetime.now(UTC),
        "change": _change,
        "better": _better,
    }


def _figures(facts: Facts) -> dict[str, str]:
    """Name -> figure as a data URI."""
    from opadpo import plots

    made: dict[str, Callable[[], Figure]] = {}
    for trained in facts.trained:
        if trained.curve:
            made[f"curve/{trained.name}"] = lambda t=trained: plots.training_curves(t.name, t.curve)
    if facts.on_policy:
        made["on_policy"] = lambda: plots.on_policy(facts.on_policy)
    for table in facts.tables:
        if table.benchmark.hallucination is None:
            continue
        made[f"tradeoff/{table.benchmark.name}"] = lambda t=table: plots.tradeoff(
            [
                plots.Point(name, *(each.metrics[metric] for metric in t.benchmark.main))
                for name, each in t.evaluations.items()
            ],
            hallucination_label=f"{t.benchmark.hallucination}, % (lower is better)",
            coverage_label=f"{t.benchmark.coverage}, {t.benchmark.unit(t.benchmark.coverage)} (higher is better)",
        )
    if facts.status.trust is not None:
        trust = facts.status.trust
        made["trust"] = lambda: plots.expert_trust(trust.scores, trust.error_types)
    return {name: plots.svg_uri(figure()) for name, figure in made.items()}


def _label(model: str) -> str:
    from opadpo.plots import series

    return series(model).label


def _change(score: Score) -> str:
    """A difference to the base with its interval and p-value."""
    if score.difference is None:
        return ""
    found = score.difference
    p = "p < 0.0001" if found.p_value < 0.0001 else f"p = {found.p_value:.4f}"
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f}), {p}"


def _better(score: Score) -> str:
    """`better` or `worse` where the interval of the difference leaves zero out and the metric has a good side."""
    found = score.difference
    if found is None or score.direction is None or found.low <= 0 <= found.high:
        return ""
    return "better" if (found.value < 0) == (score.direction == "lower") else "worse"


def _render(template: str, content: dict[str, Any], *, escape: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment.get_template(template).render(content)


def _front_matter(content: dict[str, Any]) -> str:
    """The metadata block of a model card, as the hub reads it."""
    from huggingface_hub import EvalResult, ModelCardData

    facts: Facts = content["facts"]
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=table.benchmark.name,
            dataset_name=table.benchmark.title,
            metric_type=score.metric,
            metric_value=round(score.value, 2),
        )
        for table in facts.tables
        for score in table.scores
        if score.model == content["model"] and score.metric in table.benchmark.main
    ]
    base = facts.pin.get("base", "")
    data = ModelCardData(
        base_model=base if "/" in base and not Path(base).exists() else None,
        library_name="peft",
        pipeline_tag="image-text-to-text",
        tags=["opa-dpo", "dpo", "lora", "hallucination"],
        model_name=content["model"] if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n"
