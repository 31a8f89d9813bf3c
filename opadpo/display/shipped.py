"""The notebooks that come with the package: where they are, and copies of them for a workspace."""

import ast
import json
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from opadpo.errors import DependencyMissing, disk_errors
from opadpo.files import atomic_write, folder_errors

PARAMETERS = "parameters"
"""Tag of the one cell that holds a notebook's parameters, as papermill knows it."""

OWN_WORKSPACE = "07_your_own_data.ipynb"
"""The notebook that makes a workspace of its own."""

FOLDER = "notebooks"
"""Where a workspace has its copies."""

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")
"""A link to another folder of the source tree."""

SHARED = f"share/opadpo/{FOLDER}"
"""Where an installation has them, below its root."""


def shipped() -> list[Path]:
    """The notebooks in their order: of the source tree, else as the package was installed.

    Raises:
        DependencyMissing: if the installation left them out.
    """
    root = Path(__file__).parents[2]
    beside = root / FOLDER
    # The second is where `pip install --target` puts them, whose list of files names another place.
    found = list(beside.glob("*.ipynb")) or list((root / SHARED).glob("*.ipynb"))
    if not found:
        try:
            listed = files("opadpo") or []
        except PackageNotFoundError:
            listed = []
        installed = [Path(str(each.locate())) for each in listed if each.match(f"{SHARED}/*.ipynb")]
        found = [path for path in installed if path.is_file()]
    if not found:
        raise DependencyMissing(
            "The notebooks are not installed",
            seen=f"neither {beside} nor this package's files",
            remedy="install the package again, from its wheel or its source tree",
        )
    return sorted(found, key=lambda path: path.name)


def copy_into(root: Path) -> tuple[Path, list[str]]:
    """Copies of the notebooks in a workspace, whose parameters name that workspace: (their folder, those made now).

    A copy that is there is never overwritten: it is its user's.

    Raises:
        DependencyMissing: if the installation left them out.
        WorkspaceError: if the folder cannot be made or written to.
        DiskFull: if there is no room.
    """
    folder = root / FOLDER
    made = []
    with folder_errors(folder):
        folder.mkdir(exist_ok=True)
    with disk_errors(folder):
        for path in shipped():
            if (folder / path.name).exists():
                continue
            notebook = json.loads(path.read_text(encoding="utf-8"))
            if path.name != OWN_WORKSPACE:
                notebook = with_parameters(notebook, {"workspace": "..", "recipe": None, "settings": []})
            atomic_write(folder / path.name, to_text(_with_links_beside(without_outputs(notebook))))
            made.append(path.name)
    return folder, made


def _with_links_beside(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with links to the other notebooks only: a workspace has no documents of ours, just their names."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = OUTSIDE.sub(r"\1 (`\2`)", "".join(cell["source"]))
            cell["source"] = text.splitlines(keepends=True)
    return notebook


def with_parameters(notebook: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a notebook with other values in its parameters cell.

    Raises:
        KeyError: if the cell has no such parameter.
    """
    copy = json.loads(json.dumps(notebook))
    (cell,) = [each for each in copy["cells"] if PARAMETERS in each["metadata"].get("tags", [])]
    lines = "".join(cell["source"]).splitlines()
    for name, value in values.items():
        line = _line_of(lines, name)
        _, mark, comment = lines[line].rpartition("  # ")
        lines[line] = f"{name} = {value!r}" + (f"{mark}{comment}" if mark else "")
    cell["source"] = "\n".join(lines).splitlines(keepends=True)
    return copy


def _line_of(lines: list[str], name: str) -> int:
    for number, line in enumerate(lines):
        (statement,) = ast.parse(line).body or [None]
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return number
    raise KeyError(name)


def without_outputs(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a notebook that has not been run."""
    copy = json.loads(json.dumps(notebook))
    for cell in copy["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    copy["metadata"].pop("opadpo", None)
    return copy


def to_text(notebook: Mapping[str, Any]) -> str:
    """A notebook as the text of its file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
