"""Notebooks where something is in the way: a clear message in place of a traceback, and nothing that is lost."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel
from run_notebooks import copy_photographs, execute, read

from opadpo.display.shipped import shipped, with_parameters
from opadpo.training.checkpoints import newest_complete, step_of
from opadpo.workspace import Workspace

NAMES = [path.name for path in shipped()]
AS_IT_IS: dict[str, Any] = {"recipe": None, "settings": []}
Make = Callable[..., Workspace]


def notebook(start: str, **values: Any) -> dict[str, Any]:
    """The notebook whose name starts so, with these parameters."""
    (path,) = [path for path in shipped() if path.name.startswith(start)]
    return with_parameters(read(path), values)


def code(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown(client: Any, source: str) -> str:
    """All that a kernel sends while it runs this."""
    messages: list[Any] = []
    client.execute_interactive(source, timeout=280, output_hook=messages.append)
    return json.dumps([message["content"] for message in messages])


@pytest.mark.parametrize("path", shipped(), ids=NAMES)
def test_a_kernel_without_the_package_is_told_which_one_to_choose(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c", code(read(path))[0]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Choose the kernel of the environment that has opadpo" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_interrupted_training_is_told_and_goes_on_when_the_cell_is_run_again(made: Make) -> None:
    long = [f"train.opadpo.{each}" for each in ("max_steps=60", "epochs=40", "save_steps=1000", "logging_steps=1")]
    workspace = made(*long)
    cells = code(notebook("05", workspace=str(workspace.root), **AS_IT_IS))
    place = next(number for number, cell in enumerate(cells) if 'display.run(ws, "opadpo"' in cell)
    lines = workspace.run("opadpo") / "metrics.jsonl"
    manager, client = start_new_kernel(kernel_name="python3")

    def press() -> None:
        while not (lines.exists() and lines.read_text().count("\n") >= 2):
            time.sleep(0.02)
        manager.interrupt_kernel()

    try:
        for cell in cells[:place]:
            assert "Traceback" not in shown(client, cell)
        pressing = threading.Thread(target=press, daemon=True)
        pressing.start()
        told = shown(client, cells[place])
        pressing.join(timeout=60)
        assert "Interrupted" in told
        assert "Training continues from its newest checkpoint" in told
        assert "Traceback" not in told
        newest = newest_complete(workspace.run("opadpo"))
        assert newest is not None
        assert 2 <= step_of(newest) == lines.read_text().count("\n") < 60
        again = shown(client, cells[place])
        assert "Traceback" not in again
        assert f"continued from update {step_of(newest)}" in again
        assert [json.loads(line)["step"] for line in lines.read_text().splitlines()] == list(range(1, 61))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_an_expert_that_is_down_is_told_in_its_notebook(made: Make) -> None:
    address = f"http://127.0.0.1:{closed_port()}/v1"
    settings = [f"revise.endpoint.base_url={address}", "revise.endpoint.server_command=[]", "revise.max_retries=0"]
    workspace = made(*settings)
    workspace.reviews_db.unlink()
    check_told(notebook("02", workspace=str(workspace.root), **AS_IT_IS), workspace.root.parent, address)


@pytest.mark.slow
def test_an_address_that_is_down_is_told_in_the_notebook_of_your_own_data(tmp_path: Path) -> None:
    copy_photographs(tmp_path / "photographs")
    address = f"http://127.0.0.1:{closed_port()}/v1"
    settings = ["rollout.max_new_tokens=8", "revise.max_retries=0"]
    check_told(notebook("07", base_url=address, model="nobody", api_key_env=None, settings=settings), tmp_path, address)


def closed_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def check_told(source: dict[str, Any], folder: Path, address: str) -> None:
    """Up to the cell that asks the expert all goes well; that one ends in a box: what, the value seen, what to do."""
    place = next(
        number for number, cell in enumerate(source["cells"]) if 'display.run(ws, "revise"' in "".join(cell["source"])
    )
    source["cells"] = source["cells"][: place + 1]
    *before, asking = execute(source, folder, allow_errors=True)["cells"]
    assert "opadpo err" not in json.dumps(before)
    html = "".join("".join(output["data"]["text/html"]) for output in asking["outputs"])
    box = html[html.index("opadpo err") :]
    assert address in box
    assert "what to do" in box
    assert "Traceback" not in json.dumps(asking["outputs"])
