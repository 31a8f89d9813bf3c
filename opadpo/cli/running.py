"""What every verb has in common: options, progress, the result, errors and exit statuses."""

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from opadpo.cli import layout, reporting
from opadpo.cli.options import COMMON, STEP, WorkspacePath
from opadpo.processes.here import first_process, launched_outside
from opadpo.processes.serving import serve
from opadpo.processes.team import leading

if TYPE_CHECKING:
    from opadpo.llm.estimate import Estimate
    from opadpo.steps.result import StepResult
    from opadpo.workspace import Workspace

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


class Outcome(NamedTuple):
    """What a verb hands back to be shown."""

    data: Mapping[str, Any]
    """The result for `--json`."""
    text: str
    """The same for people."""
    exit_status: int = 0
    """0, or 1 where the verb itself is a question that can be answered with no (`doctor`)."""
    always: bool = False
    """True where the text is what the user asked for, so that `--quiet` does not silence it."""


@dataclass
class Run:
    """One call of a verb: the workspace's path and the options that all steps share."""

    verb: str
    """Name of the verb, for messages."""
    root: Path | None = None
    """The workspace's folder; None for verbs without one."""
    overrides: list[str] = field(default_factory=list)
    """`--set section.key=value`."""
    recipe_file: Path | None = None
    """`--recipe FILE.yaml` of a step; None: the workspace's own."""
    as_json: bool = False
    """`--json`."""
    quiet: bool = False
    """`--quiet`."""
    offline: bool = False
    """`--offline`, or the hub's own environment variable."""

    @functools.cached_property
    def workspace(self) -> "Workspace":
        """The opened workspace.

        Raises:
            WorkspaceError: if the folder is not a workspace.
            RecipeError: if the recipe or an override is wrong.
        """
        from opadpo.workspace import Workspace

        assert self.root is not None
        return Workspace.open(self.root, self.overrides, recipe_file=self.recipe_file)

    @functools.cached_property
    def progress(self) -> reporting.CommandProgress:
        """Where the step tells how far it is."""
        return reporting.CommandProgress(quiet=self.quiet)


def verb(
    *, workspace: bool = True, options: Mapping[str, tuple[Any, Any]] = COMMON
) -> Callable[[Callable[..., Outcome]], Callable[..., None]]:
    """Decorate `function(run, ...) -> Outcome` into a callback for typer.

    On the command line the parameter `run` becomes the argument WORKSPACE, or disappears where there is none. The
    shared options follow the function's own.
    """

    def decorate(function: Callable[..., Outcome]) -> Callable[..., None]:
        label = function.__name__
        parameters = _merged_parameters(function, options, workspace=workspace)

        @functools.wraps(function)
        def callback(**arguments: Any) -> None:
            shared = {key: arguments.pop(key) for key in options}
            shared["overrides"] = shared.get("overrides") or []
            run = Run(verb=label, root=arguments.pop("workspace") if workspace else None, **shared)
            _set_environment(run)
            with reporting.errors(label, run.root, as_json=run.as_json):
                outcome = function(run=run, **arguments)
                if run.as_json:
                    reporting.print_json({**outcome.data, "exit": outcome.exit_status})
                elif outcome.always or not run.quiet:
                    typer.echo(outcome.text)
            if outcome.exit_status:
                raise typer.Exit(outcome.exit_status)

        callback.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        callback.__annotations__ = {p.name: p.annotation for p in parameters}
        return callback

    return decorate


def step(
    options: Mapping[str, tuple[Any, Any]] = STEP,
    *,
    several_processes: bool = False,
) -> Callable[[Callable[..., "StepResult"]], Callable[..., None]]:
    """Decorate `function(run, ...) -> StepResult` into a callback for typer with WORKSPACE and the steps' options.

    With `several_processes` the verb may be started by torchrun or the like: its first process calls the function, the
    others serve it.
    """

    def decorate(function: Callable[..., "StepResult"]) -> Callable[..., None]:
        @functools.wraps(function)
        def shown(run: Run, **arguments: Any) -> Outcome:
            if several_processes and launched_outside() and not first_process():
                serve()
                raise typer.Exit
            with leading() if several_processes else nullcontext():
                result = function(run=run, **arguments)
            run.progress.warn_of_rest(result.warnings)
            return Outcome(result.model_dump(mode="json"), layout.summary(result, run.root))

        return verb(options=options)(shown)

    return decorate


def agreement(whom: str, *, yes: bool) -> "Callable[[Estimate], bool] | None":
    """How to agree to a price: `--yes` does, else a person at the terminal; None where nobody can be asked."""
    if yes:
        return lambda _estimate: True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda estimate: typer.confirm(f"Ask {whom}? {estimate.text}", err=True)


def _merged_parameters(
    function: Callable[..., Any], options: Mapping[str, tuple[Any, Any]], *, workspace: bool
) -> list[inspect.Parameter]:
    """The function's parameters with `run` replaced, then the shared options."""
    kind = inspect.Parameter.KEYWORD_ONLY
    merged = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name != "run":
            merged.append(parameter.replace(kind=kind))
        elif workspace:
            merged.append(inspect.Parameter("workspace", kind, annotation=WorkspacePath))
    merged += [inspect.Parameter(key, kind, annotation=a, default=default) for key, (a, default) in options.items()]
    return merged


def _set_environment(run: Run) -> None:
    """What heavy packages read when they are imported."""
    if not sys.warnoptions:
        # Advice from one library to another about their next versions; `python -W default -m opadpo` shows it.
        warnings.simplefilter("ignore", FutureWarning)
    if run.offline:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    run.offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
