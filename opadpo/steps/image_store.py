"""Images in files named by their content: each stored once, however many rows show it."""

import hashlib
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from opadpo.hashing import bytes_digest
from opadpo.images import ImageProblem, load_image

FOLDER = "images"
"""Below `prompts/`."""


class StoredImage(NamedTuple):
    """An image file of the store."""

    image_id: str
    """SHA-256 of the stored file, 64 hex digits."""
    file: str
    """Path relative to `prompts/`: images/<first two digits>/<image_id>.<extension>."""
    changed: str | None
    """Why the stored bytes are not the original ones; None if they are."""


class ImageStore:
    """The image files below a folder. Knows originals by their hash; may be used by many threads."""

    def __init__(self, root: Path, max_pixels: int) -> None:
        """Use `root/images`. What a killed run has left there is kept if its content is what its name says."""
        self.root = root
        self.max_pixels = max_pixels
        self.stored: dict[bytes, StoredImage] = {}
        self.problems: dict[bytes, str] = {}
        for path in sorted((root / FOLDER).glob("*/*.*")):
            image_id = path.stem
            if bytes_digest(path.read_bytes()) == image_id:
                file = path.relative_to(root).as_posix()
                self.stored[bytes.fromhex(image_id)] = StoredImage(image_id, file, None)
            else:
                path.unlink()

    def add(self, original: bytes, data: bytes) -> None:
        """Check an image and store it; afterwards `original` (its SHA-256) is in `stored` or in `problems`."""
        if original in self.stored or original in self.problems:
            return
        try:
            image = load_image(data, self.max_pixels)
        except ImageProblem as problem:
            self.problems[original] = problem.reason
            return
        digest = original if image.changed is None else hashlib.sha256(image.data).digest()
        file = f"{FOLDER}/{digest.hex()[:2]}/{digest.hex()}.{image.extension}"
        path = self.root / file
        if not path.exists():
            # Complete or not there: the name appears when all bytes are in. The workspace syncs to disk at the end.
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{threading.get_ident()}")
            temporary.write_bytes(image.data)
            os.replace(temporary, path)
        self.stored[original] = StoredImage(digest.hex(), file, image.changed)

    def remove_all_but(self, files: Collection[str]) -> None:
        """Delete every file that is not in `files` (paths relative to the root)."""
        kept = {self.root / file for file in files}
        for path in (self.root / FOLDER).rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
