"""Readers of input data, by `prepare.source.kind`."""

from pathlib import Path

from opadpo.errors import DataError
from opadpo.hashing import digest, file_digest
from opadpo.progress import Progress
from opadpo.recipe import Recipe
from opadpo.recipe.sections import SourceSection
from opadpo.steps.sources.base import RawRow, Source, not_there

RLAIFV_HUB_ID = "openbmb/RLAIF-V-Dataset"
"""The data set of the paper."""

_HASHED_BELOW = 64 * 2**20

__all__ = ["RLAIFV_HUB_ID", "RawRow", "Source", "open_source", "source_digest"]


def open_source(recipe: Recipe, progress: Progress, *, offline: bool = False) -> Source:
    """The reader of the recipe's data source, its columns checked.

    Raises:
        DataError: if it does not exist, has no rows or images, or lacks columns; offline, also for a hub data set
            that is not in the local cache.
    """
    source, prepare = recipe.prepare.source, recipe.prepare
    if source.kind == "toy":
        from opadpo.steps.sources.toy import ToySource

        return ToySource(recipe.seed, prepare.subsets * prepare.subset_size, prepare.heldout_size)
    if source.kind == "folder":
        from opadpo.steps.sources.folder import FolderSource

        return FolderSource(source.path or "", source.question or "")
    return _open_table(source, progress, offline=offline)


def source_digest(source: SourceSection) -> str | None:
    """What is known, without reading much, about the content of local input: a changed digest makes prompts stale.

    A single file below 64 MB is hashed; of a larger one, a folder or a pattern the names, sizes and times of change
    count. None for what is not on this machine, for hub data sets and for the toy world.
    """
    path = Path(source.path or "").expanduser()
    if not source.path or source.kind == "toy":
        return None
    if path.is_file() and path.stat().st_size < _HASHED_BELOW:
        return file_digest(path)
    if source.kind == "folder" and path.is_dir():
        from opadpo.steps.sources.folder import image_files

        files = [path / relative for relative in image_files(path)]
    else:
        from opadpo.steps.sources.table import local_files

        try:
            files = local_files(source.path) or []
        except DataError:
            return None
    stamps = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    return digest(stamps) if stamps else None


def _open_table(source: SourceSection, progress: Progress, *, offline: bool) -> Source:
    from opadpo.steps.sources.hub import fetch_tables, hub_path
    from opadpo.steps.sources.table import RLAIFV_COLUMNS, TableSource, local_files

    path = source.path or RLAIFV_HUB_ID
    mapping = RLAIFV_COLUMNS if source.kind == "rlaifv" else source.columns
    files, name = local_files(path), path
    if files is None:
        where = hub_path(path)
        if where is None:
            raise not_there(path)
        files, commit = fetch_tables(where, source.revision, source.hub_split, progress, offline=offline)
        name = f"{path}@{commit}"
    return TableSource(name, files, mapping)
