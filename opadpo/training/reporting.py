"""What a run tells while it goes: `metrics.jsonl`, progress, and the epoch as users count it."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from opadpo.files import atomic_write
from opadpo.progress import Task

METRICS_FILE = "metrics.jsonl"


def cut_metrics(path: Path, step: int) -> None:
    """Forget the lines of updates after `step`: a resumed run writes them again."""
    if path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        atomic_write(path, "".join(f"{line}\n" for line in kept))


class Reporter(TrainerCallback):
    """Writes a line per logged update and advances the progress; on the first process only."""

    def __init__(self, path: Path, task: Task | None, updates_per_epoch: float) -> None:
        """`updates_per_epoch` may be a fraction: epochs have no seam."""
        self.path = path
        self.task = task
        self.updates_per_epoch = updates_per_epoch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the update."""
        state.epoch = state.global_step / self.updates_per_epoch
        if self.task is not None and state.is_world_process_zero:
            self.task.advance()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append a line. JSON has no numbers that are not finite: their names are listed under `not_finite`."""
        if not logs or not state.is_world_process_zero or not ("loss" in logs or "eval_loss" in logs):
            return
        line = {"step": state.global_step, "time": time.time()}
        bad = [key for key, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]
        line |= {key: value for key, value in logs.items() if key not in bad} | ({"not_finite": bad} if bad else {})
        if self.task is not None:
            self.task.note(_in_words(logs, state))
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


SHOWN = (
    ("loss", "loss {:.4g}"),
    ("eval_loss", "held-out loss {:.4g}"),
    ("rewards/margins", "margin {:.3g}"),
    ("eval_rewards/margins", "margin {:.3g}"),
    ("rewards/accuracies", "acc {:.2f}"),
    ("eval_rewards/accuracies", "acc {:.2f}"),
    ("learning_rate", "lr {:.1e}"),
    ("tokens_per_second", "{:,.0f} tok/s"),
)
"""What the line in a log holds of the metrics."""


def _in_words(logs: Mapping[str, Any], state: TrainerState) -> str:
    parts = [text.format(logs[key]) for key, text in SHOWN if key in logs]
    return "  ".join([f"step {state.global_step}/{state.max_steps}", *parts])


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf  # cut off by a kill
