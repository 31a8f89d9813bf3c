"""The GPU check runs, on tiny models and the CPU: every row has its figures, and what it checks is right."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"
FIGURES = {"examples_per_second", "tokens_per_second", "peak_gib", "seconds_recomputed"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_row_has_finite_figures_on_the_cpu(tmp_path):
    command = [sys.executable, str(SCRIPT), "--tiny", "--repeats", "1", "--output", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for model in ("llava", "onevision"):
        found = json.loads((tmp_path / f"{model}.json").read_text())
        skipped = [name for name, row in found["rows"].items() if "skipped" in row]
        assert skipped == ["packed, flex", "packed, ddp", "packed, fsdp2", "packed, deepspeed"]
        assert len(found["rows"]) == 11
        for name, row in found["rows"].items():
            if name not in skipped:
                assert set(row) >= FIGURES
                assert all(math.isfinite(value) and value > 0 for value in row.values())
        assert all(row["estimated"] > 0 for row in found["batches"])
        assert 0 < sum(row["share"] for row in found["profile"]) <= 1.001
        made = [row for row in found["checks"] if "skipped" not in row]
        assert len(made) >= 2
        assert all(row["ok"] for row in made)
        assert "| packed, efficient, batch 2 |" in (tmp_path / f"{model}.md").read_text()


def test_what_the_gpu_checks_compare_is_right_here_without_gpu_and_torchvision(monkeypatch):
    """QLoRA's step on a base that is not quantized, and the whole processor around the image processor that we use."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    checks = importlib.import_module("gpu_checks")
    assert checks.qlora_step("none", "cpu", "float32")["ok"]
    assert checks.whole_processor(LlavaImageProcessorPil) == {"value": 0.0, "ok": True}
