"""Files of a workspace that are damaged or have gone: what to say, and how to have them made again."""

import shlex
from pathlib import Path

from opadpo.errors import WorkspaceError
from opadpo.manifest import Manifest
from opadpo.workspace import MANIFEST_FILE


def damaged(file: Path, error: object) -> WorkspaceError:
    """The error for a file of an artefact that cannot be read, or is not there although its artefact is."""
    gone = not file.exists()
    return WorkspaceError(
        "A file is not there any more" if gone else "A file is damaged",
        seen=file if gone else f"{file}: {_first_line(error)}",
        remedy=how_to_remake(file),
    )


def incomplete(folder: Path, seen: int, expected: int) -> WorkspaceError:
    """The error for an artefact of which a part has gone, or that holds more than was made."""
    return WorkspaceError(
        f"{folder.name} does not hold what was made",
        seen=f"{folder}: {seen} records, its manifest says {expected}",
        remedy=how_to_remake(folder),
    )


def how_to_remake(file: Path) -> str:
    """What makes the artefact of a file again: without its manifest it counts as missing."""
    for path in (file.with_name(f".{file.name}.{MANIFEST_FILE}"), file.parent / MANIFEST_FILE, file / MANIFEST_FILE):
        try:
            artefact = Manifest.model_validate_json(path.read_text(encoding="utf-8")).artefact
        except (OSError, ValueError):
            continue
        whole = path.parent if path.name == MANIFEST_FILE else file
        root = whole.absolute().parents[len(Path(artefact).parts) - 1]
        return f"delete {path}, then run `opadpo status {shlex.quote(str(root))}`: it says what makes {artefact} again"
    return "delete it and run the step that makes it again"


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
