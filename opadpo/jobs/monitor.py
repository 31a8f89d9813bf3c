"""What the runner notices about a job while it runs: its usage, its metrics, how far it is, and what goes wrong."""

import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from opadpo.jobs import curves
from opadpo.jobs.alarms import Alarm, Alarms
from opadpo.jobs.folder import (
    ALARMS_FILE,
    LOG_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    RESOLVED_FILE,
    STEP_PROGRESS_FILE,
    USAGE_FILE,
)
from opadpo.jobs.gpus import GpuMeter
from opadpo.jobs.mirror import Mirror
from opadpo.jobs.record import Job

SAMPLE_SECONDS = 5.0
USAGE_BYTES = 2 * 10**6
"""Size from which the older half of the usage is thinned out."""
CHECKPOINT_MARKER = "complete.json"
"""The last file of a checkpoint that is written."""
BAD_BATCH_FILE = "bad_batch.json"


class Monitor:
    """Watches one attempt of a job. What it cannot write, as on a full disk, does not stop the job."""

    def __init__(self, folder: Path, job: Job, runs_root: Path) -> None:
        """`runs_root` is the folder `runs` of the workspace."""
        self.folder, self.job, self.runs_root = folder, job, runs_root
        self.alarms = Alarms(job.alarms, _loss_settings(folder), number=_lines(folder / ALARMS_FILE))
        self.mirror = Mirror(folder / METRICS_FILE, {run: runs_root / run / METRICS_FILE for run in job.runs})
        self.meter = GpuMeter([int(name[4:]) for name in job.attempt.devices if name.startswith("gpu-")])
        self._refused = {run: _stamp(runs_root / run / BAD_BATCH_FILE) for run in job.runs}
        self._sampled = 0.0
        self._moved: float | None = None
        self._position: object = None
        self._told: object = None
        self._checkpoint: dict[str, Any] | None = None
        self._lines_bytes = 0
        psutil.cpu_percent()  # the first call only starts the clock

    def tick(self, now: float, pids: Collection[int]) -> Alarm | None:
        """Notice what is new; to be called about every second, and once more when the job's commands have ended.

        `now` is in seconds since 1970, `pids` are the job's processes. Returns an alarm for which the job is to stop.
        """
        self._moved = now if self._moved is None else self._moved
        raised: list[Alarm] = []
        lines = self.mirror.update()
        for line in lines:
            raised += self.alarms.metrics(line, now)
        raised += self._refusals(now)
        self._lines_bytes = curves.refresh(self.folder, self._lines_bytes)
        if now - self._sampled >= SAMPLE_SECONDS:
            self._sampled = now
            self._checkpoint = self._newest_checkpoint()
            raised += self.alarms.usage(self._sample(now, pids))
        position = self._progress()
        if lines or position != self._position:
            self._position, self._moved = position, now
        raised += self.alarms.stillness(self._moved, now)
        for alarm in raised:
            _append(self.folder / ALARMS_FILE, alarm.model_dump_json() + "\n")
            clock = time.strftime("%H:%M:%S", time.localtime(now))
            _append(self.folder / LOG_FILE, f"{clock}  warning: {alarm.what} {alarm.remedy}\n")
        return next((alarm for alarm in raised if alarm.stopped), None)

    def _refusals(self, now: float) -> list[Alarm]:
        """A batch that training has refused in this attempt."""
        raised: list[Alarm] = []
        for run, before in self._refused.items():
            path = self.runs_root / run / BAD_BATCH_FILE
            stamp = _stamp(path)
            if stamp is not None and stamp != before:
                self._refused[run] = stamp
                raised += self.alarms.refused(_json(path) or {}, now)
        return raised

    def _sample(self, now: float, pids: Collection[int]) -> dict[str, Any]:
        """One line of usage: bytes, and percent of all cores."""
        memory = psutil.virtual_memory()
        sample = {
            "at": now,
            "gpus": self.meter.read(),
            "cpu": psutil.cpu_percent(),
            "memory_used": memory.total - memory.available,
            "memory_total": memory.total,
            "disk_free": psutil.disk_usage(str(self.folder)).free,
            "processes": len(pids),
        }
        path = self.folder / USAGE_FILE
        _append(path, json.dumps(sample) + "\n")
        thin(path)
        return sample

    def _progress(self) -> object:
        """Write how far the job is where that is new; returns what must change for it to have moved."""
        step = _json(self.folder / STEP_PROGRESS_FILE) or {}
        told = (step.get("at"), self._checkpoint)
        if told != self._told and (step or self._checkpoint):
            self._told = told
            names = ("task", "done", "total", "rate", "seconds_left", "at")
            _replace(
                self.folder / PROGRESS_FILE,
                json.dumps({**{name: step[name] for name in names if name in step}, "checkpoint": self._checkpoint}),
            )
        return (step.get("task"), step.get("done"), self._checkpoint)

    def _newest_checkpoint(self) -> dict[str, Any] | None:
        """The newest complete checkpoint of the job's runs."""
        found = []
        for run in self.job.runs:
            for marker in (self.runs_root / run).glob(f"checkpoint-*/{CHECKPOINT_MARKER}"):
                number = marker.parent.name.removeprefix("checkpoint-")
                stamp = _stamp(marker)
                if number.isdigit() and stamp is not None:
                    found.append((stamp / 1e9, int(number), run))
        if not found:
            return None
        at, step, run = max(found)
        return {"run": run, "step": step, "at": at}


def thin(path: Path, limit: int = USAGE_BYTES) -> None:
    """Leave out every second line of the older half of a file that has become larger than `limit` bytes."""
    with suppress(OSError):
        if path.stat().st_size > limit:
            lines = path.read_bytes().splitlines(keepends=True)
            middle = len(lines) // 2
            _replace(path, b"".join([*lines[:middle:2], *lines[middle:]]))


def _loss_settings(folder: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((folder / RESOLVED_FILE).read_text(encoding="utf-8"))
        return dict(found["train"]["opadpo"]["loss"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _append(path: Path, text: str) -> None:
    with suppress(OSError), path.open("ab") as file:
        file.write(text.encode())


def _replace(path: Path, content: str | bytes) -> None:
    """Without asking the disk to keep it: all of this is noticed again."""
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(OSError):
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
