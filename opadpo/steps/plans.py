"""What every artefact is made from: the dependency graph of a workspace.

Each function returns the `Plan` of one artefact as it would be made now: the settings that can change it and the
fingerprints of what it is made from.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from opadpo.evaluation.files import RELEASES, stamp
from opadpo.manifest import Plan
from opadpo.models.base import pinned_digest
from opadpo.recipe import Recipe, outcome
from opadpo.recipe.training import OpadpoSection
from opadpo.steps.benchmarks import BENCHMARKS, SETS, artefact_of_set
from opadpo.steps.sources import source_digest
from opadpo.workspace import Workspace

Stage = Literal["opa", "opadpo"]

BASE = "base"
"""Name of the model without an adapter."""


def prompts(workspace: Workspace) -> Plan:
    """Prompts and images."""
    recipe = workspace.recipe
    settings: dict[str, Any] = {"seed": recipe.seed, "prepare": outcome(recipe.prepare)}
    found = source_digest(recipe.prepare.source) or _source_digest_then(workspace, settings["prepare"]["source"])
    if found:
        settings["source_digest"] = found
    return Plan(artefact="prompts", step="prepare", settings=settings, inputs={})


def _source_digest_then(workspace: Workspace, source: dict[str, Any]) -> str | None:
    """What the data source was when prompts were made from it: they stay good where it is not at hand any more."""
    manifest = workspace.manifest("prompts")
    if manifest is None or manifest.settings.get("prepare", {}).get("source") != source:
        return None
    return manifest.settings.get("source_digest")


def rollouts(workspace: Workspace) -> Plan:
    """The model's own responses."""
    recipe = workspace.recipe
    section = outcome(recipe.rollout)
    if recipe.rollout.engine == "local":
        # What a server would be asked cannot change what this process samples.
        del section["engine"], section["server"]
    settings = {**_model_settings(workspace), "seed": recipe.seed, "rollout": section}
    return Plan(artefact="rollouts", step="rollout", settings=settings, inputs=_inputs(workspace, "prompts"))


def expert(workspace: Workspace) -> Plan:
    """The expert's requests and revisions."""
    settings = {"revise": outcome(workspace.recipe.revise)}
    return Plan(artefact="expert", step="revise", settings=settings, inputs=_inputs(workspace, "rollouts"))


def dataset(workspace: Workspace, stage: Stage, reviews_head: str) -> Plan:
    """A training set; `reviews_head` identifies the newest state of the revisions."""
    settings = {
        "build": outcome(workspace.recipe.build),
        "needs_reference": needs_reference(workspace.recipe, stage),
    }
    inputs = {**_inputs(workspace, "prompts", "rollouts"), "reviews.db": reviews_head}
    return Plan(artefact=f"datasets/{stage}", step="build", settings=settings, inputs=inputs)


def needs_reference(recipe: Recipe, stage: Stage) -> bool:
    """Whether rows without a reference answer are of no use to a stage."""
    if stage == "opa":
        return "standard" in recipe.train.opa.responses
    return recipe.train.opadpo.loss.standard_pair_coef > 0


class Variant(NamedTuple):
    """What the name of a model means."""

    stage: Stage
    """Which trainer."""
    start: str
    """The model that training starts from and, for `opadpo`, the reference: `base` or an adapter."""
    plain: bool = False
    """Only the revised over the generated response."""


VARIANTS = {
    "opa": Variant("opa", BASE),
    "opadpo": Variant("opadpo", "opa"),
    "dpo": Variant("opadpo", BASE),
    "dpo-plain": Variant("opadpo", BASE, plain=True),
}
"""The names that the method defines; any other name is an `opadpo` run from `opa`, or an `opa` run from the base."""


def place_of(model: str) -> tuple[int, str]:
    """Sorts models: the base, those of the method in its order, all others by name."""
    known = [BASE, *VARIANTS]
    return (known.index(model) if model in known else len(known), model)


def variant(stage: Stage, name: str | None, start: str | None) -> tuple[str, Variant]:
    """(model name, variant) for the arguments of `opadpo train`; explicit arguments win over a name's meaning."""
    name = name or stage
    known = VARIANTS.get(name)
    default = known if known and known.stage == stage else VARIANTS[stage]
    return name, default._replace(start=start or default.start)


def training_command(workspace: Workspace, name: str) -> str:
    """What to do where the adapter of a model is needed and is not there."""
    known = VARIANTS.get(name)
    stage = known.stage if known else "opadpo"
    option = "" if name == stage else f" --name {name}"
    return f"run `opadpo train {stage} {workspace.shown}{option}`"


def adapter(workspace: Workspace, name: str, what: Variant) -> Plan:
    """A trained adapter."""
    recipe = workspace.recipe
    section = outcome(recipe.train.opa) if what.stage == "opa" else outcome(opadpo_section(workspace, what))
    settings = {
        **_model_settings(workspace),
        "seed": recipe.seed,
        "stage": what.stage,
        "from": what.start,
        f"train.{what.stage}": section,
    }
    needed = [f"datasets/{what.stage}", "prompts"]
    if what.start != BASE:
        needed.append(f"adapters/{what.start}")
    return Plan(
        artefact=f"adapters/{name}",
        step=f"train {what.stage}",
        settings=settings,
        inputs=_inputs(workspace, *needed),
    )


def opadpo_section(workspace: Workspace, what: Variant) -> OpadpoSection:
    """The second stage's settings, with the loss of the variant."""
    section = workspace.recipe.train.opadpo
    return section.model_copy(update={"loss": section.loss.plain()}) if what.plain else section


def benchmark_set(workspace: Workspace, name: str) -> Plan:
    """Questions and images of a benchmark."""
    what, section = SETS[name], workspace.recipe.evaluate
    artefact = artefact_of_set(name)
    stamps = stamp(RELEASES[what.release], what.files, getattr(section.files, what.release).path)
    manifest = workspace.manifest(artefact)
    before = manifest.settings.get("files", {}) if manifest else {}
    # Like a data source, files that are not at hand any more leave what was made from them good.
    files = {file: stamps.get(file, before.get(file)) for file in what.files}
    settings = {"set": name, "files": files, **_evaluate_settings(workspace, what.settings)}
    return Plan(artefact=artefact, step="caption", settings=settings, inputs={})


def captions(workspace: Workspace, model: str, prompt_set: str) -> Plan:
    """A model's captions of a set of prompts."""
    settings = {**_model_settings(workspace), "caption": outcome(workspace.recipe.caption), "of": model}
    if workspace.recipe.caption.temperature > 0:
        settings["seed"] = workspace.recipe.seed
    prompts_artefact = artefact_of_set(prompt_set)
    needed = [prompts_artefact] if model == BASE else [prompts_artefact, f"adapters/{model}"]
    return Plan(
        artefact=f"captions/{model}/{prompt_set}.parquet",
        step="caption",
        settings=settings,
        inputs=_inputs(workspace, *needed),
    )


def evaluation(workspace: Workspace, model: str, benchmark: str, prompt_set: str) -> Plan:
    """A model's figures on a benchmark."""
    known = BENCHMARKS.get(benchmark)
    names = (*known.settings, "confidence", "resamples") if known else ()
    return Plan(
        artefact=f"evaluations/{model}/{benchmark}.json",
        step="evaluate",
        settings={"benchmark": benchmark, "set": prompt_set, **_evaluate_settings(workspace, names)},
        inputs=_inputs(workspace, f"captions/{model}/{prompt_set}.parquet", artefact_of_set(prompt_set)),
    )


def _evaluate_settings(workspace: Workspace, names: Sequence[str]) -> dict[str, Any]:
    values = outcome(workspace.recipe.evaluate)
    return {f"evaluate.{name}": values[name] for name in names}


def _model_settings(workspace: Workspace) -> dict[str, Any]:
    recipe = workspace.recipe
    return {
        "model": outcome(recipe.model),
        "base": pinned_digest(workspace),
        "prompt": outcome(recipe.prompt),
        "image": outcome(recipe.image),
    }


def _inputs(workspace: Workspace, *artefacts: str) -> dict[str, str]:
    return {artefact: workspace.fingerprint(artefact) for artefact in artefacts}
