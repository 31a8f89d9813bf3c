"""A folder of images and one question."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from opadpo.errors import DataError
from opadpo.steps.sources.base import RawRow, not_there, read_image_file

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Files with these endings (in any case) are taken for images."""


class FolderSource:
    """Every image below a folder, in the order of the paths. The stratum is the first folder on the way to it."""

    has_references = False

    def __init__(self, path: str, question: str) -> None:
        """List the images; hidden files and folders are left alone.

        Raises:
            DataError: if the folder is not there or has no images.
        """
        self.folder = Path(path).expanduser()
        self.question = question
        if not self.folder.exists():
            raise not_there(path)
        if not self.folder.is_dir():
            raise DataError(
                "prepare.source.kind is folder, but the path is a file",
                seen=self.folder,
                remedy="name a folder, or set prepare.source.kind to table",
            )
        self.name = str(self.folder)
        self.files = list(image_files(self.folder))
        self.total: int | None = len(self.files)
        if not self.files:
            raise DataError(
                "The folder has no images",
                seen=f"{self.folder.absolute()}: no file ends with {' '.join(sorted(SUFFIXES))}",
                remedy="put images there, or correct prepare.source.path",
            )

    def rows(self, wanted: Collection[int] | None = None) -> Iterator[RawRow]:
        """One row per image."""
        for position in range(len(self.files)) if wanted is None else sorted(wanted):
            relative = self.files[position]
            data, problem = read_image_file(self.folder / relative)
            parts = relative.parts
            yield RawRow(
                position=position,
                where=str(relative),
                image=data,
                question=self.question,
                source=parts[0] if len(parts) > 1 else self.folder.resolve().name or "folder",
                extra={"image_path": relative.as_posix()},
                problem=problem,
            )


def image_files(folder: Path) -> Iterator[Path]:
    """Paths of the images below a folder, relative to it, sorted."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (Path(base) / name).relative_to(folder)
