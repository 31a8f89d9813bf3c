"""A workspace in which every artefact is done, made in no time: real manifests and reviews, placeholder contents."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from opadpo.manifest import Plan
from opadpo.models.base import BasePin, write_pin
from opadpo.recipe import preset_text
from opadpo.records import Revision, SentenceReview
from opadpo.review.store import ReviewStore, reviews_head
from opadpo.steps import plans
from opadpo.workspace import RECIPE_FILE, Workspace


def make(root: Path, overrides: Sequence[str] = ()) -> Workspace:
    """Make a workspace with everything done for the models base, opa, opadpo and dpo."""
    model = root.parent / "model"
    model.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.create(root, preset_text("toy"), [f"model.base={model}", *overrides])
    write_pin(workspace, BasePin(base=str(model), revision="1", path=str(model), digest="1", family="llava"))
    fill(workspace, plans.prompts(workspace), {"train": 500, "heldout": 300})
    fill(workspace, plans.rollouts(workspace), {"rows": 500})
    review(workspace, "r-1")
    with workspace.lock("expert"):
        (workspace.root / "expert").mkdir(exist_ok=True)
        workspace.mark_done(plans.expert(workspace), {"done": 500}, started_at=datetime.now(UTC))
    head = reviews_head(workspace)
    fill(workspace, plans.dataset(workspace, "opa", head), {"rows": 490})
    fill(workspace, plans.dataset(workspace, "opadpo", head), {"rows": 480})
    for name in ("opa", "opadpo", "dpo"):
        fill(workspace, plans.adapter(workspace, name, plans.VARIANTS[name]), {"updates": 64})
    for name in (plans.BASE, "opa", "opadpo", "dpo"):
        fill(workspace, plans.captions(workspace, name, "heldout"), {"rows": 300})
        fill(workspace, plans.evaluation(workspace, name, "toy", "heldout"), {"items": 300})
    return workspace


def fill(workspace: Workspace, plan: Plan, counts: dict[str, int]) -> None:
    """Write one artefact with placeholder contents."""
    with workspace.writing(plan) as writer:
        name = Path(plan.artefact).name if "." in plan.artefact else "contents.txt"
        (writer.folder / name).write_text(plan.key)
        writer.finish(counts)


def review(workspace: Workspace, rollout_id: str, author_kind: str = "expert", parent: str | None = None) -> str:
    """Append a revision that keeps the one sentence of a response; returns its id."""
    sentence = SentenceReview(index=0, kind="kept", start=0, end=4, original="A b.", revised="A b.", score=4)
    revision = Revision.create(
        rollout_id=rollout_id,
        parent_revision_id=parent,
        author_kind=author_kind,
        author="someone",
        sentences=[sentence],
        text="A b.",
    )
    with ReviewStore.of(workspace) as store:
        store.append([revision])
    return revision.revision_id


def change(workspace: Workspace, **values: object) -> Workspace:
    """Write other values into the recipe file (keys with `__` for dots) and open the workspace again."""
    path = workspace.root / RECIPE_FILE
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        *sections, last = key.split("__")
        node = data
        for section in sections:
            node = node[section]
        node[last] = value
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return Workspace.open(workspace.root)
