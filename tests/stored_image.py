"""Images where `prepare` puts them."""

from pathlib import Path

from opadpo.hashing import bytes_digest


def store_image(folder: Path, data: bytes) -> dict[str, str]:
    """Write a PNG below the folder of the prompts; the fields of a prompt that say where it is."""
    digest = bytes_digest(data)
    name = f"images/{digest[:2]}/{digest}.png"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return {"image_id": digest, "image_file": name}
