"""Jobs as the page shows them: read from their folders, with only what the reader may see."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.jobs.messages import Alarm, Card, Detail, Filters, Listing, Live, LogPiece, Progress, Trouble, Try
from opadpo.files import atomic_write
from opadpo.jobs import curves, logs
from opadpo.jobs.folder import ALARMS_FILE, CANCEL_FILE, LOG_FILE, MUTED_FILE, PROGRESS_FILE, USAGE_FILE
from opadpo.jobs.record import Job
from opadpo.jobs.service import Jobs

SHOWN_METRICS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "logps/standard", "logps/revised", "logps/generated",
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "parts/standard_pair",
    "parts/revised_pair", "parts/standard_image", "parts/revised_image", "parts/anchor",
)  # fmt: skip
USAGE_TAIL = 96 * 1024
"""Bytes at the end of usage.jsonl that the page shows: more than ten minutes."""
USAGE_SHOWN = 120
"""Samples at most: ten minutes."""
_HOST = ("cpu", "memory_used", "memory_total", "disk_free")
_GPU = ("utilization", "memory_used", "memory_total")
MAX_ALARMS = 100
_ALARM = ("id", "kind", "step", "at", "what", "remedy", "stopped")

Troubles = Callable[[str], Trouble | None]
Ways = Callable[[str], str | None]


class Views:
    """What the page reads."""

    def __init__(self, jobs: Jobs, troubles: Troubles, ways: Ways, comes: Ways) -> None:
        """`troubles` says why a remote job is not up to date, `ways` how far one is that is being brought there, and
        `comes` how far what one has made has come from there."""
        self._jobs = jobs
        self._troubles = troubles
        self._ways = ways
        self._comes = comes

    def listing(self, filters: Filters, *, admin: bool) -> Listing:
        """A stretch of the list, with counts for the filters."""
        jobs = self._jobs.list()
        named = [job for job in jobs if _one_of(job.job_id, filters.job)]
        worded = [job for job in named if _has_text(job, filters.text)]
        matching = [job for job in worded if _one_of(job.state, filters.state) and _one_of(job.step, filters.step)]
        counts = {
            "state": _count(job.state for job in worded if _one_of(job.step, filters.step)),
            "step": _count(job.step for job in worded if _one_of(job.state, filters.state)),
        }
        shown = matching[filters.offset : filters.offset + filters.limit]
        items = [Card(**self._card(job)) for job in shown]
        return Listing(items=items, total=len(matching), all=len(jobs), counts=counts, admin=admin)

    def detail(self, job: Job, *, admin: bool) -> Detail:
        """Everything about a job but its files; commands and settings for admins only."""
        return Detail(
            **self._card(job),
            attempts=[Try.model_validate(attempt.model_dump()) for attempt in job.attempts],
            recipe=job.recipe_name,
            changes=len(job.overrides),
            overrides=job.overrides if admin else [],
            command=job.command_text(self._jobs.workspace.root) if admin else "",
            code_version=job.code_version,
            start=job.request.start,
            runs=job.runs,
            cloned_from=job.cloned_from,
            admin=admin,
        )

    def live(
        self, job_id: str, *, admin: bool, log: int | None, usage: float, step: int | None, run: str | None
    ) -> Live:
        """What is new: log after `log` bytes, samples after the time `usage`, points after the update `step`."""
        job, folder = self._jobs.get(job_id), self._jobs.folder(job_id)
        piece = logs.read(folder / LOG_FILE, log) if (folder / LOG_FILE).is_file() else None
        points = {} if step is None else curves.read(folder, list(SHOWN_METRICS), run=run, points=200, after=step)
        return Live(
            job=self.detail(job, admin=admin),
            alarms=list(alarms(folder, admin=admin)),
            log=None if piece is None else LogPiece(
                text=piece.text, offset=piece.offset, size=piece.size, skipped=piece.skipped
            ),
            usage=[sample for sample in usage_of(folder) if _at(sample) > usage],
            curves=points,
        )  # fmt: skip

    def _card(self, job: Job) -> dict[str, Any]:
        attempt = job.attempt
        return {
            "job_id": job.job_id,
            "title": job.title,
            "step": job.step,
            "state": job.state,
            "reason": (self._ways(job.job_id) if job.state == "queued" else None) or job.reason,
            "target": job.target,
            "kind": job.target_settings.kind,
            "by": job.submitted_by,
            "submitted_at": job.submitted_at,
            "started_at": attempt.started_at,
            "ended_at": attempt.ended_at,
            "attempt": attempt.number,
            "progress": progress_of(self._jobs.folder(job.job_id)) if job.state != "succeeded" else None,
            "trained": bool(job.runs),
            "stopping": not job.terminal and (self._jobs.folder(job.job_id) / CANCEL_FILE).exists(),
            "comes": self._comes(job.job_id) if job.terminal else None,
            "unreachable": self._troubles(job.job_id),
        }


def progress_of(folder: Path) -> Progress | None:
    """How far a job is; None if it has not said."""
    try:
        return Progress.model_validate_json((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def alarms(folder: Path, *, admin: bool) -> Iterator[Alarm]:
    """The alarms of a job, oldest first; the settings that help for admins only."""
    muted = _muted(folder)
    for raw in list(_lines(folder / ALARMS_FILE))[-MAX_ALARMS:]:
        key = raw.get("key")
        try:
            known = {name: raw[name] for name in _ALARM if name in raw}
            own = {"set": key.get("set") if admin and isinstance(key, dict) else None, "muted": raw.get("id") in muted}
            yield Alarm.model_validate({**known, **own})
        except ValidationError:  # of a later version of this package
            continue


def mute(folder: Path, alarm: str) -> None:
    """Remember that an alarm has been seen."""
    muted = _muted(folder)
    if alarm not in muted:
        atomic_write(folder / MUTED_FILE, json.dumps([*muted, alarm]))


def usage_of(folder: Path) -> list[dict[str, Any]]:
    """The newest samples of the machine, oldest first."""
    return [sample for sample in _lines(folder / USAGE_FILE, USAGE_TAIL) if _is_sample(sample)][-USAGE_SHOWN:]


def peak_of(folder: Path) -> tuple[int, int]:
    """The most that any GPU held while the job ran, and what that GPU has; zeros if there was none."""
    peak = capacity = 0
    for sample in filter(_is_sample, _lines(folder / USAGE_FILE)):
        for gpu in sample.get("gpus") or []:
            used = int(gpu.get("memory_used") or 0)
            if used > peak:
                peak, capacity = used, int(gpu.get("memory_total") or 0)
    return peak, capacity


def _muted(folder: Path) -> list[str]:
    try:
        found = json.loads((folder / MUTED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _lines(path: Path, tail: int | None = None) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; a line that a kill cut off is passed over."""
    try:
        with path.open("rb") as stream:
            if tail is not None and (size := path.stat().st_size) > tail:
                stream.seek(size - tail)
                stream.readline()
            for line in stream:
                try:
                    found = json.loads(line)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    yield found
    except (FileNotFoundError, IsADirectoryError):
        return


def _is_sample(sample: dict[str, Any]) -> bool:
    """Whether a line is a sample as the monitor writes them; a full disk or a hand may have left others."""
    gpus = sample.get("gpus") or []
    if not isinstance(gpus, list) or not all(isinstance(gpu, dict) for gpu in gpus):
        return False
    host = [sample.get(name) for name in ("at", *_HOST)]
    return all(_is_number(one) for one in [*host, *(gpu.get(name) for gpu in gpus for name in _GPU)])


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def _at(sample: dict[str, Any]) -> float:
    at = sample.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _has_text(job: Job, text: str) -> bool:
    wanted = text.casefold().split()
    told = (job.title, job.job_id, job.request.name or "", job.target, job.recipe_name, job.submitted_by)
    where = " ".join(told).casefold()
    return all(word in where for word in wanted)


def _one_of(value: str, wanted: list[str]) -> bool:
    return not wanted or value in wanted


def _count(values: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
