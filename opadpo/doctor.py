"""What is on this machine, what is missing, what that costs, and what to do about it.

Only the standard library is imported at the top: the doctor must be able to examine a broken installation.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opadpo.checks import Check, as_dicts
from opadpo.errors import ModelError, UserError

if TYPE_CHECKING:
    from opadpo.recipe import Recipe
    from opadpo.recipe.endpoints import AskingSection

GIB = 2**30
MIN_PYTHON = (3, 11)
MIN_DISK_GIB = 2.0
MIN_HUB_DISK_GIB = 30.0
"""Room for the snapshot of a 13-billion-parameter model in 16 bits."""
MIN_MEMORY_GIB = 4.0

NAMED_PACKAGES = ("transformers", "peft", "accelerate", "gradio")

PROGRAMS = {
    "git": "the provenance of a run cannot name the commit of your own code",
    "chromium": "only the browser tests of the app cannot run",
    "ssh": "another machine cannot be reached from here",
    "rsync": "a workspace cannot be copied to another machine and back",
    "sbatch": "work cannot be handed to a Slurm cluster from here",
}


@dataclass(frozen=True)
class Report:
    """All findings."""

    checks: list[Check]
    """In the order in which they are shown."""

    @property
    def missing(self) -> list[Check]:
        """What is required and not there."""
        return [check for check in self.checks if check.required and check.state == "missing"]

    @property
    def verdict(self) -> str:
        """One line that sums up."""
        if self.missing:
            return "Missing and required: " + ", ".join(check.name for check in self.missing)
        optional = sum(check.state != "ok" for check in self.checks)
        return "Everything required is there" + (f"; {optional} optional things are not." if optional else ".")

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"checks": as_dicts(self.checks), "verdict": self.verdict}


def examine(recipe: str | None = None, workspace: Path | None = None) -> Report:
    """Examine this machine; with `recipe` (a preset or a YAML file) or `workspace` also what its recipe needs.

    Raises:
        UserError: if there is no such recipe.
        RecipeError: if the recipe has mistakes.
        WorkspaceError: if `workspace` is not one.
    """
    settings = _recipe(recipe, workspace)
    checks = [*_python(), *_packages(), *_torch(settings), *_memory(), *_disks(settings, workspace)]
    checks += [*_keys(settings), *_programs()]
    if settings is not None:
        checks += [*_base_model(settings), *_training(settings)]
    return Report(checks)


def _recipe(name: str | None, workspace: Path | None) -> "Recipe | None":
    if name is None and workspace is None:
        return None
    if name is None:
        from opadpo.workspace import Workspace

        assert workspace is not None
        return Workspace.open(workspace).recipe
    from opadpo.recipe import parse_recipe, preset_text

    return parse_recipe(preset_text(name), source=name)


def _python() -> Iterator[Check]:
    seen = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= MIN_PYTHON:
        yield Check("python", "ok", seen, required=True)
    else:
        wanted = ".".join(map(str, MIN_PYTHON))
        yield Check("python", "missing", seen, "nothing runs", f"install Python {wanted} or newer", required=True)


def _packages() -> Iterator[Check]:
    """The packages that the installation declares, each against the versions that it asks for."""
    from packaging.requirements import Requirement

    declared = [Requirement(text) for text in importlib.metadata.requires("opadpo") or []]
    wanted = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    good = []
    for requirement in wanted:
        version = _version(requirement.name)
        if version is None:
            yield Check(
                requirement.name,
                "missing",
                "not installed",
                "what needs it stops with an error",
                f"pip install '{requirement}'",
                required=True,
            )
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Check(
                requirement.name,
                "warning",
                f"{version}, but {requirement.specifier} is asked for",
                "untested: it may fail or give other results",
                f"pip install '{requirement}'",
            )
        elif requirement.name in NAMED_PACKAGES:
            yield Check(requirement.name, "ok", version, required=True)
        else:
            good.append(requirement.name)
    yield Check("other packages", "ok", f"{len(good)} required packages are there")


def _torch(recipe: "Recipe | None") -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check(
            "torch",
            "missing",
            str(error),
            "models cannot run: no rollouts, training or captions",
            "install it as the README says for your machine (CPU or CUDA)",
            required=True,
        )
        return
    yield Check("torch", "ok", str(torch.__version__), required=True)
    cuda = torch.cuda.is_available()
    wants_gpu = recipe is not None and recipe.model.device == "cuda"
    if cuda:
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Check(f"gpu {index}", "ok", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    else:
        built = torch.version.cuda
        yield Check(
            "gpu",
            "missing",
            f"no CUDA device (torch built for {f'CUDA {built}' if built else 'CPU'})",
            "models run on the CPU: fine for the toy world, far too slow for 7 billion parameters",
            "run on a machine with an NVIDIA GPU and a CUDA build of torch",
            required=wants_gpu,
        )
    yield from _attention(recipe, cuda)
    yield from _quantization(recipe, cuda)


def _attention(recipe: "Recipe | None", cuda: bool) -> Iterator[Check]:
    import torch

    sdpa = hasattr(torch.nn.functional, "scaled_dot_product_attention")
    yield Check("attention: sdpa", "ok" if sdpa else "missing", "part of torch", required=True)
    flex = importlib.util.find_spec("torch.nn.attention.flex_attention") is not None
    if flex and cuda:
        yield Check("attention: flex", "ok", "part of torch")
    else:
        seen = "needs a CUDA GPU" if flex else "not in this torch"
        yield Check(
            "attention: flex", "missing", seen, "nothing: sdpa takes its place", "use a CUDA GPU if you want it"
        )
    version = _version("flash-attn")
    if version:
        yield Check("attention: flash-attn", "ok", version)
    else:
        yield Check(
            "attention: flash-attn",
            "missing",
            "not installed",
            "long generation and fine-tuning on a GPU are slower; nothing on a CPU",
            "install flash-attn from conda-forge (environment.yaml has it), or keep model.attention at sdpa",
            required=recipe is not None and recipe.model.attention == "flash_attention_2",
        )


def _quantization(recipe: "Recipe | None", cuda: bool) -> Iterator[Check]:
    version = _version("bitsandbytes")
    needed = recipe is not None and (
        recipe.model.quantization != "none"
        or "adamw_8bit" in (recipe.train.opa.optimizer, recipe.train.opadpo.optimizer)
    )
    if version and cuda:
        yield Check("bitsandbytes", "ok", version)
    else:
        yield Check(
            "bitsandbytes",
            "missing",
            f"{version}, but no CUDA device" if version else "not installed",
            "no 4-bit or 8-bit base (QLoRA) and no 8-bit optimizer",
            "pip install bitsandbytes on a machine with a CUDA GPU",
            required=needed,
        )


def _memory() -> Iterator[Check]:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (ValueError, OSError):
        return
    seen = f"{total:.1f} GiB, {free:.1f} GiB unused; {os.cpu_count()} cores"
    if total >= MIN_MEMORY_GIB:
        yield Check("memory", "ok", seen)
    else:
        yield Check("memory", "warning", seen, "large data sets and models may not fit", "use a larger machine")


def _disks(recipe: "Recipe | None", workspace: Path | None) -> Iterator[Check]:
    hub = recipe is not None and _is_hub_id(recipe)
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    places = [
        ("disk of the workspace" if workspace else "disk of this folder", workspace or Path.cwd(), MIN_DISK_GIB),
        ("disk of the hub's cache", cache, MIN_HUB_DISK_GIB if hub else MIN_DISK_GIB),
        ("disk of temporary files", Path(tempfile.gettempdir()), MIN_DISK_GIB),
    ]
    for name, path, wanted in places:
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free / GIB
        seen = f"{free:.1f} GiB free at {path}"
        if not os.access(there, os.W_OK):
            yield Check(name, "warning", f"{seen}, read-only", "nothing can be written there", "choose another folder")
        elif free < wanted:
            cost = f"less than {wanted:.0f} GiB: a step may stop for lack of room (it continues later)"
            yield Check(name, "warning", seen, cost, "free some space, or move HF_HOME or the workspace")
        else:
            yield Check(name, "ok", seen)


def _keys(recipe: "Recipe | None") -> Iterator[Check]:
    """Secrets: only whether they are there, never what is in them."""
    if recipe is not None:
        yield from _endpoints(recipe.revise, "expert", "opadpo revise")
        if recipe.rollout.engine == "server":
            yield from _endpoints(recipe.rollout.server, "sampling server", "opadpo rollout")
    elif os.environ.get("OPENAI_API_KEY"):
        yield Check("key of the expert", "ok", "OPENAI_API_KEY is set")
    else:
        yield Check(
            "key of the expert",
            "missing",
            "OPENAI_API_KEY is not set",
            "experts that take this key cannot be asked",
            "export OPENAI_API_KEY=... (never write it into the recipe)",
        )
    token = os.environ.get("HF_TOKEN") or (Path(os.environ.get("HF_HOME") or "~/.cache/huggingface") / "token")
    if isinstance(token, str) or token.expanduser().is_file():
        yield Check("token of the hub", "ok", "set")
    else:
        yield Check(
            "token of the hub",
            "missing",
            "neither HF_TOKEN nor a login",
            "gated and private models and data sets cannot be fetched",
            "`hf auth login`, if you need one",
        )


def _endpoints(section: "AskingSection", who: str, command: str) -> Iterator[Check]:
    """The servers of a step: one cheap call to each that has an address."""
    from opadpo.llm.examining import examine_endpoint

    for number, endpoint in enumerate((section.endpoint, *section.more_endpoints), 1):
        name = who if not section.more_endpoints else f"{who} {number}"
        if endpoint.server_command and not endpoint.base_url:
            yield Check(name, "ok", f"`{command}` starts a server of its own")
            continue
        found = examine_endpoint(endpoint)
        if found.problem is not None:
            cost = f"`{command}` cannot ask this server"
            yield Check(name, "missing", found.seen, cost, found.problem.remedy or "", required=True)
        elif found.model_listed:
            yield Check(name, "ok", found.seen, required=True)
        else:
            cost = f"`{command}` may be told that there is no such model"
            yield Check(name, "warning", found.seen, cost, "check endpoint.model", required=True)


def _programs() -> Iterator[Check]:
    for name, cost in PROGRAMS.items():
        path = shutil.which(name)
        if path:
            yield Check(name, "ok", path)
        else:
            package = {"ssh": "openssh-client", "sbatch": "slurm-client"}.get(name, name)
            yield Check(name, "missing", "not on the PATH", cost, f"apt-get install {package}, if you need it")


def _base_model(recipe: "Recipe") -> Iterator[Check]:
    from opadpo.models.base import check_folder, toy_folder
    from opadpo.models.hub import fetch_snapshot
    from opadpo.progress import SilentProgress

    base, revision = recipe.model.base, recipe.model.revision
    name = "base model"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    try:
        if _is_hub_id(recipe):
            path, _ = fetch_snapshot(base, revision, SilentProgress(), offline=True)
        else:
            path = toy_folder() if base == "toy" else Path(base).expanduser()
        check_folder(path)
    except ModelError as error:
        fetchable = _is_hub_id(recipe) and not offline
        yield Check(
            name,
            "warning" if fetchable else "missing",
            f"{base}: {error.what}",
            "`opadpo prepare` has to download it" if fetchable else "the recipe cannot run",
            f"run `opadpo prepare` on a machine with internet access and about {MIN_HUB_DISK_GIB:.0f} GiB of disk"
            if fetchable
            else error.remedy or "correct model.base in the recipe",
            required=True,
        )
        return
    yield Check(name, "ok", f"{base} at {path}", required=True)


def _training(recipe: "Recipe") -> Iterator[Check]:
    """What both stages need beside the memory that there is."""
    try:
        from opadpo.training.fitting import LONGEST_RESPONSE, planned
    except (ImportError, OSError):  # a package is missing, which has its own line
        return
    try:
        fits = planned(recipe)
    except UserError as error:
        cost = "how much memory training needs is not known before it starts"
        yield Check("memory of training", "warning", f"{error.what}: {error.seen}", cost, error.remedy or "")
        return
    for fit in fits:
        name = f"memory of {fit.stage.key}"
        seen = f"{fit}, where no response has more than {LONGEST_RESPONSE} tokens"
        if fit.close:
            cost = "training is refused here" if fit.impossible else "training may run out of memory here"
            remedy = "; or ".join([*fit.advice(), f"use a GPU: micro_batch_size {fit.on_cards()}"])
            yield Check(name, "warning", seen, cost, remedy)
        else:
            yield Check(name, "ok", f"{seen}; up to micro_batch_size {fit.largest} fits")


def _is_hub_id(recipe: "Recipe") -> bool:
    base = recipe.model.base
    return base != "toy" and not base.startswith(("/", "./", "../", "~")) and not Path(base).is_dir()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
