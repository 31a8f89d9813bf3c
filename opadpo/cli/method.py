"""The steps of the method, one verb each: read the arguments, call the step."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from opadpo.cli.completion import complete_models
from opadpo.cli.options import DEFAULT_SET, STEP_WITH_SET, Models, Stage, split_names, split_set
from opadpo.cli.running import Run, agreement, step
from opadpo.cli.settings_help import command_with_settings

if TYPE_CHECKING:
    from opadpo.steps.result import StepResult


@step()
def prepare(run: Run) -> "StepResult":
    """Collect prompts and images, and pin the base model.

    Reads the data source twice: once to choose the seeded subsets, once to store their images. Broken rows and
    duplicates are listed in prompts/dropped.jsonl. The base model is fetched, so that what follows needs no internet.
    """
    from opadpo.steps.prepare import prepare as call

    return call(run.workspace, progress=run.progress, offline=run.offline)


@step(several_processes=True)
def rollout(
    run: Run,
    retry: Annotated[
        Literal["failed"] | None,
        typer.Option("--retry", metavar="failed", help="Ask again where a sampling server failed.", show_default=False),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Agree to the estimated price of a sampling server.", show_default=False),
    ] = False,
) -> "StepResult":
    """Let the base model answer every training prompt.

    A run that was stopped continues, and samples the same text as if it had not been. With rollout.engine server the
    answers come from a server of the base model; what it answered is never asked again.
    """
    from opadpo.steps.rollout import rollout as call

    return call(
        run.workspace,
        progress=run.progress,
        retry_failed=retry == "failed",
        agree=agreement("the sampling server", yes=yes),
    )


@step()
def revise(
    run: Run,
    retry: Annotated[
        Literal["failed"] | None,
        typer.Option(
            "--retry", metavar="failed", help="Ask again where the expert's answer failed.", show_default=False
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to the estimated price, whatever it is.", show_default=False)
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Use the provider's batch service: half the price, answers within a day. Stop it and run it again as"
            " you like.",
            show_default=False,
        ),
    ] = False,
) -> "StepResult":
    """Let the expert correct every response, sentence by sentence.

    Requests that were answered are never sent again, whatever stops the run. The price is estimated before the first
    one, and asked about if it is above revise.ask_above_usd.
    """
    from opadpo.steps.revise import revise as call

    return call(
        run.workspace,
        progress=run.progress,
        retry_failed=retry == "failed",
        batch=batch,
        agree=agreement("the expert", yes=yes),
    )


@step()
def build(run: Run) -> "StepResult":
    """Make the data sets of both training stages from the revisions.

    Rows that are left out are listed with the reason in datasets/STAGE/dropped.jsonl.
    """
    from opadpo.steps.build import build as call

    return call(run.workspace, progress=run.progress)


@step(several_processes=True)
def train(
    stage: Annotated[Stage, typer.Argument(metavar="opa|opadpo", help="Which stage.", show_default=False)],
    run: Run,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the adapter [the stage]. `dpo` is the full loss from the base without OPA, `dpo-plain` only"
            " the revised over the generated response.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="base|opa|NAME",
            help="Where training starts, and the reference of opadpo [opa: base; opadpo: opa; dpo, dpo-plain: base].",
            show_default=False,
        ),
    ] = None,
) -> "StepResult":
    """Train an adapter: opa first, then opadpo from it.

    opa is supervised fine-tuning on references and corrections, which makes them on-policy; opadpo is preference
    optimisation against the model's own responses. A run that was stopped continues from its newest checkpoint.
    """
    from opadpo.steps.train import train as call

    return call(run.workspace, stage, name=name, start=start, progress=run.progress)


@step(STEP_WITH_SET, several_processes=True)
def caption(run: Run, model: Models) -> "StepResult":
    """Let models describe the held-out images, or answer the questions of a benchmark.

    --set has two meanings. Without `=` it names the set of prompts (`--set heldout`, or a benchmark's: amber,
    amber-discriminative, pope, chair, objhal); with `=` it overrides a setting of the recipe, as in every other step
    (`--set caption.max_new_tokens=64`). Give it as often as you need.
    """
    from opadpo.steps.caption import caption as call

    run.overrides, prompt_set = split_set(run.overrides)
    models = split_names(model)
    return call(run.workspace, models, progress=run.progress, prompt_set=prompt_set or DEFAULT_SET, offline=run.offline)


@step()
def evaluate(
    run: Run,
    model: Models = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[,NAME]", help="Benchmarks [those of the recipe].", show_default=False),
    ] = None,
    retry: Annotated[
        Literal["failed"] | None,
        typer.Option("--retry", metavar="failed", help="Ask again where a judge failed.", show_default=False),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to the estimated price of a judge.", show_default=False)
    ] = False,
) -> "StepResult":
    """Score captions on benchmarks.

    Without --model, every model that has captions is scored. Every figure comes with its interval and its difference to
    the base; docs/evaluating.md says how they are made.
    """
    from opadpo.steps.evaluate import evaluate as call

    return call(
        run.workspace,
        split_names(model) or None,
        split_names(benchmark) or None,
        progress=run.progress,
        retry_failed=retry == "failed",
        agree=agreement("the judge", yes=yes),
    )


@step()
def report(
    run: Run,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The aligned model to compare with the base [opadpo, else the one trained last].",
            autocompletion=complete_models,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to [WORKSPACE/report].", show_default=False),
    ] = None,
) -> "StepResult":
    """Write a report: one HTML file with everything inside, and a model card.

    Method, data, figures with intervals, captions that got better and worse, curves, costs, provenance, recipe.
    """
    from opadpo.steps.report import report as call

    return call(run.workspace, model, output=output, progress=run.progress)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line, in the order of the method."""
    generation = ("model", "prompt", "image")
    app.command(cls=command_with_settings("seed", "model", "prepare"))(prepare)
    app.command(cls=command_with_settings(*generation, "rollout"))(rollout)
    app.command(cls=command_with_settings("revise"))(revise)
    app.command(cls=command_with_settings("build"))(build)
    app.command(cls=command_with_settings(*generation, "train"))(train)
    app.command(cls=command_with_settings(*generation, "caption", "evaluate"))(caption)
    app.command(cls=command_with_settings("evaluate"))(evaluate)
    app.command(cls=command_with_settings())(report)
