"""The steps of the method, one verb each."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line, in the order of the method."""
