"""The verb that opens the notebooks."""

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from opadpo.cli import layout
from opadpo.cli.running import Outcome, Run, verb
from opadpo.errors import DependencyMissing, PortInUse

HOST = "127.0.0.1"


@verb()
def notebooks(
    run: Run,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=65535, help="Port to listen at [8888, or the next free one].", show_default=False
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, open no browser.")] = False,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Copy the notebooks and start nothing.")] = False,
) -> Outcome:
    """Open the notebooks on the workspace in JupyterLab.

    One notebook per step of the method, copied into WORKSPACE/notebooks; a copy that is there is never overwritten.
    They run with this environment's Python.
    """
    from opadpo.display.shipped import copy_into

    if not copy_only:
        _check(port)
    folder, made = copy_into(run.workspace.root)
    data = {
        "step": "notebooks",
        "status": "done" if made else "up_to_date",
        "outputs": [f"notebooks/{n}" for n in made],
    }
    several = "notebook" if len(made) == 1 else "notebooks"
    told = f"{layout.number(len(made))} {several} copied to {folder}" if made else f"the notebooks are in {folder}"
    if copy_only:
        return Outcome(data, told)
    run.progress.say(told)
    _become_jupyterlab(folder, port, browser=not no_browser)
    return Outcome(data, told)


def _check(port: int | None) -> None:
    for module in ("jupyterlab", "ipykernel"):
        if importlib.util.find_spec(module) is None:
            raise DependencyMissing(
                "JupyterLab is not installed",
                seen=f"no module {module} in {sys.prefix}",
                remedy="install the extra: pip install 'opadpo[notebooks]'",
            )
    if port is None:
        return
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise PortInUse(
                "JupyterLab cannot listen on this port",
                seen=f"{HOST}:{port} ({error.strerror})",
                remedy="choose another with --port",
            ) from error


def _become_jupyterlab(folder: Path, port: int | None, *, browser: bool) -> None:
    """Turn this process into JupyterLab, which then owns the terminal and its Ctrl+C."""
    options = [f"--ServerApp.ip={HOST}", f"--ServerApp.root_dir={folder}"]
    options += [] if browser else ["--no-browser"]
    # JupyterLab refuses root for the sake of servers that others reach; this one listens to its own machine only.
    options += ["--allow-root"] if os.geteuid() == 0 else []
    options += [] if port is None else [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    # A kernel that the user has installed under the same name would be another environment's.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "jupyterlab", *options], environment)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(notebooks)
