"""Data sets on the Hugging Face hub: their table files are fetched into the hub's cache, then read as local ones.

Fetching whole files and reading them twice costs disk, but little memory; it continues after an interruption, pins
the commit, and works again later without a network. Streaming over the network would fetch every byte twice.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from opadpo.errors import DataError, StepFailed, disk_errors
from opadpo.progress import Progress
from opadpo.steps.sources.folder import SUFFIXES
from opadpo.steps.sources.formats import READERS
from opadpo.steps.sources.table import files_of_one_kind

_ID_PART = re.compile(r"[A-Za-z0-9][\w.-]*")
_CARD = "README.md"


class HubPath(NamedTuple):
    """A data set's id and, optionally, a pattern of files in it."""

    repo_id: str
    pattern: str | None


def hub_path(path: str) -> HubPath | None:
    """`owner/name` or `owner/name/folder/*.parquet`; None if the text cannot be a hub id."""
    parts = path.split("/")
    if path.startswith((".", "~", "/")) or not all(_ID_PART.fullmatch(part) for part in parts[:2]):
        return None
    if len(parts) <= 2 and Path(path).suffix.lower() in READERS:
        return None
    return HubPath("/".join(parts[:2]), "/".join(parts[2:]) or None)


def fetch_tables(
    where: HubPath, revision: str | None, split: str, progress: Progress, *, offline: bool
) -> tuple[list[Path], str]:
    """(table files of a split, commit) of a data set on the hub.

    Without a pattern every table file and image of the repository is fetched; which of them belong to the split is
    decided by `datasets` (the card's configuration, then file names).

    Raises:
        DataError: if it does not exist, cannot be reached or, offline, is not in the cache; or has no such split.
        StepFailed: if the connection breaks off.
        DiskFull: if it does not fit.
    """
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if not offline:
        progress.say(f"Fetching {where.repo_id} into the cache of the hub (what is there already is not fetched again)")
    folder = _snapshot(where, revision, offline=offline)
    if where.pattern:
        files = files_of_one_kind(sorted(folder.glob(where.pattern)), f"{where.repo_id}/{where.pattern}")
    else:
        files = _files_of_split(folder, where.repo_id, split)
    return files, folder.name


def _snapshot(where: HubPath, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    wanted = [where.pattern] if where.pattern else [f"*{suffix}" for suffix in (*READERS, *sorted(SUFFIXES))]
    try:
        with disk_errors(HF_HUB_CACHE):
            folder = snapshot_download(
                where.repo_id,
                repo_type="dataset",
                revision=revision,
                allow_patterns=[_CARD, *wanted],
                local_files_only=offline,
            )
    except LocalEntryNotFoundError as error:
        raise DataError(
            "The data source is no local file or folder, and the hub's copy is not (completely) on this machine"
            + (" while the network is switched off" if offline else " while the hub cannot be reached"),
            seen=f"{where.repo_id} (revision {revision or 'main'}) in {HF_HUB_CACHE}",
            remedy="run `opadpo prepare` with a network, or point prepare.source.path at local files",
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise DataError(
            "The data source is no local file or folder, and the hub does not give a data set of this name",
            seen=f"{where.repo_id} (revision {revision or 'main'}): {' '.join(str(error).split())}",
            remedy="correct prepare.source.path and prepare.source.revision; for a gated or private data set accept"
            " its terms and run `hf auth login`",
        ) from error
    except HTTPError as error:
        raise StepFailed(
            "Fetching the data set broke off",
            seen=f"{where.repo_id}: {' '.join(str(error).split()) or type(error).__name__}",
            remedy="run the command again; it continues where it was",
        ) from error
    return Path(folder)


def _files_of_split(folder: Path, repo_id: str, split: str) -> list[Path]:
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    try:
        found = load_dataset_builder(str(folder)).config.data_files or {}
    except (ValueError, DatasetNotFoundError) as error:
        raise DataError(
            "It is not clear which files of the data set to read",
            seen=f"{repo_id}: {' '.join(str(error).split())}",
            remedy=f"name them, for example prepare.source.path: {repo_id}/data/train-*.parquet",
        ) from error
    if split not in found:
        raise DataError(
            "The data set has no such split",
            seen=f"{repo_id}: {split}; it has {', '.join(map(str, found)) or 'none'}",
            remedy="correct prepare.source.hub_split",
        )
    return files_of_one_kind([Path(file) for file in found[split]], repo_id)
