"""Folders of jobs as runners leave them: records, logs, curves, samples, alarms; nothing runs in them."""

import json
import math
import random
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opadpo.jobs.folder import (
    ALARMS_FILE,
    HEARTBEAT_FILE,
    LOG_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    RESOLVED_FILE,
    USAGE_FILE,
    write_job,
)
from opadpo.jobs.identity import boot_id, started_at
from opadpo.jobs.record import Attempt, Job, JobRequest, State
from opadpo.manifest import Plan
from opadpo.recipe import dump_recipe
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

TOTAL = 628
GIB = 2**30


def make(
    workspace: Workspace,
    job_id: str,
    *,
    step: Any = "opadpo",
    state: State = "succeeded",
    title: str | None = None,
    reason: str | None = None,
    age: timedelta = timedelta(hours=2),
    took: timedelta = timedelta(hours=1),
    kind: Any = "local",
    target: str = "local",
    pid: int | None = None,
    runs: Sequence[str] = (),
    attempts: int = 1,
    **fields: Any,
) -> Path:
    """Write the record of a job; `pid` is a process that stands for its runner. Returns its folder."""
    submitted = datetime.now(UTC) - age
    begun = submitted + timedelta(seconds=4)
    over = state in ("succeeded", "failed", "cancelled", "lost")
    tries = [
        Attempt(
            number=number, state=state if number == attempts else "failed", queued_at=submitted,
            started_at=None if state == "queued" else begun,
            ended_at=begun + took if over or number < attempts else None,
            host=socket.gethostname(), boot_id=boot_id(), pid=pid, pid_started=started_at(pid) if pid else None,
            devices=["cpu"], reason=reason, resumed_from=400 if number > 1 else None,
        )
        for number in range(1, attempts + 1)
    ]  # fmt: skip
    name = title or job_id
    train = step in ("opa", "opadpo")
    values: dict[str, Any] = {
        "commands": [["{python}", "-m", "opadpo", *(["train"] if train else []), step, "{workspace}", "--json"]],
        "request": JobRequest(step=step, start="opa" if train else None),
        "submitted_by": "lea",
        "recipe_name": workspace.recipe.name,
        "code_version": "0.1.0",
        **fields,
    }
    job = Job(
        job_id=job_id, step=step, title=name, target=target, target_settings=TargetSection(kind=kind),
        runs=list(runs), workspace=str(workspace.root), submitted_at=submitted, state=state, reason=reason,
        state_at=submitted, attempts=tries, **values,
    )  # fmt: skip
    folder = workspace.jobs() / job_id
    folder.mkdir(parents=True)
    write_job(folder, job)
    (folder / HEARTBEAT_FILE).touch()
    return folder


def fill(folder: Path, workspace: Workspace, *, steps: int = 412, gpus: int = 2, run: str = "opadpo") -> None:
    """What a training of `steps` updates leaves: curves whose rewards fall at the end, log, samples."""
    now = datetime.now(UTC).timestamp()
    write_lines(folder / METRICS_FILE, metrics(steps, run))
    shown = range(max(1, steps - 60), steps + 1)
    lines = [f"== {datetime.now(UTC):%Y-%m-%d %H:%M:%S} attempt 1: opadpo train opadpo"]
    lines += [
        f"14:{at // 60 % 60:02}:{at % 60:02}  step {at}/{TOTAL}  loss 0.4{at % 97:02}  margin 1.12" for at in shown
    ]
    lines.insert(-4, "14:20:45  warning: chosen and rejected rewards have fallen together for 60 updates")
    (folder / LOG_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_lines(folder / USAGE_FILE, samples(now, gpus))
    progress = {
        "task": "train opadpo", "done": steps, "total": TOTAL, "rate": 0.05, "seconds_left": 4140.0, "at": now,
        "checkpoint": {"run": run, "step": steps // 50 * 50, "at": now - 600},
    }  # fmt: skip
    (folder / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")
    (folder / RESOLVED_FILE).write_text(dump_recipe(workspace.recipe), encoding="utf-8")


def show(workspace: Workspace, pid: int) -> None:
    """Jobs of every state, the newest of them training with an alarm; `pid` stands for the runners.

    What a clone of that one reads is there too, so that it could be started.
    """
    for artefact in ("datasets/opadpo", "adapters/opa"):
        with workspace.writing(Plan(artefact=artefact, step="shown", settings={}, inputs={})) as writer:
            writer.finish({})
    hour = timedelta(hours=1)
    changes = ["train.processes=2", "train.opadpo.learning_rate=1.0e-06"]
    first = make(
        workspace, "20260105-120400-opadpo-qxwm", title="opadpo-7b", state="running", pid=pid, runs=["opadpo"],
        attempts=2, age=2 * hour, overrides=changes,
    )  # fmt: skip
    fill(first, workspace)
    alarm(first)
    queued = {"state": "queued", "pid": pid, "reason": "gpu-0 is used by opadpo-7b"}
    make(workspace, "20260105-110000-caption-kftz", step="caption", title="caption-amber", age=3 * hour, **queued)
    done = {"step": "opa", "title": "opa-7b", "runs": ["opa"], "took": 3.2 * hour, "age": 8 * hour}
    fill(make(workspace, "20260105-080000-opa-hjnr", **done), workspace, run="opa")
    ends: list[tuple[str, str, State, str | None]] = [
        ("opadpo", "opadpo-7b-lr2e-6", "failed", "The loss is not finite at update 188; lower the learning rate."),
        ("opa", "opa-13b", "lost", "The machine restarted. Its last checkpoint is that of update 400; resume it."),
        ("rollout", "rollout-coco", "succeeded", None),
        ("opadpo", "dpo-7b", "cancelled", "Cancelled by lea; its last checkpoint is that of update 96."),
        ("pipeline", "demo", "succeeded", None),
    ]
    for back, (step, title, state, reason) in enumerate(ends, 2):
        name = f"2026010{6 - back}-090000-{step}-{title[:4].replace('-', 'a')}"
        make(workspace, name, step=step, title=title, state=state, reason=reason, age=20 * back * hour)


def alarm(folder: Path, **fields: Any) -> None:
    """Raise an alarm."""
    told = {
        "id": "rewards_falling-352", "kind": "rewards_falling", "step": 352, "at": datetime.now(UTC).timestamp(),
        "what": "Chosen and rejected rewards have been falling together since update 352",
        "remedy": "a stronger anchor helps: train.opadpo.loss.anchor_coef is 1.0",
        "key": {"set": "train.opadpo.loss.anchor_coef=2.0"}, "stopped": False,
    }  # fmt: skip
    write_lines(folder / ALARMS_FILE, [{**told, **fields}])


def metrics(steps: int, run: str = "opadpo") -> Iterator[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    chance = random.Random(3)
    for step in range(1, steps + 1):
        part = step / TOTAL
        fall = max(0.0, part - 0.55)
        loss = 0.35 + 1.05 * math.exp(-4.5 * part) + chance.gauss(0, 0.03)
        chosen, rejected = 0.3 * math.tanh(6 * part) - 5 * fall, -1.1 * math.tanh(3 * part) - 5 * fall
        yield {
            "run": run, "step": step, "time": 1.7e9 + step, "loss": loss, "grad_norm": 1.2, "epoch": 4 * part,
            "learning_rate": 1e-6 * 0.5 * (1 + math.cos(math.pi * part)),
            "tokens_per_second": 3900 + chance.gauss(0, 20),
            **{f"parts/{name}": loss * share + chance.gauss(0, 0.01) for name, share in (
                ("standard_pair", 0.5), ("revised_pair", 0.7), ("standard_image", 1.0), ("revised_image", 1.1))},
            "parts/anchor": 0.08 + 0.05 * fall + chance.gauss(0, 0.01),
            "rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected,
            "rewards/accuracies": min(0.9, 0.5 + part),
            "logps/standard": -0.9 + 0.2 * part, "logps/revised": -0.7 + 0.25 * part,
            "logps/generated": -0.4 - 0.5 * part,
        }  # fmt: skip


def samples(now: float, gpus: int) -> Iterator[dict[str, Any]]:
    """Ten minutes of usage.jsonl."""
    chance = random.Random(4)
    for back in range(119, -1, -1):
        busy = 30 if 70 < back < 74 else 95
        cards = [
            {"index": at, "name": "NVIDIA H100 80GB HBM3", "utilization": min(100, busy + chance.gauss(0, 2)),
             "memory_used": int((51.2 - 0.4 * at) * GIB), "memory_total": 80 * GIB}
            for at in range(gpus)
        ]  # fmt: skip
        yield {
            "at": now - 5 * back, "gpus": cards, "cpu": 14 + chance.random(), "memory_used": 84 * GIB,
            "memory_total": 503 * GIB, "disk_free": 412 * GIB, "processes": 3,
        }  # fmt: skip


def write_lines(path: Path, lines: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    """Append objects as JSON lines."""
    with path.open("a", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps(line) + "\n")
