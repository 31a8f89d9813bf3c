"""Who answers prompts: the model in this process, or in several that share the batches."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from opadpo.images import open_rgb
from opadpo.models.base import BasePin
from opadpo.models.families.base import Processing
from opadpo.processes.serving import Service
from opadpo.processes.team import Team, processes_wanted, team
from opadpo.progress import Progress
from opadpo.recipe import Recipe
from opadpo.records import Prompt, Sampling
from opadpo.tables import iter_prompts
from opadpo.workspace import Workspace

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from opadpo.models.generation import Generation

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One response to make."""

    prompt: Prompt
    sample_index: int
    seed: int


class Speaker:
    """The base model, loaded when it is first needed, with one adapter at a time."""

    def __init__(self, workspace: Workspace, artefact: str, pin: BasePin, processing: Processing) -> None:
        self.workspace, self.artefact, self.pin, self.processing = workspace, artefact, pin, processing
        self.adapter: Path | None = None
        self._base: PreTrainedModel | None = None
        self._adapted: PeftModel | None = None

    def use(self, adapter: Path | None) -> None:
        """Speak with this adapter from now on; None is the base. The adapter before is taken off again."""
        from opadpo.models.adapters import detach

        if self._adapted is not None:
            self._base, self._adapted = detach(self._adapted), None
        self.adapter = adapter

    def respond(self, jobs: Sequence[Job], sampling: Sampling) -> "list[Generation]":
        """Answer these prompts in one batch.

        Raises:
            DataError: if an image in the workspace cannot be read.
            ModelError: if model or adapter cannot be loaded.
        """
        folder = self.workspace.root / self.artefact
        asked = [(job.prompt.question, folder / job.prompt.image_file, job.seed) for job in jobs]
        return self.answer(asked, sampling)

    def answer(self, asked: Sequence[tuple[str, Path, int]], sampling: Sampling) -> "list[Generation]":
        """Answer (question, image file, seed) in one batch; raises as `respond`."""
        from opadpo.models.generation import generate

        rows = [(self.processing.encode(question, open_rgb(image)), seed) for question, image, seed in asked]
        return generate(self._model(), self.processing, rows, sampling)

    def respond_to_all(
        self, batches: Iterable[tuple[T, list[Job]]], sampling: Sampling
    ) -> "Iterator[tuple[T, list[Job], list[Generation]]]":
        """Answer batches in their order; what comes with a batch is given back with its answers."""
        for mark, batch in batches:
            yield mark, batch, self.respond(batch, sampling)

    def _model(self) -> Any:
        from opadpo.models.adapters import attach
        from opadpo.models.loading import load_model

        if self._base is None:
            self._base = load_model(self.pin, self.workspace.recipe)
        if self.adapter is not None and self._adapted is None:
            self._adapted = attach(self._base, self.adapter, self.adapter.name)
        return self._adapted or self._base


class SpeakerTeam:
    """Several processes, each with the model on its own device; a batch goes to whichever is free."""

    def __init__(
        self,
        workspace: Workspace,
        artefact: str,
        pin: BasePin,
        processing: Processing,
        members: Team,
        progress: Progress,
    ) -> None:
        self.workspace, self.artefact, self.pin, self.processing = workspace, artefact, pin, processing
        self.members, self.progress = members, progress
        self.adapter: Path | None = None

    def use(self, adapter: Path | None) -> None:
        """Speak with this adapter from now on; None is the base."""
        self.adapter = adapter

    def respond_to_all(
        self, batches: Iterable[tuple[T, list[Job]]], sampling: Sampling
    ) -> "Iterator[tuple[T, list[Job], list[Generation]]]":
        """Answer batches, in any order; what comes with a batch is given back with its answers.

        Raises:
            OpadpoError: the failure of a process.
        """
        from opadpo.models.generation import Generation

        setup = {
            "root": str(self.workspace.root),
            "artefact": self.artefact,
            "recipe": self.workspace.recipe.model_dump(mode="json"),
            "pin": self.pin.model_dump(mode="json"),
            "adapter": str(self.adapter) if self.adapter else None,
            "sampling": sampling.model_dump(mode="json"),
        }
        items = (
            ((mark, batch), [(job.prompt.prompt_id, job.sample_index, job.seed) for job in batch])
            for mark, batch in batches
        )
        for (mark, batch), answer in self.members.spread("respond", json.dumps(setup), items, self.progress):
            yield mark, batch, [Generation(*fields) for fields in answer]


@contextmanager
def speaking(
    workspace: Workspace, artefact: str, pin: BasePin, processing: Processing, progress: Progress
) -> Iterator[Speaker | SpeakerTeam]:
    """Whoever answers the prompts of an artefact, with `model.processes` or as many processes as a launcher started.

    `artefact` is `prompts`, or a benchmark's set.
    """
    processes = processes_wanted(workspace.recipe.model.processes)
    if processes == 1:
        yield Speaker(workspace, artefact, pin, processing)
        return
    with team(processes) as members:
        yield SpeakerTeam(workspace, artefact, pin, processing, members, progress)


def work(payload: str, service: Service) -> None:
    """What one of several processes does: it loads the model once, and answers batches until none is left."""
    from opadpo.models.loading import load_processing

    setup = json.loads(payload)
    recipe, pin = Recipe.model_validate(setup["recipe"]), BasePin.model_validate(setup["pin"])
    if "speaker" not in service.kept:
        workspace = Workspace(Path(setup["root"]), recipe)
        service.kept["speaker"] = Speaker(workspace, setup["artefact"], pin, load_processing(pin, recipe))
        service.kept["prompts"] = {p.prompt_id: p for p in iter_prompts(workspace, setup["artefact"])}
    speaker, prompts = service.kept["speaker"], service.kept["prompts"]
    speaker.use(Path(setup["adapter"]) if setup["adapter"] else None)
    sampling = Sampling.model_validate(setup["sampling"])
    service.answer_items(
        lambda batch: speaker.respond([Job(prompts[key], index, seed) for key, index, seed in batch], sampling)
    )
