"""A process that answers single questions with the models of a workspace, one after another, as long as it is wanted.

python -m opadpo.steps.live WORKSPACE

One JSON object per line. In: `{"id", "question", "image", "models"}`. Out, each with the `id`: `{"doing": "loading"}`
and `{"doing": MODEL}` while it works, `{"answer": {...}}` for every model, `{"error": {...}}` where that fails, and
`{"done": true}`. It ends when its input does: with its owner, however that ends.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from opadpo.errors import OpadpoError
from opadpo.hashing import derive_seed
from opadpo.models.adapters import check_fits
from opadpo.models.base import read_pin
from opadpo.models.loading import load_processing
from opadpo.steps import plans
from opadpo.steps.speakers import Speaker
from opadpo.workspace import Workspace


class Answerer:
    """The models of a workspace, loaded with the first question."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is loaded yet."""
        self.workspace = workspace
        self._speaker: Speaker | None = None

    def answer(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What happens while a question is answered."""
        if self._speaker is None:
            yield {"doing": "loading"}
            pin = read_pin(self.workspace)
            processing = load_processing(pin, self.workspace.recipe)
            self._speaker = Speaker(self.workspace, "prompts", pin, processing)
        seed = derive_seed(self.workspace.recipe.seed, "live", asked["question"])
        for model in asked["models"]:
            yield {"doing": model}
            yield self._one(self._speaker, model, asked["question"], Path(asked["image"]), seed)

    def _one(self, speaker: Speaker, model: str, question: str, image: Path, seed: int) -> dict[str, Any]:
        started = time.monotonic()
        try:
            adapter = None if model == plans.BASE else self.workspace.adapter(model)
            if adapter is not None:
                self.workspace.require(f"adapters/{model}", plans.training_command(self.workspace, model))
                check_fits(adapter, speaker.pin)
            speaker.use(adapter)
            (said,) = speaker.answer([(question, image, seed)], self.workspace.recipe.caption.sampling)
        except OpadpoError as error:
            return {"error": {"model": model, **told(error)}}
        return {
            "answer": {
                "model": model,
                "text": said.text,
                "tokens": len(said.token_ids),
                "finish_reason": said.finish_reason,
                "seconds": round(time.monotonic() - started, 2),
            }
        }


def told(error: OpadpoError) -> dict[str, str | None]:
    """An error as data."""
    return {"what": error.what, "seen": None if error.seen is None else str(error.seen), "remedy": error.remedy}


def serve(workspace: Workspace, lines: TextIO, out: TextIO) -> None:
    """Answer questions until there are no more lines."""
    answerer = Answerer(workspace)
    for line in lines:
        asked = json.loads(line)
        try:
            for event in answerer.answer(asked):
                _tell(out, asked, event)
        except OpadpoError as error:
            _tell(out, asked, {"error": {"model": None, **told(error)}})
        _tell(out, asked, {"done": True})


def _tell(out: TextIO, asked: dict[str, Any], event: dict[str, Any]) -> None:
    out.write(json.dumps({"id": asked["id"], **event}) + "\n")
    out.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        serve(Workspace.open(sys.argv[1]), sys.stdin, answers)
