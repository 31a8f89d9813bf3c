"""What people look at between the steps: some of what a workspace holds, and a training step's inner pictures."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opadpo.errors import DataError
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import read_evaluation
from opadpo.files import given_path
from opadpo.plots import Point, Row
from opadpo.records import PreferenceExample, Prompt, Revision, Rollout
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.steps.benchmarks import benchmark_of
from opadpo.steps.reporting.facts import curve as read_curve
from opadpo.steps.reporting.facts import measured_on_policy
from opadpo.tables import iter_prompts, iter_rollouts
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from opadpo.models.families.base import Processing
    from opadpo.training.collate import Collator


def prompts(workspace: Workspace, count: int) -> list[Prompt]:
    """The first training prompts."""
    workspace.require("prompts", f"run `opadpo prepare {workspace.shown}`")
    return list(islice((prompt for prompt in iter_prompts(workspace) if prompt.split == "train"), count))


def rollouts(workspace: Workspace, count: int | None = None) -> list[tuple[Prompt, Rollout]]:
    """The first rollouts, each with its prompt; None: all."""
    workspace.require("rollouts", f"run `opadpo rollout {workspace.shown}`")
    asked = {prompt.prompt_id: prompt for prompt in iter_prompts(workspace)}
    return [
        (asked[each.prompt_id], each) for each in islice(iter_rollouts(workspace), count) if each.prompt_id in asked
    ]


def revisions(workspace: Workspace, count: int) -> list[tuple[Prompt, Revision]]:
    """Newest revisions, each with its prompt, those first in which most sentences were changed."""
    asked = {rollout.rollout_id: prompt for prompt, rollout in rollouts(workspace)}
    with ReviewStore.of(workspace) as store:
        found = [each for each in store.iter_current() if each.rollout_id in asked]
    found.sort(key=lambda each: (-sum(sentence.kind != "kept" for sentence in each.sentences), each.rollout_id))
    return [(asked[each.rollout_id], each) for each in found[:count]]


def scores(workspace: Workspace) -> dict[int, int]:
    """Score -> number of sentences, over the newest revisions."""
    with ReviewStore.of(workspace) as store:
        counted = Counter(s.score for each in store.iter_current() for s in each.sentences if s.score is not None)
    return {score: counted[score] for score in (1, 2, 3, 4)}


def examples(workspace: Workspace, count: int) -> list[PreferenceExample]:
    """Rows of the second stage's data set, those first that differ most in length from what was generated."""
    found = list(_examples(workspace))
    return sorted(found, key=lambda each: -abs(len(each.generated) - len(each.revised)))[:count]


def word_counts(workspace: Workspace) -> dict[str, list[int]]:
    """Response -> words of every example."""
    found = list(_examples(workspace))
    names = ("generated", "revised", "standard") if any(each.standard for each in found) else ("generated", "revised")
    return {name: [len(getattr(each, name).split()) for each in found] for name in names}


def _examples(workspace: Workspace) -> Iterator[PreferenceExample]:
    from datasets import Dataset

    workspace.require("datasets/opadpo", f"run `opadpo build {workspace.shown}`")
    for row in Dataset.load_from_disk(str(workspace.dataset("opadpo"))):
        yield PreferenceExample.model_validate(row)


def curve(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics so far."""
    return read_curve(workspace.run(name) / "metrics.jsonl")


def on_policy(workspace: Workspace, name: str = "opadpo") -> dict[str, dict[str, float]]:
    """Model -> response -> mean log-prob per token, as it was measured before a run of the second stage."""
    return measured_on_policy(workspace, [name])


class Likelihoods(NamedTuple):
    """Mean log-prob per token of each response, by its name."""

    before: dict[str, list[float]]
    """Under the base."""
    after: dict[str, list[float]]
    """Under an adapter."""


def likelihoods(workspace: Workspace, adapter: str = "opa", count: int = 64) -> Likelihoods:
    """How likely the base and an adapter find the responses of the first examples.

    Raises:
        MissingArtefact: if the data set or the adapter is not there.
        ModelError: if the adapter does not fit.
    """
    from opadpo.models.adapters import attach
    from opadpo.models.base import read_pin
    from opadpo.models.loading import load_model
    from opadpo.training.likelihoods import mean_logps

    workspace.require(f"adapters/{adapter}", plans.training_command(workspace, adapter))
    collator = _collator(workspace, count, masked=False)
    base = load_model(read_pin(workspace), workspace.recipe)
    before = mean_logps(base, collator)
    after = mean_logps(attach(base, workspace.adapter(adapter), adapter), collator)
    return Likelihoods(before, after)


class Sight(NamedTuple):
    """An image as the model sees it, uint8 (height, width, 3) each."""

    example_id: str
    clean: "npt.NDArray[np.uint8]"
    """After the image processor."""
    masked: list["npt.NDArray[np.uint8]"]
    """The same masked, as in each of the first epochs."""


def masked_images(workspace: Workspace, count: int = 3, epochs: int = 2) -> list[Sight]:
    """Images of the first examples as the second stage feeds them to the model, clean and masked.

    Raises:
        MissingArtefact: if the data set is not there.
    """
    from opadpo.training.opadpo import image_mask, mask_seeds

    collator = _collator(workspace, count, masked=False)
    processing, section = collator.prompts.processing, workspace.recipe.train.opadpo
    mask, seed_of = image_mask(section, processing), mask_seeds(section, workspace.recipe.seed)
    found = []
    for example in collator.examples[:count]:
        inputs = collator.prompts.encode(example.example_id, example.question, example.image).model_inputs
        masked = [mask(inputs, seed_of(example.example_id, epoch)) for epoch in range(epochs)]
        clean, *others = [_visible(processing, each) for each in (inputs, *masked)]
        found.append(Sight(example.example_id, clean, others))
    return found


def _visible(processing: "Processing", inputs: "dict[str, Tensor]") -> "npt.NDArray[np.uint8]":
    """Pixels as the model takes them, made visible: normalisation undone."""
    import torch

    pixels = processing.family.pixels(processing, inputs).float()
    mean, spread = (
        torch.tensor(getattr(processing.image_processor, name)).view(-1, 1, 1) for name in ("image_mean", "image_std")
    )
    return ((pixels * spread + mean).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def packed_rows(workspace: Workspace) -> list[Row]:
    """The packed rows of one example of the second stage, under the clean image and under the masked one.

    The layout and the mask are those that training computes with.

    Raises:
        MissingArtefact: if the data set is not there.
    """
    from opadpo.training.attention import visible
    from opadpo.training.collate import MASKED, Visit
    from opadpo.training.packing import PackedSequences, row_layout

    collator = _collator(workspace, 1, masked=True)
    packed = collator([Visit(0, 0)]).sequences
    assert isinstance(packed, PackedSequences)
    rows = []
    for row in row_layout(packed).rows:
        is_masked = len(rows) == 1
        names = [name.removesuffix(MASKED) for name in collator.names if name.endswith(MASKED) == is_masked]
        lengths = row.segments.bincount().tolist()
        parts = list(zip(["image and prompt", *names], lengths, strict=True))
        title = "under the masked image" if is_masked else "under the clean image"
        rows.append(Row(title, parts, visible(row.segments, row.places).numpy()))
    return rows


def _collator(workspace: Workspace, count: int, *, masked: bool) -> "Collator":
    """The first examples as the second stage puts them together."""
    from opadpo.models.base import read_pin
    from opadpo.models.loading import load_processing
    from opadpo.progress import SilentProgress
    from opadpo.training.collate import MASKED, Collator
    from opadpo.training.examples import Preparation, Prompts, context_length, prepare_examples
    from opadpo.training.opadpo import image_mask, mask_seeds, opadpo_names

    section = workspace.recipe.train.opadpo
    processing = load_processing(read_pin(workspace), workspace.recipe)
    prompts = Prompts(processing)
    names = opadpo_names(section)
    clean = tuple(name for name in names if not name.endswith(MASKED))
    preparation = Preparation(
        prompts, workspace.prompts, clean, context_length(processing), may_lack=frozenset({"standard"})
    )
    rows: Sequence[dict[str, Any]] = [each.model_dump() for each in islice(_examples(workspace), count)]
    chosen, _ = prepare_examples(rows, preparation, SilentProgress(), total=len(rows))
    return Collator(
        chosen,
        prompts,
        names if masked else clean,
        mask=image_mask(section, processing),
        mask_seed=mask_seeds(section, workspace.recipe.seed),
        packing=masked,
    )


def tradeoffs(workspace: Workspace, models: Sequence[str]) -> list[tuple[Benchmark, list[Point]]]:
    """What models make up and what they tell, by each of the recipe's benchmarks that counts both.

    Raises:
        UserError: if a benchmark is unknown.
        WorkspaceError: if a model has no figures, or they are damaged.
    """
    found = []
    for benchmark in map(benchmark_of, workspace.recipe.evaluate.benchmarks):
        if benchmark.hallucination is None or len(benchmark.main) != 2:
            continue
        metrics = {each: read_evaluation(workspace.evaluation(each, benchmark.name)).metrics for each in models}
        found.append((benchmark, [Point(m, *(metrics[m][name] for name in benchmark.main)) for m in models]))
    return found


def adapter_files(workspace: Workspace, name: str) -> list[dict[str, str | int]]:
    """The files of an adapter with their sizes in kilobytes."""
    workspace.require(f"adapters/{name}", plans.training_command(workspace, name))
    files = sorted(path for path in workspace.adapter(name).iterdir() if path.is_file())
    return [{"file": f"adapters/{name}/{path.name}", "kilobytes": -(-path.stat().st_size // 1000)} for path in files]


def folder_settings(folder: Path | str, question: str, *, train: int, heldout: int) -> list[str]:
    """Settings of a recipe that asks one question about every image of a folder.

    There are no reference answers, so nothing is trained on them; and no benchmark knows what is in the images.

    Raises:
        UserError: if it is no path.
        DataError: if there is no such folder.
    """
    path = given_path(folder, "folder of photographs")
    if not path.is_dir():
        raise DataError(
            "There is no such folder of images",
            seen=folder,
            remedy="name one in the parameters, with image files in it",
        )
    source = {"kind": "folder", "path": str(path.resolve()), "question": question}
    return [
        f"prepare.source={json.dumps(source)}",
        "prepare.subsets=1",
        f"prepare.subset_size={train}",
        f"prepare.heldout_size={heldout}",
        "train.opa.responses=[revised]",
        "train.opadpo.loss.standard_pair_coef=0",
        "evaluate.benchmarks=[]",
    ]


def endpoint_settings(base_url: str, model: str, api_key_env: str | None) -> list[str]:
    """Settings of a recipe whose expert is a model behind an address; without `api_key_env` it takes no key."""
    return [
        f"revise.endpoint.base_url={json.dumps(base_url)}",
        f"revise.endpoint.model={json.dumps(model)}",
        f"revise.endpoint.api_key_required={json.dumps(api_key_env is not None)}",
        "revise.endpoint.server_command=[]",
        *([f"revise.endpoint.api_key_env={json.dumps(api_key_env)}"] if api_key_env else []),
    ]
