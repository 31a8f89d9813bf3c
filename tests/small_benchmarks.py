"""Small copies of AMBER's, POPE's and COCO's files, in their authors' formats, with images of the files' names."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from opadpo.evaluation.files import RELEASES, File, Release
from opadpo.hashing import file_digest

AMBER_IMAGES = ("AMBER_1.jpg", "AMBER_2.jpg", "AMBER_3.jpg")
COCO_IMAGES = ("COCO_val2014_000000000007.jpg", "COCO_val2014_000000000042.jpg")


def make(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Write everything below `root` and take it for the published files; returns the recipe's `evaluate.files`."""
    _images(root / "amber_images", AMBER_IMAGES)
    _images(root / "coco_images", COCO_IMAGES)
    for key, files in {"amber": amber_files(), "pope": pope_files(), "chair": coco_files()}.items():
        for name, text in files.items():
            path = root / key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.setitem(RELEASES, key, published(RELEASES[key], root / key))
    return {
        "amber": {"path": str(root / "amber"), "images": str(root / "amber_images")},
        "pope": {"path": str(root / "pope"), "images": str(root / "coco_images")},
        "chair": {"path": str(root / "chair"), "images": str(root / "coco_images")},
    }


def published(release: Release, folder: Path, address: str | None = None) -> Release:
    """The release with the checksums of the files in `folder`, fetched from `address`."""
    files = tuple(
        File(
            file.name,
            file_digest(folder / file.name) if file.sha256 else None,
            f"{address}/{file.name}" if address else file.url,
            file.other_names,
        )
        for file in release.files
    )
    return release._replace(files=files)


def amber_files() -> dict[str, str]:
    """Three descriptions, and four questions of which two are asked twice in the same words."""
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog", "grass"], "hallu": ["cat"]},
        {"id": 2, "type": "generative", "truth": ["table", "cup", "cup"], "hallu": ["spoon"]},
        {"id": 3, "type": "generative", "truth": ["sky"], "hallu": ["bird"]},
        {"id": 4, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 5, "type": "discriminative-attribute-state", "truth": "yes"},
        {"id": 6, "type": "discriminative-attribute-number", "truth": "yes"},
        {"id": 7, "type": "discriminative-attribute-state", "truth": "yes"},
    ]
    words = ["dog", "grass", "cat", "table", "cup", "spoon", "sky", "bird"]
    generative = [
        {"id": n, "image": name, "query": "Describe this image."} for n, name in enumerate(AMBER_IMAGES, start=1)
    ]
    discriminative = [
        {"id": 4, "image": AMBER_IMAGES[0], "query": "Is there a cat in this image?"},
        {"id": 5, "image": AMBER_IMAGES[0], "query": "Is the dog standing in this image?"},
        {"id": 6, "image": AMBER_IMAGES[1], "query": "Are there two cups in this image?"},
        {"id": 7, "image": AMBER_IMAGES[0], "query": "Is the dog standing in this image?"},
    ]
    return {
        "annotations.json": json.dumps(annotations),
        "relation.json": json.dumps({word: ["puppy"] if word == "dog" else [] for word in words}),
        "safe_words.txt": "light\n",
        "query/query_generative.json": json.dumps(generative),
        "query/query_discriminative.json": json.dumps(discriminative),
    }


def pope_files() -> dict[str, str]:
    """Two questions per file; that about the dog is in all three."""
    others = {"random": "a kite", "popular": "a car", "adversarial": "a cat"}
    files = {}
    for category, other in others.items():
        rows = [
            {"question_id": 1, "image": COCO_IMAGES[0], "text": "Is there a dog in the image?", "label": "yes"},
            {"question_id": 2, "image": COCO_IMAGES[1], "text": f"Is there {other} in the image?", "label": "no"},
        ]
        files[f"coco_pope_{category}.json"] = "".join(json.dumps(row) + "\n" for row in rows)
    return files


def coco_files() -> dict[str, str]:
    """Two images with annotated things and one without; Object HalBench's questions about the two."""
    instances = {
        "images": [
            {"id": 7, "file_name": COCO_IMAGES[0]},
            {"id": 42, "file_name": COCO_IMAGES[1]},
            {"id": 99, "file_name": "COCO_val2014_000000000099.jpg"},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "pizza"}],
        "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 42, "category_id": 2}],
    }
    captions = {"annotations": [{"image_id": 7, "caption": "A puppy with a frisbee."}]}
    questions = [
        {"image_id": 42, "question": "What do you see?", "image": "..."},
        {"image_id": "7", "question": "Describe it."},
    ]
    return {
        "instances_val2014.json": json.dumps(instances),
        "captions_val2014.json": json.dumps(captions),
        "obj_halbench_300_with_image.jsonl": "".join(json.dumps(row) + "\n" for row in questions),
    }


def _images(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (60 * number, 90, 200 - 40 * number)).save(folder / name)
