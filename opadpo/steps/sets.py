"""Sets of prompts: parts of the workspace's own, or the questions and images of a benchmark."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opadpo.damage import damaged
from opadpo.errors import DataError, UserError
from opadpo.evaluation.benchmark import BenchmarkSet, Question
from opadpo.evaluation.files import RELEASES, Found, Release, digests, find_files, image_paths
from opadpo.files import atomic_write
from opadpo.hashing import bytes_digest, digest
from opadpo.progress import Progress
from opadpo.records import Prompt
from opadpo.steps import plans
from opadpo.steps.benchmarks import SETS, artefact_of_set
from opadpo.steps.image_store import ImageStore, StoredImage
from opadpo.tables import PROMPTS_FILE, iter_prompts, write_records
from opadpo.workspace import Workspace, Writer

HELDOUT = "heldout"
SOURCES_FILE = "sources.json"
"""In a benchmark's set: which files it was made from."""
KEPT_FOLDER = "files"
"""In a benchmark's set: the annotation files that scoring reads."""

__all__ = [
    "HELDOUT",
    "KEPT_FOLDER",
    "artefact_of_set",
    "files_of_set",
    "folder_of_set",
    "make_set",
    "prompts_of_set",
    "set_digest",
]


def folder_of_set(workspace: Workspace, name: str) -> Path:
    """The folder of a set's artefact; `Prompt.image_file` is relative to it."""
    return workspace.root / artefact_of_set(name)


def prompts_of_set(workspace: Workspace, name: str) -> list[Prompt]:
    """The prompts of `heldout`, of a subset or of a benchmark's set, in their order.

    Raises:
        MissingArtefact: if they have not been made.
        UserError: if there is no such set; the message lists those that are.
    """
    artefact = artefact_of_set(name)
    workspace.require(artefact, _how_to_make(workspace, name))
    everything = list(iter_prompts(workspace, artefact))
    chosen = [prompt for prompt in everything if name in (prompt.subset, prompt.split)]
    if not chosen:
        own = {p.subset for p in everything} | {p.split for p in everything}
        raise UserError(
            "The workspace has no prompts of this set",
            seen=name,
            remedy=f"use one of: {', '.join([*sorted(own), *SETS])}",
        )
    return chosen


def set_digest(prompts: Sequence[Prompt]) -> str:
    """What a set asks, in SHA-256: the same for the same images and questions in the same order."""
    return digest([prompt.prompt_id for prompt in prompts])


def files_of_set(workspace: Workspace, name: str) -> dict[str, str]:
    """Annotation file -> its SHA-256 when the set was made; empty for the workspace's own prompts.

    Raises:
        WorkspaceError: if the note of them is damaged.
    """
    if name not in SETS:
        return {}
    path = folder_of_set(workspace, name) / SOURCES_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error


def make_set(workspace: Workspace, name: str, *, progress: Progress, offline: bool = False) -> list[str]:
    """Make a benchmark's set from its files where it is missing or stale; returns the artefacts that were made.

    Args:
        workspace: where, and the recipe with the files' places.
        name: of the set; the workspace's own sets are left to `prepare`.
        progress: told about fetching and storing.
        offline: fetch nothing.

    Raises:
        MissingArtefact: if prompts, annotation files or images are not there.
        DataError: if a file is not the published one, or an image is broken.
        UserError: if a folder must be named in the recipe.
    """
    if name not in SETS:
        workspace.require("prompts", _how_to_make(workspace, name))
        return []
    plan = plans.benchmark_set(workspace, name)
    if workspace.state(plan) == "done":
        return []
    what, section = SETS[name], workspace.recipe.evaluate
    release, place = RELEASES[what.release], getattr(section.files, what.release)
    found = find_files(release, what.files, place.path, progress, offline=offline)
    questions = what.questions({key: file.path for key, file in found.items()}, section)
    images = image_paths(release, [question.image for question in questions], place.images)
    with workspace.writing(plan) as writer:
        stored = _store_images(workspace, writer, release, images, progress)
        prompts = _prompts(what, questions, stored)
        write_records(writer.folder / PROMPTS_FILE, prompts, Prompt)
        _keep_files(writer.folder, what, found)
        writer.finish(
            {"prompts": len(prompts), "questions": len(questions), "images": len(images)},
            content=digest([prompt.model_dump(mode="json") for prompt in prompts]),
        )
    return [plan.artefact]


def _how_to_make(workspace: Workspace, name: str) -> str:
    if name in SETS:
        return f"run `opadpo caption {workspace.shown} --model base --set {name}`"
    return f"run `opadpo prepare {workspace.shown}`"


def _store_images(
    workspace: Workspace, writer: Writer, release: Release, images: dict[str, Path], progress: Progress
) -> dict[str, StoredImage]:
    """Name of an image file -> where it is stored."""
    store = ImageStore(writer.folder, workspace.recipe.image.max_pixels)
    stored: dict[str, StoredImage] = {}
    broken: list[str] = []
    with progress.task(f"Storing the images of {release.title}", len(images)) as task:
        for name, path in images.items():
            data = path.read_bytes()
            original = bytes.fromhex(bytes_digest(data))
            store.add(original, data)
            if original in store.stored:
                stored[name] = store.stored[original]
            else:
                broken.append(f"{path}: {store.problems[original]}")
            task.advance()
    if broken:
        raise DataError(
            f"Images of {release.title} are broken",
            seen=f"{len(broken)} of {len(images)}; the first: {broken[0]}",
            remedy=f"unpack {release.images} again",
        )
    store.remove_all_but([image.file for image in stored.values()])
    return stored


def _prompts(what: BenchmarkSet, questions: Sequence[Question], images: dict[str, StoredImage]) -> list[Prompt]:
    """One prompt for every distinct question about an image, in the order in which they come first.

    `position` is the question's place in the files.
    """
    known: dict[tuple[str, str], list[dict[str, Any]]] = {}
    first: dict[tuple[str, str], Question] = {}
    for position, question in enumerate(questions):
        key = (images[question.image].image_id, question.text)
        known.setdefault(key, []).append({**question.known, "position": position})
        first.setdefault(key, question)
    return [
        Prompt.create(
            image_id=key[0],
            question=key[1],
            image_file=images[question.image].file,
            reference="",
            source=what.release,
            split=HELDOUT,
            subset=what.name,
            extra={what.key: known[key], "image": question.image},
        )
        for key, question in first.items()
    ]


def _keep_files(folder: Path, what: BenchmarkSet, found: dict[str, Found]) -> None:
    for name in what.kept:
        atomic_write(folder / KEPT_FOLDER / name, found[name].path.read_bytes())
    atomic_write(folder / SOURCES_FILE, json.dumps({"files": digests(found)}, indent=1) + "\n")
