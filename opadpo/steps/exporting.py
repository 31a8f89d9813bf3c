"""Captions as predictions of other evaluation programs: lmms-eval and VLMEvalKit."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from opadpo.files import atomic_write
from opadpo.records import Prompt
from opadpo.steps.benchmarks import SETS
from opadpo.steps.evaluate import command_for, rows_of
from opadpo.workspace import Workspace

PredictionFormat = Literal["lmms-eval", "vlmevalkit"]
_COLUMNS = ("index", "image_name", "question", "answer", "category", "prediction")


class _Prediction(NamedTuple):
    """One question of the set with the model's answer; questions that share a prompt share its answer."""

    position: int
    prompt: Prompt
    known: dict[str, Any]
    text: str


def export_predictions(
    workspace: Workspace, model: str, prompt_set: str, form: PredictionFormat, path: Path | None = None
) -> tuple[Path, dict[str, int]]:
    """Write a model's captions of a set; returns (the file, counts).

    Args:
        workspace: with the captions.
        model: whose.
        prompt_set: which.
        form: `lmms-eval`: a samples file (JSON lines), as its `--log_samples` writes; `vlmevalkit`: a prediction table
            (tab-separated).
        path: where to; None: `exports/` in the workspace, under the name that the program gives such a file.

    Raises:
        MissingArtefact: if there are no such captions.
        WorkspaceError: if they are of other prompts than the set's.
    """
    workspace.captions(model, prompt_set)
    command = command_for(workspace, model, prompt_set)
    workspace.require(f"captions/{model}/{prompt_set}.parquet", f"run `{command}`")
    rows, _ = rows_of(workspace, model, prompt_set)
    key = SETS[prompt_set].key if prompt_set in SETS else None
    predictions = []
    for place, row in enumerate(rows):
        for known in row.prompt.extra[key] if key else [{}]:
            predictions.append(_Prediction(known.get("position", place), row.prompt, known, row.caption.response))
    predictions.sort(key=lambda prediction: prediction.position)
    folder = workspace.root / "exports" / form
    if form == "lmms-eval":
        target = path or folder / model / f"samples_{prompt_set}.jsonl"
        atomic_write(target, _lmms_eval(predictions))
    else:
        target = path or folder / model / f"{model}_{prompt_set}.tsv"
        atomic_write(target, _vlmevalkit(predictions))
    return target, {"predictions": len(predictions)}


def _lmms_eval(predictions: list[_Prediction]) -> Iterator[str]:
    for number, (_, prompt, known, text) in enumerate(predictions):
        doc = {"question": prompt.question, "image_id": prompt.image_id, **known}
        answer = _answer(prompt, known)
        row = {
            "doc_id": number,
            "input": prompt.question,
            "target": answer,
            "resps": [[text]],
            "filtered_resps": [text],
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(prompt.question),
            "target_hash": _hash(answer),
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _vlmevalkit(predictions: list[_Prediction]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, dialect="excel-tab", lineterminator="\n")
    writer.writeheader()
    for number, (_, prompt, known, text) in enumerate(predictions):
        answer = _answer(prompt, known)
        writer.writerow(
            {
                "index": number,
                "image_name": prompt.extra.get("image", prompt.image_file),
                "question": prompt.question,
                "answer": answer.capitalize() if answer in ("yes", "no") else answer,
                "category": known.get("category") or known.get("type") or prompt.subset,
                "prediction": text,
            }
        )
    return buffer.getvalue()


def _answer(prompt: Prompt, known: dict[str, Any]) -> str:
    """What is right, as text: yes or no, the objects of the image, or the reference."""
    right = known.get("label") or known.get("truth") or prompt.reference
    return right if isinstance(right, str) else ", ".join(right)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
