"""The notebooks' own cells with recipes of real models: nothing outside the parameters is the toy world's."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from photograph_expert import photograph_expert
from run_notebooks import read
from source_data import image_bytes

from opadpo.display.shipped import OWN_WORKSPACE, shipped, with_parameters

SMALL = [
    "model.dtype=float32",
    "prepare.subsets=1",
    "prepare.subset_size=4",
    "prepare.heldout_size=2",
    "rollout.max_prompt_tokens=900",
    "rollout.max_new_tokens=16",
    "caption.max_new_tokens=8",
    "revise.endpoint.model=photograph-expert",
    "revise.endpoint.api_key_required=false",
    *(f"train.{stage}.{each}" for stage in ("opa", "opadpo") for each in (
        "lora.rank=4", "batch_size=4", "micro_batch_size=4", "max_steps=1", "precision=float32",
    )),
]  # fmt: skip
RECIPE, ARCHITECTURE = "qwen2.5-vl-7b", "qwen2_5_vl"


def table(folder: Path) -> Path:
    """Small pictures with a question and an answer to each."""
    rows = [("image", "question", "answer")]
    for number in range(6):
        picture = folder / f"{number}.png"
        picture.write_bytes(image_bytes(number))
        rows.append((str(picture), "What is to be seen?", f"Noise number {number}."))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


@pytest.mark.slow
def test_every_cell_runs_with_the_recipe_of_a_real_model(
    notebook_shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    columns = {"image": "image", "question": "question", "reference": "answer"}
    source = {"kind": "table", "path": str(table(tmp_path)), "columns": columns}
    base = tiny_models.save(ARCHITECTURE, tmp_path / "base")
    with photograph_expert() as url:
        settings = [
            *SMALL,
            f"model.base={base}",
            f"prepare.source={json.dumps(source)}",
            f"revise.endpoint.base_url={url}",
        ]
        for path in shipped():
            if path.name == OWN_WORKSPACE:
                continue
            for cell in with_parameters(read(path), {"workspace": "work", "recipe": RECIPE, "settings": settings})[
                "cells"
            ]:
                if cell["cell_type"] == "code":
                    result = notebook_shell.run_cell("".join(cell["source"]))
                    assert result.success, (path.name, "".join(cell["source"]), capsys.readouterr().out[-3000:])
    told = capsys.readouterr().out
    assert "The recipe names no benchmark" in told, "as real recipes come"
