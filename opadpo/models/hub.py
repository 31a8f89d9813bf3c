"""Base models from the Hugging Face hub: pinned to a commit, only the files that are needed."""

import fnmatch
import os
from pathlib import Path
from typing import Any

from opadpo.errors import ModelError, disk_errors
from opadpo.progress import Progress

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WANTED = (
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.j*",
    "tokenizer.model",
    "vocab.*",
    "merges.txt",
    "*.safetensors",
    "*.safetensors.index.json",
)
"""What a model folder needs: configs, processors, tokenizer, weights. Code and pickles stay where they are."""


def fetch_snapshot(base: str, revision: str | None, progress: Progress, *, offline: bool = False) -> tuple[Path, str]:
    """(folder, commit) of a model on the hub; what is in the local cache already is not fetched again.

    Raises:
        ModelError: if the model or revision does not exist, is not open to this user, has no safetensors, the hub
            cannot be reached, or, offline, it is not in the cache.
        DiskFull: if it does not fit on the disk.
    """
    if offline or _environment_says_offline():
        return _from_cache(base, revision)
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx

    try:
        info = HfApi().model_info(base, revision=revision)
        commit = str(info.sha)
        names = _needed([sibling.rfilename for sibling in info.siblings or []], base)
        with disk_errors(_cache_folder()), progress.task(f"Fetching {base}", len(names)) as task:
            folder = Path()
            for name in names:
                folder = Path(hf_hub_download(base, name, revision=commit)).parent
                task.advance()
            # Asked for by its branch or tag, a file also leaves a note in the cache of which commit that is; without
            # the note the model could not be found by that name when the network is off.
            hf_hub_download(base, names[0], revision=revision)
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, ConnectionError) as error:
        raise _explained(error, base, revision) from error
    return folder, commit


def _needed(names: list[str], base: str) -> list[str]:
    wanted = [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, p) for p in WANTED)]
    if not any(name.endswith(".safetensors") for name in wanted):
        pickles = [name for name in names if name.endswith(PICKLES)]
        raise ModelError(
            "The model has no safetensors weights; pickles can run code when loaded and are refused"
            if pickles
            else "This repository holds no weights",
            seen=f"{base}: {', '.join(pickles or names) or 'no files'}",
            remedy="choose a revision or a repository with safetensors (for LLaVA-1.5: llava-hf/llava-1.5-7b-hf)",
        )
    if "model.safetensors.index.json" in wanted and "model.safetensors" in wanted:
        wanted.remove("model.safetensors")
    return wanted


def _from_cache(base: str, revision: str | None) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(base, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise _explained(error, base, revision) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            "The base model is not in the local cache, and the network is switched off",
            seen=f"{base} (revision {revision or 'main'}) in {_cache_folder()}",
            remedy="run `opadpo prepare` once on a machine with network and the same HF_HOME, or point model.base at"
            " a local folder",
        ) from error
    return folder, folder.name


def _explained(error: Exception, base: str, revision: str | None) -> ModelError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    seen: Any = f"{base} (revision {revision or 'main'})"
    if isinstance(error, HFValidationError):
        what, remedy = "model.base is neither a folder nor a hub id", "give an existing folder, `toy`, or owner/name"
    elif isinstance(error, GatedRepoError):
        what, remedy = "The base model is gated", "accept its terms on the hub, then log in with `hf auth login`"
    elif isinstance(error, RepositoryNotFoundError):
        what, remedy = (
            "There is no such model on the hub, or it is private",
            "correct model.base, or log in with `hf auth login`",
        )
    elif isinstance(error, RevisionNotFoundError):
        what, remedy = "The model has no such revision", "correct model.revision in the recipe"
    elif isinstance(error, HfHubHTTPError):
        what, remedy = "The hub refused the request", "try again later; what was fetched is kept"
        seen = f"{seen}: {error}"
    else:
        what, remedy = (
            "The hub cannot be reached",
            "check the network; with `--offline` the local cache is used, and model.base can be a local folder",
        )
        seen = f"{seen}: {error}"
    return ModelError(what, seen=seen, remedy=remedy)


def _environment_says_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
