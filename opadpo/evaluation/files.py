"""The files of public benchmarks: who published them, how they are recognised, and where they are kept here.

A file is used only if its SHA-256 is the one below. It lies in a folder that the recipe names, or is fetched once from
its authors into a cache. Where no checksum is known to us, the recipe must name the folder, and what was seen there is
recorded with every figure.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from opadpo.errors import DataError, MissingArtefact, StepFailed, UserError, disk_errors
from opadpo.files import atomic_write
from opadpo.hashing import bytes_digest, file_digest
from opadpo.progress import Progress

CACHE_VARIABLE = "OPADPO_CACHE"
_SECONDS = 60
_PIECE = 1 << 18


class File(NamedTuple):
    """One file of a release."""

    name: str
    """Its path in the authors' folder; a folder of the user's may hold it flat."""
    sha256: str | None
    """What it is recognised by; None: not known to us."""
    url: str | None = None
    """Where it is fetched from; None: users bring it."""
    other_names: tuple[str, ...] = ()
    """Names under which it is passed on as well."""


class Release(NamedTuple):
    """What the authors of a benchmark have published."""

    key: str
    """Its settings are `evaluate.files.KEY`."""
    title: str
    """For people."""
    licence: str
    """Of the annotation files."""
    files: tuple[File, ...]
    """The annotation files."""
    home: str
    """The authors' page."""
    images: str
    """Where the images come from."""


class Found(NamedTuple):
    """A file at hand."""

    path: Path
    """Where it lies."""
    sha256: str
    """What it is."""


_AMBER = "https://raw.githubusercontent.com/junyangwang0410/AMBER/5e1fd52f8ea69150c70f0ba15de70af3a907a1fd/data/"
_POPE = "https://raw.githubusercontent.com/AoiDragon/POPE/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco/"


def _amber(name: str, sha256: str) -> File:
    return File(name, sha256, _AMBER + name)


def _pope(category: str, sha256: str) -> File:
    name = f"coco_pope_{category}.json"
    return File(name, sha256, _POPE + name, (f"{name}l",))


RELEASES: dict[str, Release] = {
    "amber": Release(
        key="amber",
        title="AMBER",
        licence="Apache-2.0",
        files=(
            _amber("annotations.json", "db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797"),
            _amber("relation.json", "c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e"),
            _amber("safe_words.txt", "f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043"),
            _amber("query/query_generative.json", "b7e4c36596126ee36d2c3922638b7fa98743c26efda78fea2315f4425258d087"),
            _amber(
                "query/query_discriminative.json", "1502887ac020f4bb7ea564af4e37bddcb030d61b78490d00f9da492a2307abb8"
            ),
        ),
        home="https://github.com/junyangwang0410/AMBER",
        images="the archive that the authors' page links to (AMBER_1.jpg to AMBER_1004.jpg)",
    ),
    "pope": Release(
        key="pope",
        title="POPE",
        licence="MIT",
        files=(
            _pope("random", "c16b65d2df6d70bb0814c8a4375833d39cdb09928fd936d3fc546491efa37f35"),
            _pope("popular", "5b16653023bf4f64d57eb0d168259de6627f5cde7538b85ebed3cc33034aa6cc"),
            _pope("adversarial", "1d8f0906a9b50c05640f6f23abfac97523be2a1bed28f7eadc63b811699b2d26"),
        ),
        home="https://github.com/AoiDragon/POPE",
        images="val2014.zip of https://cocodataset.org (COCO_val2014_*.jpg)",
    ),
    "chair": Release(
        key="chair",
        title="COCO",
        licence="CC BY 4.0 (annotations)",
        files=(
            File("instances_val2014.json", None),
            File("captions_val2014.json", None),
            File("obj_halbench_300_with_image.jsonl", None),
        ),
        home="https://cocodataset.org (annotations_trainval2014.zip; Object HalBench's questions:"
        " https://github.com/RLHF-V/RLAIF-V, eval/data)",
        images="val2014.zip of https://cocodataset.org (COCO_val2014_*.jpg)",
    ),
    "mmhal": Release(
        key="mmhal",
        title="MMHal-Bench",
        licence="see its page",
        files=(File("response_template.json", None),),
        home="https://huggingface.co/datasets/Shengcao1006/MMHal-Bench",
        images="the addresses in its `image_src`, under the last part of each",
    ),
    "llava_bench": Release(
        key="llava_bench",
        title="LLaVA-Bench in the wild",
        licence="see its page",
        files=tuple(
            File(name, None) for name in ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl", "rule.json")
        ),
        home="https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild (rule.json: llava/eval/table of"
        " https://github.com/haotian-liu/LLaVA)",
        images="the same data set (001.jpg to 024.jpg)",
    ),
}
"""Key in the recipe -> what was published."""


@contextmanager
def reading(title: str, where: Path, *, missing: str) -> Iterator[None]:
    """Turn what can be wrong with the files of a benchmark, which lie at `where`, into messages.

    `missing` says what to do about a file that is not there.

    Raises:
        MissingArtefact: if a file is not there.
        DataError: if what is in the files is not what should be.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise MissingArtefact(f"A file of {title} is missing", seen=error.filename, remedy=missing) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"The files of {title} cannot be read, or do not belong together",
            seen=f"{where}: {error!r}",
            remedy="fetch them again",
        ) from error


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that has one on each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def cache_folder() -> Path:
    """Where fetched files are kept: `OPADPO_CACHE`, else `opadpo` in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opadpo"


def find_files(
    release: Release, names: Sequence[str], folder: str | None, progress: Progress, *, offline: bool = False
) -> dict[str, Found]:
    """Every named file of a release, checked.

    Args:
        release: whose.
        names: of the files.
        folder: where the user has them; None: the cache, filled from the authors' address.
        progress: told about what is fetched.
        offline: fetch nothing.

    Raises:
        MissingArtefact: if a file is in the folder under none of its names, or, offline, not in the cache.
        UserError: if the folder must be named and is not.
        DataError: if a file is not the published one.
        StepFailed: if it cannot be fetched.
    """
    files = [file for file in release.files if file.name in names]
    if folder is not None:
        return {file.name: _in_folder(release, file, Path(folder).expanduser()) for file in files}
    found = {file.name: _in_cache(release, file) for file in files}
    absent = [file for file in files if found[file.name] is None]
    for file in absent:
        _check_fetchable(release, file, offline)
    if absent:
        with progress.task(f"Fetching the files of {release.title}", len(absent)) as task:
            for file in absent:
                found[file.name] = _fetch(release, file)
                task.advance()
    return {name: file for name, file in found.items() if file is not None}


def image_paths(release: Release, names: Sequence[str], folder: str | None) -> dict[str, Path]:
    """The path of every named image.

    Raises:
        UserError: if no folder is named.
        MissingArtefact: if images are not in it.
    """
    key = f"evaluate.files.{release.key}.images"
    if folder is None:
        raise UserError(
            f"{key} is needed: images are not fetched",
            seen="null",
            remedy=f"unpack {release.images} and name the folder",
        )
    root = Path(folder).expanduser()
    there = {entry.name for entry in os.scandir(root)} if root.is_dir() else set()
    wanted = list(dict.fromkeys(names))
    if lacking := [name for name in wanted if name not in there]:
        raise MissingArtefact(
            f"Images of {release.title}'s questions are missing",
            seen=f"{len(lacking):,} of {len(wanted):,} are not in {root}; the first: {lacking[0]}",
            remedy=f"name the folder of the image files in {key}; they come from {release.images}",
        )
    return {name: root / name for name in wanted}


def stamp(release: Release, names: Sequence[str], folder: str | None) -> dict[str, str]:
    """What tells a version of the files without reading them: the checksum that is asked for, else size and time."""
    stamps = {}
    for file in release.files:
        if file.name not in names:
            continue
        if file.sha256 is not None:
            stamps[file.name] = file.sha256
        elif folder is not None and (path := _present(file, Path(folder).expanduser())):
            status = path.stat()
            stamps[file.name] = f"{status.st_size} bytes, changed at {status.st_mtime_ns}"
    return stamps


def _present(file: File, folder: Path) -> Path | None:
    names = [name for own in (file.name, *file.other_names) for name in (own, Path(own).name)]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _in_folder(release: Release, file: File, folder: Path) -> Found:
    path = _present(file, folder)
    if path is None:
        raise MissingArtefact(
            f"A file of {release.title} is missing",
            seen=folder / file.name,
            remedy=f"get it from {release.home}"
            + (f", or set evaluate.files.{release.key}.path to null to have it fetched" if file.url else ""),
        )
    return _checked(release, file, path)


def _cached(release: Release, file: File) -> Path:
    return cache_folder() / release.key / file.name


def _in_cache(release: Release, file: File) -> Found | None:
    """What was fetched before; None if it was not, or has been damaged since."""
    path = _cached(release, file)
    if file.sha256 is None or not path.is_file() or file_digest(path) != file.sha256:
        return None
    return Found(path, file.sha256)


def _check_fetchable(release: Release, file: File, offline: bool) -> None:
    key = f"evaluate.files.{release.key}.path"
    if file.url is None:
        raise UserError(
            f"{key} is needed: {file.name} is not fetched",
            seen="null",
            remedy=f"get it from {release.home} and name its folder",
        )
    if offline:
        raise MissingArtefact(
            f"A file of {release.title} is not in the cache, and the network is switched off",
            seen=_cached(release, file),
            remedy=f"name the folder of the files in {key}, or run once with network and the same {CACHE_VARIABLE}",
        )


def _fetch(release: Release, file: File) -> Found:
    """Fetch into memory, check, and only then write: the cache never holds a wrong file."""
    assert file.url is not None
    pieces = []
    try:
        with urllib.request.urlopen(file.url, timeout=_SECONDS) as answer:
            while piece := answer.read(_PIECE):
                pieces.append(piece)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise StepFailed(
            f"A file of {release.title} cannot be fetched",
            seen=f"{file.url}: {getattr(error, 'reason', None) or error}",
            remedy="run the command again when the network is back, or fetch the file by other means and name its"
            f" folder in evaluate.files.{release.key}.path",
        ) from error
    data = b"".join(pieces)
    seen = bytes_digest(data)
    _compare(release, file, file.url, seen)
    target = _cached(release, file)
    with disk_errors(target):
        atomic_write(target, data)
    return Found(target, seen)


def _checked(release: Release, file: File, path: Path) -> Found:
    seen = file_digest(path)
    _compare(release, file, str(path), seen)
    return Found(path, seen)


def _compare(release: Release, file: File, where: str, seen: str) -> None:
    if file.sha256 is not None and seen != file.sha256:
        raise DataError(
            f"A file of {release.title} is not the published one: it is truncated, or of another version",
            seen=f"{where}: SHA-256 {seen}; published: {file.sha256}",
            remedy=f"fetch it again from {file.url or release.home}; figures of other files could not be compared with"
            " anybody's",
        )


def digests(found: Mapping[str, Found]) -> dict[str, str]:
    """Name -> SHA-256, for the provenance of figures."""
    return {name: file.sha256 for name, file in found.items()}
