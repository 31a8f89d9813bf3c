"""What a workspace has to tell: counts, models, figures, costs and where all of it comes from. Reads only."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from opadpo.errors import OpadpoError
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import Evaluation, read_evaluation
from opadpo.manifest import Manifest
from opadpo.plots import RESPONSES
from opadpo.records import Usage
from opadpo.steps.benchmarks import BENCHMARKS
from opadpo.steps.evaluate import scores_of
from opadpo.steps.result import Score
from opadpo.steps.status import PIN, REVIEWS, WorkspaceStatus, status
from opadpo.workspace import Workspace


class Drop(NamedTuple):
    """Rows that a step left out."""

    artefact: str
    """Where."""
    reason: str
    """Why."""
    rows: int
    """How many."""


class Trained(NamedTuple):
    """A trained model."""

    name: str
    """In the workspace."""
    stage: str
    """`opa` or `opadpo`."""
    start: str
    """The model that it continued; for `opadpo` the reference as well."""
    manifest: Manifest
    """How it was made."""
    curve: list[dict[str, Any]]
    """Lines of its `metrics.jsonl`."""

    @property
    def section(self) -> Mapping[str, Any]:
        """Its settings of training."""
        return self.manifest.settings.get(f"train.{self.stage}", {})

    @property
    def minutes(self) -> float:
        """From start to end, pauses after a kill not counted."""
        return (self.manifest.finished_at - self.manifest.started_at).total_seconds() / 60


class Table(NamedTuple):
    """A benchmark's figures of all models that were scored on it."""

    benchmark: Benchmark
    """What is scored."""
    scores: list[Score]
    """Metric after metric, the base first."""
    evaluations: dict[str, Evaluation]
    """Model -> its figures and items."""


@dataclass(frozen=True)
class Facts:
    """Everything that the report says."""

    workspace: Workspace
    """Where it comes from."""
    status: WorkspaceStatus
    """What is there, and whether it is still true."""
    manifests: dict[str, Manifest]
    """Artefact -> how it was made; those that are there."""
    drops: list[Drop]
    """What was left out, and why."""
    trained: list[Trained]
    """The models, in the order of the method."""
    tables: list[Table]
    """Benchmarks with figures."""
    on_policy: dict[str, dict[str, float]]
    """Model -> response -> mean log-prob per token; empty where it was not measured."""
    spent: Usage | None
    """What the expert's requests cost in all; None where none was asked."""
    pin: dict[str, Any]
    """The base model: id, revision, digest; empty where none is pinned."""
    trouble: list[str]
    """What could not be read."""

    def counts(self, artefact: str) -> dict[str, int]:
        """What is in an artefact; empty where it is not there."""
        manifest = self.manifests.get(artefact)
        return dict(manifest.counts) if manifest else {}


def gather(workspace: Workspace) -> Facts:
    """Collect the facts of a workspace. What is damaged is named in `trouble` and left out."""
    trouble: list[str] = []
    found = status(workspace)
    manifests = {}
    for each in found.artefacts:
        if each.artefact in (PIN, REVIEWS):
            continue
        try:
            manifest = workspace.manifest(each.artefact)
        except OpadpoError as error:
            trouble.append(f"{each.artefact}: {error.what}")
            continue
        if manifest is not None:
            manifests[each.artefact] = manifest
    trained = [
        _trained(workspace, path, manifest) for path, manifest in manifests.items() if path.startswith("adapters/")
    ]
    return Facts(
        workspace=workspace,
        status=found,
        manifests=manifests,
        drops=_drops(workspace, manifests),
        trained=trained,
        tables=_tables(workspace, manifests, trouble),
        on_policy=measured_on_policy(workspace, [model.name for model in trained]),
        spent=_spent(workspace),
        pin=_read(workspace.root / PIN),
        trouble=trouble,
    )


def _drops(workspace: Workspace, manifests: Mapping[str, Manifest]) -> list[Drop]:
    from opadpo.llm.store import RequestStore

    found = [
        Drop(artefact, name.removeprefix("dropped/").replace("_", " "), rows)
        for artefact, manifest in manifests.items()
        for name, rows in manifest.counts.items()
        if name.startswith("dropped/") and rows
    ]
    if workspace.requests_db.exists():
        with RequestStore.open(workspace.requests_db) as store:
            failed = Counter(row.kind for row in store.failed_rows())
        found += [Drop("expert", f"no revision: {kind}", rows) for kind, rows in failed.most_common()]
    return found


def _trained(workspace: Workspace, artefact: str, manifest: Manifest) -> Trained:
    name = artefact.partition("/")[2]
    settings = manifest.settings
    return Trained(name, settings["stage"], settings["from"], manifest, curve(workspace.run(name) / "metrics.jsonl"))


def curve(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; one that a kill cut off is left out."""
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _tables(workspace: Workspace, manifests: Mapping[str, Manifest], trouble: list[str]) -> list[Table]:
    tables = []
    for name, benchmark in BENCHMARKS.items():
        models = [path.split("/")[1] for path in manifests if path.endswith(f"/{name}.json")]
        scores, evaluations = [], {}
        for model in models:
            try:
                evaluations[model] = read_evaluation(workspace.evaluation(model, name))
                scores += scores_of(workspace, model, benchmark)
            except OpadpoError as error:
                trouble.append(f"evaluations/{model}/{name}.json: {error.what}")
        if scores:
            order = {metric: place for place, metric in enumerate(dict.fromkeys(score.metric for score in scores))}
            tables.append(Table(benchmark, sorted(scores, key=lambda score: order[score.metric]), evaluations))
    return tables


def measured_on_policy(workspace: Workspace, models: Sequence[str]) -> dict[str, dict[str, float]]:
    """From the run of the method, else from the first that measured it."""
    for name in sorted(models, key=lambda name: name != "opadpo"):
        under = _read(workspace.run(name) / "onpolicy.json").get("under", {})
        if len(under) > 1 and all(rows.keys() >= set(RESPONSES) for rows in under.values()):
            return {model: {kind: values["mean"] for kind, values in rows.items()} for model, rows in under.items()}
    return {}


def _spent(workspace: Workspace) -> Usage | None:
    from opadpo.llm.store import RequestStore

    if not workspace.requests_db.exists():
        return None
    with RequestStore.open(workspace.requests_db) as store:
        return store.spent()


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def best_model(facts: Facts) -> str | None:
    """Whom a report is about where nobody is named: `opadpo`, else the model trained last; None if there is none."""
    names = [model.name for model in facts.trained]
    return "opadpo" if "opadpo" in names else (names[-1] if names else None)
