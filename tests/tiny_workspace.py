"""A workspace with prompts of the toy world and a random LLaVA as its base, made in no time."""

import json
from pathlib import Path
from typing import Any

from stored_image import store_image

from opadpo.models.base import fetch_base, write_pin
from opadpo.progress import SilentProgress
from opadpo.records import Prompt
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.toy.dataset import rows
from opadpo.workspace import Workspace

QUESTIONS = ["Describe the image.", "What is in the picture?", "A dog?"]


def recipe_text(model_folder: Path, **sections: Any) -> str:
    """A recipe with short responses, as JSON (which is YAML)."""
    recipe: dict[str, Any] = {
        "model": {"base": str(model_folder), "device": "cpu"},
        "prompt": {"template": "toy"},
        "rollout": {"max_new_tokens": 12, "batch_size": 4, "shard_rows": 5},
        "caption": {"max_new_tokens": 12, "batch_size": 4},
    }
    for name, values in sections.items():
        recipe[name] = {**recipe.get(name, {}), **values} if isinstance(values, dict) else values
    return json.dumps(recipe)


def make(root: Path, model_folder: Path, *, train: int = 16, heldout: int = 6, **sections: Any) -> Workspace:
    """A workspace as `prepare` leaves it; half of the training prompts are in each of two subsets."""
    workspace = Workspace.create(root, recipe_text(model_folder, **sections))
    prompts = []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for index, row in enumerate(rows(0, train, heldout)):
            image = store_image(writer.folder, row["image"])
            prompts.append(
                Prompt.create(
                    **image,
                    question=QUESTIONS[index % len(QUESTIONS)],
                    reference=row["reference"],
                    source="toy",
                    split=row["split"],
                    subset="heldout" if row["split"] == "heldout" else f"train-{index % 2}",
                    extra=row["extra"],
                )
            )
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"train": train, "heldout": heldout})
    write_pin(workspace, fetch_base(workspace.recipe.model, SilentProgress()))
    return workspace


def change_recipe(workspace: Workspace, model_folder: Path, **sections: Any) -> Workspace:
    """The same workspace with another recipe in its file."""
    (workspace.root / "recipe.yaml").write_text(recipe_text(model_folder, **sections))
    return Workspace.open(workspace.root)
