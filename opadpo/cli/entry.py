"""The entry point: all verbs in the order of the method, usage errors and exit statuses."""

import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from opadpo.cli import method, setting_up, showing
from opadpo.cli.reporting import UsageError, report_usage_error

app = typer.Typer(
    name="opadpo",
    help="Teach a vision-language model to stop making things up: sample, correct, review, train, compare.",
    epilog="`opadpo COMMAND --help` explains a command and lists the settings that it reads.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from opadpo import __version__

        typer.echo(f"opadpo {__version__}")
        raise typer.Exit


setting_up.register(app)
method.register(app)
showing.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0: done; 1: the step failed; 2: the user's mistake; 130: interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = get_command(app).main(words, prog_name="opadpo", standalone_mode=False)
    except UsageError as error:
        return report_usage_error(error, as_json="--json" in words)
    except typer.Abort:
        return 1
    return status if isinstance(status, int) else 0
