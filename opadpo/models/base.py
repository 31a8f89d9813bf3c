"""The base model of a workspace: found or fetched once by `prepare`, then pinned.

The pin names the exact files, so that a node without internet loads the same model, and a model that changed on disk
is noticed before anything runs on it.
"""

import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opadpo.errors import MissingArtefact, ModelError
from opadpo.files import atomic_write
from opadpo.hashing import digest, file_digest
from opadpo.models.families import family_for
from opadpo.models.hub import PICKLES, WANTED, fetch_snapshot
from opadpo.progress import Progress
from opadpo.recipe.sections import ModelSection
from opadpo.workspace import Workspace

PIN_FILE = "base.json"
TOY = "toy"
WEIGHTS_INDEX = "model.safetensors.index.json"
HASH_AGAIN_BELOW = 16 * 2**20
"""Files below this many bytes are hashed whenever the pin is checked; of larger ones only the size is compared."""


class FileStamp(BaseModel):
    """Size and hash of one file."""

    model_config = ConfigDict(frozen=True)

    size: int
    """Bytes."""
    sha256: str
    """64 hex digits."""


class BasePin(BaseModel):
    """The base model that a workspace uses."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: str
    """`model.base` of the recipe: hub id, folder, or `toy`."""
    requested_revision: str | None = None
    """`model.revision` of the recipe when the model was pinned."""
    revision: str
    """Commit on the hub; for a folder and for `toy` the first 12 digits of `digest`."""
    path: str
    """Folder with the files on this machine."""
    digest: str
    """SHA-256 over names, sizes and hashes of all files."""
    family: str
    """Model family."""
    files: dict[str, FileStamp] = Field(default_factory=dict)
    """Every file that counts."""

    @property
    def name(self) -> str:
        """`base@revision`, as stored with every rollout and caption."""
        return f"{self.base}@{self.revision}"


def fetch_base(model: ModelSection, progress: Progress, offline: bool = False) -> BasePin:
    """Find the recipe's base model, downloading it if it is on the hub, and check that it is complete.

    Args:
        model: the recipe's section.
        progress: told about downloads and hashing.
        offline: use what is on this machine only.

    Raises:
        ModelError: if it cannot be found or reached, a file is missing, its weights are pickles, or its family is
            unknown.
    """
    if model.base == TOY:
        path, revision = toy_folder(), None
    elif _is_folder(model.base):
        path, revision = Path(model.base).expanduser().resolve(), None
    else:
        path, revision = fetch_snapshot(model.base, model.revision, progress, offline=offline)
    check_folder(path)
    family = _checked_family(model.family, path)
    files = _stamps(path, progress)
    whole = _digest(files)
    return BasePin(
        base=model.base,
        requested_revision=model.revision,
        revision=revision or whole[:12],
        path=str(path),
        digest=whole,
        family=family,
        files=files,
    )


def toy_folder() -> Path:
    """Folder of the tiny model that ships with the package.

    Raises:
        ModelError: if the package was installed without its data.
    """
    path = Path(str(resources.files("opadpo"))) / "toy" / "base"
    if not (path / "config.json").is_file():
        raise ModelError(
            "The toy base model is not in this installation",
            seen=path,
            remedy="install the package with its data (`pip install .` in the repository)",
        )
    return path


def check_folder(path: Path) -> None:
    """Check that a model folder has config, safetensors weights, tokenizer and image processor.

    Raises:
        ModelError: naming everything that is missing at once.
    """
    if not path.is_dir():
        raise ModelError("The base model's folder is not there", seen=path, remedy="correct model.base in the recipe")
    missing = []
    if not (path / "config.json").is_file():
        missing.append("config.json (the model's config)")
    missing += _missing_weights(path)
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        missing.append("tokenizer.json (the tokenizer)")
    if not any((path / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        missing.append("preprocessor_config.json or processor_config.json (the image processor)")
    if missing:
        raise ModelError(
            "The base model's folder is not complete; it has no\n" + "\n".join(f"  - {item}" for item in missing),
            seen=path,
            remedy="point model.base at a folder that save_pretrained() of model and processor wrote",
        )


def write_pin(workspace: Workspace, pin: BasePin) -> None:
    """Store the pin in the workspace (`base.json`)."""
    atomic_write(workspace.root / PIN_FILE, pin.model_dump_json(indent=2))


def read_pin(workspace: Workspace) -> BasePin:
    """The workspace's base model, checked to be the recipe's and unchanged on disk.

    Raises:
        MissingArtefact: if there is no pin, or it is of another model than the recipe's.
        ModelError: if the files are not there any more or have changed.
    """
    remedy = f"run `opadpo prepare {workspace.shown}`"
    try:
        pin = BasePin.model_validate_json((workspace.root / PIN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingArtefact(
            "The base model is not pinned yet", seen=workspace.root / PIN_FILE, remedy=remedy
        ) from error
    except ValueError as error:
        raise MissingArtefact(
            "The base model's pin is damaged", seen=workspace.root / PIN_FILE, remedy=remedy
        ) from error
    model = workspace.recipe.model
    if (pin.base, pin.requested_revision) != (model.base, model.revision):
        raise MissingArtefact(
            "The workspace's base model is not the recipe's",
            seen=f"pinned {pin.base} (revision {pin.requested_revision}), recipe {model.base} (revision"
            f" {model.revision})",
            remedy=remedy,
        )
    if pin.base == TOY:
        pin = pin.model_copy(update={"path": str(toy_folder())})
    _check_unchanged(pin, remedy)
    return pin


def names_base(reported: str, pin: BasePin) -> bool:
    """Whether a server's name of its model is one of the base's: hub id or folder, with or without `@revision`."""
    name = reported.rpartition("@")[0] or reported
    known = {pin.base, pin.path, pin.name, str(Path(pin.base).expanduser())}
    return reported in known or name.rstrip("/") in {each.rstrip("/") for each in known}


def pinned_digest(workspace: Workspace) -> str:
    """Digest of the pinned base model, for fingerprints; empty if none is pinned."""
    try:
        pin = json.loads((workspace.root / PIN_FILE).read_text(encoding="utf-8"))
        return str(pin["digest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ""


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder.

    Raises:
        ModelError: if it is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError("A file of the model is missing", seen=path, remedy="fetch the model again") from error
    except ValueError as error:
        raise ModelError("A config of the model is not JSON", seen=path, remedy="fetch the model again") from error
    if not isinstance(value, dict):
        raise ModelError("A config of the model is not a JSON object", seen=path, remedy="fetch the model again")
    return value


def _is_folder(base: str) -> bool:
    return base.startswith(("/", "./", "../", "~", os.curdir + os.sep)) or Path(base).is_dir()


def _missing_weights(path: Path) -> list[str]:
    index = path / WEIGHTS_INDEX
    if index.is_file():
        shards = sorted(set(read_config(index).get("weight_map", {}).values()))
        return [f"{name} (weights named in {WEIGHTS_INDEX})" for name in shards if not (path / name).is_file()]
    if any(path.glob("*.safetensors")):
        return []
    pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in PICKLES]
    if pickles:
        return [
            f"model.safetensors (weights): {', '.join(pickles)} are pickles, which can run code when loaded and are"
            " refused; convert them with model.save_pretrained(FOLDER)"
        ]
    return ["model.safetensors (weights)"]


def _checked_family(wanted: str, path: Path) -> str:
    model_type = str(read_config(path / "config.json").get("model_type", ""))
    found = family_for(model_type).name
    if wanted not in ("auto", found):
        raise ModelError(
            "model.family does not fit the base model",
            seen=f"{wanted}, but {path / 'config.json'} has model_type {model_type!r}",
            remedy=f"set model.family to auto or {found}",
        )
    return found


def _stamps(path: Path, progress: Progress) -> dict[str, FileStamp]:
    names = sorted({file.name for pattern in WANTED for file in path.glob(pattern) if file.is_file()})
    stamps = {}
    with progress.task("Checking the base model's files", len(names)) as task:
        for name in names:
            stamps[name] = FileStamp(size=(path / name).stat().st_size, sha256=file_digest(path / name))
            task.advance()
    return stamps


def _digest(files: Mapping[str, FileStamp]) -> str:
    return digest({name: [stamp.size, stamp.sha256] for name, stamp in files.items()})


def _check_unchanged(pin: BasePin, remedy: str) -> None:
    folder = Path(pin.path)
    for name, stamp in pin.files.items():
        file = folder / name
        if not file.is_file():
            raise ModelError("A file of the base model is not there any more", seen=file, remedy=remedy)
        size = file.stat().st_size
        if size != stamp.size or (size < HASH_AGAIN_BELOW and file_digest(file) != stamp.sha256):
            raise ModelError(
                "A file of the base model has changed since it was pinned",
                seen=file,
                remedy=f"{remedy}; what was made with the old model becomes stale",
            )
