"""What a workspace has: missing, partly made, done or stale, why, and which command comes next."""

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opadpo.errors import OpadpoError, RecipeError, WorkspaceError
from opadpo.manifest import Begun, Manifest, Plan
from opadpo.recipe import load_recipe
from opadpo.review.agreement import Agreement, agreement
from opadpo.review.trust import Trust, checked_pairs, trust
from opadpo.steps import plans
from opadpo.steps.benchmarks import BENCHMARKS, SETS, artefact_of_set
from opadpo.steps.unfinished import AT_BATCH_SERVICE, unfinished_adapters, written
from opadpo.workspace import RECIPE_FILE, State, Workspace

MAIN_ADAPTERS = ("opa", "opadpo")
"""Adapters that the method asks for; others are listed once they exist."""

DEFAULT_SET = "heldout"
REVIEWS = "reviews.db"
PIN = "base.json"


class ArtefactStatus(BaseModel):
    """One artefact of a workspace."""

    model_config = ConfigDict(frozen=True)

    artefact: str
    """Path relative to the workspace."""
    state: State
    """missing, partial (a run was stopped, or runs now), done, or stale (made from what has changed since)."""
    reasons: list[str] = Field(default_factory=list)
    """Why it is stale: one line per changed setting or input; or how its manifest is damaged."""
    counts: dict[str, int] = Field(default_factory=dict)
    """What is in it; of a partial one, what an unfinished run has written."""
    finished_at: datetime | None = None
    """When it was made (UTC)."""
    overrides: list[str] = Field(default_factory=list)
    """`--set` overrides that it was made with; it is compared with the recipe and these."""
    writer: str | None = None
    """The process that writes it now."""
    command: str | None = None
    """The command that makes it (again); None for reviews, which people make."""


class WorkspaceStatus(BaseModel):
    """Everything that a workspace has or should have, in the order of the method."""

    model_config = ConfigDict(frozen=True)

    workspace: str
    """Its folder."""
    recipe: str
    """The recipe's name."""
    artefacts: list[ArtefactStatus]
    """In the order in which they are made."""
    next: str | None
    """The command to run next; None if nothing is missing or stale."""
    trust: Trust | None = None
    """How people judged the expert's verdicts; None if nobody has checked any."""
    agreement: Agreement | None = None
    """How far people agree who reviewed the same records on their own; None if there are no such records."""

    def __getitem__(self, artefact: str) -> ArtefactStatus:
        """The status of an artefact by its path.

        Raises:
            KeyError: if it neither exists nor is asked for by the method.
        """
        for status in self.artefacts:
            if status.artefact == artefact:
                return status
        raise KeyError(artefact)


def status(workspace: Workspace) -> WorkspaceStatus:
    """Compare everything in a workspace with its recipe. Reads only, whoever writes meanwhile.

    Damage stops nothing: an artefact with a damaged manifest counts as missing, damaged reviews as stale.
    """
    workspace = _Lenient(workspace)
    survey = _Survey(workspace)
    found = [survey.look_at(artefact) for artefact in artefacts(workspace)]
    return WorkspaceStatus(
        workspace=str(workspace.root),
        recipe=workspace.recipe.name,
        artefacts=found,
        next=_next(found),
        trust=survey.trust,
        agreement=survey.agreement,
    )


def artefacts(workspace: Workspace) -> list[str]:
    """Paths of all artefacts that exist or that the method asks for, in the order in which they are made."""
    adapters = [*MAIN_ADAPTERS, *_names(workspace.root / "adapters"), *unfinished_adapters(workspace)]
    adapters = sorted(dict.fromkeys(adapters), key=lambda name: (name not in MAIN_ADAPTERS, name))
    models = [plans.BASE, *adapters]
    wanted = [BENCHMARKS[name] for name in workspace.recipe.evaluate.benchmarks]
    if not _has_heldout(workspace):
        wanted = [benchmark for benchmark in wanted if benchmark.prompt_set != DEFAULT_SET]
    own = [DEFAULT_SET] if _has_heldout(workspace) else []
    prompt_sets = dict.fromkeys([*own, *(benchmark.prompt_set for benchmark in wanted)])
    there = [name for name in _names(workspace.root / "benchmarks") if name in SETS]
    captions = [f"captions/{model}/{name}.parquet" for name in prompt_sets for model in models]
    captions += _files(workspace.root / "captions", "*/*.parquet")
    evaluations = [f"evaluations/{model}/{benchmark.name}.json" for model in models for benchmark in wanted]
    evaluations += _files(workspace.root / "evaluations", "*/*.json")
    return [
        "prompts",
        PIN,
        "rollouts",
        "expert",
        REVIEWS,
        "datasets/opa",
        "datasets/opadpo",
        *[f"adapters/{name}" for name in adapters],
        *dict.fromkeys(artefact_of_set(name) for name in [*prompt_sets, *there] if name in SETS),
        *dict.fromkeys(captions),
        *dict.fromkeys(evaluations),
    ]


def plan_for(workspace: Workspace, artefact: str, manifest: Begun | None, *, reviews_head: str | None) -> Plan | None:
    """The plan of an artefact by its path; `manifest`, or what a run has begun, tells how it was asked for.

    `reviews_head` identifies the state of the reviews; None where they cannot be read: then they count as unchanged.
    None for what has no plan (`base.json`, `reviews.db`).
    """
    settings: dict[str, Any] = manifest.settings if manifest else {}
    kind, _, rest = artefact.partition("/")
    if kind == "prompts":
        return plans.prompts(workspace)
    if kind == "rollouts":
        return plans.rollouts(workspace)
    if kind == "expert":
        return plans.expert(workspace)
    if kind == "datasets":
        if reviews_head is None:
            reviews_head = manifest.inputs.get(REVIEWS, "") if manifest else ""
        return plans.dataset(workspace, "opa" if rest == "opa" else "opadpo", reviews_head)
    if kind == "adapters":
        stage = settings.get("stage") or ("opa" if rest == "opa" else "opadpo")
        name, what = plans.variant(stage, rest, settings.get("from"))
        return plans.adapter(workspace, name, what)
    if kind == "benchmarks":
        return plans.benchmark_set(workspace, rest)
    model, _, file = rest.partition("/")
    if kind == "captions":
        return plans.captions(workspace, model, Path(file).stem)
    if kind == "evaluations":
        return plans.evaluation(workspace, model, Path(file).stem, settings.get("set") or DEFAULT_SET)
    return None


class _Lenient(Workspace):
    """A workspace in which an artefact with a damaged manifest is missing, and which remembers why."""

    def __init__(self, workspace: Workspace, damage: dict[str, str] | None = None) -> None:
        super().__init__(workspace.root, workspace.recipe, workspace.overrides)
        self.damage: dict[str, str] = {} if damage is None else damage

    def manifest(self, artefact: str) -> Manifest | None:
        try:
            return super().manifest(artefact)
        except WorkspaceError as error:
            self.damage[artefact] = f"{error.what}: {error.seen}; {error.remedy}"
            return None


class _Survey:
    """Looks at artefacts in order; what comes later knows the states of what came before."""

    def __init__(self, workspace: _Lenient) -> None:
        self.workspace = workspace
        self.states: dict[str, State] = {}
        self.reviews_head: str | None = None
        self.trust: Trust | None = None
        self.agreement: Agreement | None = None
        self._opened: dict[tuple[str, ...], Workspace] = {(): workspace}

    def look_at(self, artefact: str) -> ArtefactStatus:
        if artefact == PIN:
            found = self._pin()
        elif artefact == REVIEWS:
            found = self._reviews()
        else:
            found = self._planned(artefact)
        self.states[artefact] = found.state
        return found

    def _planned(self, artefact: str) -> ArtefactStatus:
        manifest = self.workspace.manifest(artefact)
        begun = manifest or self.workspace.begun(artefact)
        overrides = begun.overrides if begun else []
        owner = self.workspace.writer(artefact)
        writer = f"process {owner['pid']} on {owner['host']}" if owner else None
        try:
            workspace = self._with(overrides)
        except RecipeError as error:
            reasons = [f"its --set {' '.join(overrides)} no longer fits the recipe: {error.problems[0]}"]
            state: State = "stale" if manifest else "partial"
            return ArtefactStatus(artefact=artefact, state=state, reasons=reasons, overrides=overrides, writer=writer)
        plan = plan_for(workspace, artefact, begun, reviews_head=self.reviews_head)
        assert plan is not None
        command = _command(workspace.root, artefact, plan, overrides)
        if manifest is None:
            counts = written(workspace, plan)
            state = "missing" if counts is None and writer is None else "partial"
            if counts and AT_BATCH_SERVICE in counts:
                command += " --batch"
            why = [self.workspace.damage[artefact]] if artefact in self.workspace.damage else []
            return ArtefactStatus(
                artefact=artefact,
                state=state,
                reasons=why,
                counts=counts or {},
                overrides=overrides,
                writer=writer,
                command=command,
            )
        reasons = self._reasons(plan, manifest)
        return ArtefactStatus(
            artefact=artefact,
            state="stale" if reasons else "done",
            reasons=reasons,
            counts=manifest.counts,
            finished_at=manifest.finished_at,
            overrides=overrides,
            writer=writer,
            command=command,
        )

    def _reasons(self, plan: Plan, manifest: Manifest) -> list[str]:
        """Why the artefact is stale: what has changed, what is gone, and what is itself stale."""
        gone = [path for path in plan.inputs if self.states.get(path) in ("missing", "partial")]
        reasons = [f"{path} is not there any more" for path in gone]
        reasons += [line for line in plan.differences(manifest) if line.partition(" ")[0] not in gone]
        stale = [path for path in plan.inputs if self.states.get(path) == "stale"]
        return reasons + [f"made from {path}, which is stale" for path in stale]

    def _pin(self) -> ArtefactStatus:
        from opadpo.errors import MissingArtefact, ModelError
        from opadpo.models.base import read_pin

        command = f"opadpo prepare {shlex.quote(str(self.workspace.root))}"
        path = self.workspace.root / PIN
        if not path.is_file():
            return ArtefactStatus(artefact=PIN, state="missing", command=command)
        finished = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        try:
            read_pin(self.workspace)
        except (MissingArtefact, ModelError) as error:
            reason = error.what if error.seen is None else f"{error.what}: {error.seen}"
            return ArtefactStatus(artefact=PIN, state="stale", reasons=[reason], finished_at=finished, command=command)
        return ArtefactStatus(artefact=PIN, state="done", finished_at=finished, command=command)

    def _reviews(self) -> ArtefactStatus:
        from opadpo.review.store import NO_REVIEWS, ReviewStore, has_store
        from opadpo.review.verdicts import review_counts

        counts: dict[str, int] = {}
        self.reviews_head = NO_REVIEWS
        try:
            if has_store(self.workspace):
                with ReviewStore.of(self.workspace) as store:
                    counts, self.reviews_head = store.counts(), store.head()
                    if counts.get("by_human"):
                        counts |= review_counts(store, self.workspace.recipe.build.adjudicators)
                        checked = trust(checked_pairs(store))
                        self.trust = checked if checked.responses else None
                        self.agreement = agreement(store)
        except OpadpoError as error:
            self.reviews_head = None
            reasons = [f"{error.what}: {error.seen}; {error.remedy}"]
            return ArtefactStatus(artefact=REVIEWS, state="stale", reasons=reasons)
        if not counts.get("revisions"):
            return ArtefactStatus(artefact=REVIEWS, state="missing")
        path = self.workspace.reviews_db
        # Imported or human revisions stand without the expert; the expert's own are as stale as its requests.
        stale = self.states.get("expert") == "stale"
        return ArtefactStatus(
            artefact=REVIEWS,
            state="stale" if stale else "done",
            reasons=["made from expert, which is stale"] if stale else [],
            counts=counts,
            finished_at=datetime.fromtimestamp(path.stat().st_mtime).astimezone() if path.exists() else None,
        )

    def _with(self, overrides: Sequence[str]) -> Workspace:
        """The workspace as the command that made an artefact saw it."""
        key = tuple(overrides)
        if key not in self._opened:
            recipe = load_recipe(self.workspace.root / RECIPE_FILE, list(overrides))
            opened = Workspace(self.workspace.root, recipe, list(overrides))
            self._opened[key] = _Lenient(opened, self.workspace.damage)
        return self._opened[key]


def _command(root: Path, artefact: str, plan: Plan, overrides: Sequence[str]) -> str:
    """The command line that makes an artefact."""
    words = ["opadpo", *plan.step.split(), str(root)]
    kind, _, rest = artefact.partition("/")
    if kind == "adapters":
        stage, start = plan.settings["stage"], plan.settings["from"]
        if rest != stage:
            words += ["--name", rest]
        if plans.variant(stage, rest, None)[1].start != start:
            words += ["--from", start]
    elif kind in ("captions", "evaluations"):
        model, _, file = rest.partition("/")
        name = Path(file).stem
        words += ["--model", model]
        if kind == "evaluations":
            words += ["--benchmark", name]
        elif name != DEFAULT_SET:
            words += ["--set", name]
    elif kind == "benchmarks":
        words += ["--model", plans.BASE, "--set", rest]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)


def _next(found: Sequence[ArtefactStatus]) -> str | None:
    """The command for the first artefact that is not done and that a command can make."""
    states = {status.artefact: status.state for status in found}
    for status in found:
        if status.state == "done" or status.command is None:
            continue
        # Revisions that were imported or made by people need no expert.
        if status.artefact == "expert" and status.state == "missing" and states[REVIEWS] == "done":
            continue
        return status.command
    return None


def _has_heldout(workspace: Workspace) -> bool:
    manifest = workspace.manifest("prompts")
    return (manifest.counts.get(DEFAULT_SET, 1) if manifest else workspace.recipe.prepare.heldout_size) > 0


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []


def _files(folder: Path, pattern: str) -> list[str]:
    return sorted(f"{folder.name}/{path.relative_to(folder)}" for path in folder.glob(pattern) if path.name[0] != ".")
