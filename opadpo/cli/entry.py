"""The entry point: all verbs in the order of the method, usage errors and exit statuses."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from opadpo import __version__
from opadpo.cli import accounts, exchanging, jobs, method, notebooks, setting_up, showing
from opadpo.cli.reporting import UsageError, report_usage_error
from opadpo.processes.signals import Stopped

app = typer.Typer(
    name="opadpo",
    help="Teach a vision-language model to stop making things up: sample, correct, review, train, compare.",
    epilog="`opadpo COMMAND --help` explains a command and lists the settings that it reads.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"opadpo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


setting_up.register(app)
method.register(app)
showing.register(app)
notebooks.register(app)
exchanging.register(app)
accounts.register(app)
jobs.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done; 1: the step failed; 2: the user's mistake; 130: interrupted.
    """
    if arguments is None:
        _stop_on_sigterm()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = get_command(app).main(words, prog_name="opadpo", standalone_mode=False)
    except UsageError as error:
        return report_usage_error(error, as_json="--json" in words)
    except typer.Abort:
        return 1
    return status if isinstance(status, int) else 0


def _stop_on_sigterm() -> None:
    """Make SIGTERM an exception, so that a step stops the servers and processes that it has started."""
    me = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == me:
            raise Stopped(number)
        # A forked worker has inherited this handler: it just ends.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, stop)
