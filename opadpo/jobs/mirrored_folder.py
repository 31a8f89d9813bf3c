"""A job's folder here, kept like the one on the machine where the job runs: what is appended there is appended here.

What has come stays: a machine that has lost its disk takes nothing away here, and gets back what it had.
"""

import os
from pathlib import Path

from opadpo.files import atomic_write
from opadpo.jobs import curves, logs
from opadpo.jobs.folder import (
    ALARMS_FILE,
    JOB_FILE,
    LOG_FILE,
    METRICS_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    RUNNER_LOG_FILE,
    USAGE_FILE,
    write_job,
)
from opadpo.jobs.machines import Machine, OverSsh, Piece, joined
from opadpo.jobs.record import Job, lost, now
from opadpo.jobs.sync import only
from opadpo.progress import Progress

ADDED_TO = (LOG_FILE, RESULT_FILE, ALARMS_FILE, RUNNER_LOG_FILE)
"""Only ever added to, by one attempt after the other: a shorter one there has lost something."""
GROWING = (*ADDED_TO, METRICS_FILE, USAGE_FILE)
"""The others may be written anew, and be shorter then."""
WHOLE = (PROGRESS_FILE,)
HOSTNAME = "/proc/sys/kernel/hostname"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ARRIVAL_SECONDS = 60.0
"""So long after the connection broke over which it was handed over, the record of a job has to be there."""
NEVER_ARRIVED = "It never arrived, as whoever copied it there was ended or the connection broke"
OVERLAP = 256
"""Bytes before the end that are read again: if they differ, the file was written anew, and all of it is read."""


def bring(machine: Machine, there: str, folder: Path, job: Job) -> tuple[Job, bool]:
    """Bring the small files up to date; returns (the job as its runner last wrote it, whether the runner is dead).

    A job that is not there, and that nobody hands over any more, has no runner that could live.

    Raises:
        Unreachable: if the machine cannot be reached; what is here stays.
    """
    attempt = job.attempt
    metrics = _size(folder / METRICS_FILE)
    # The process is looked at before the record: one that ends in between has written its last word by then.
    facts = {HOSTNAME: 0, BOOT_ID: 0, f"/proc/{attempt.pid or 0}/stat": 0}
    record = joined(there, JOB_FILE)
    copies = {joined(there, name): _Copy(folder / name) for name in GROWING}
    while True:
        offsets = {path: copy.offset for path, copy in copies.items()}
        found = machine.pieces({**facts, record: 0, **offsets, **{joined(there, name): 0 for name in WHOLE}})
        more = [path for path, copy in copies.items() if path in found and copy.take(found[path], offsets[path])]
        for name in WHOLE:
            if piece := found.get(joined(there, name)):
                atomic_write(folder / name, piece.data)
        if not more:
            break
    curves.refresh(folder, before=metrics)
    told = _read(found[record], job) if record in found else None
    if told is None or told.attempt.number < attempt.number:
        return job, (now() - job.state_at).total_seconds() > ARRIVAL_SECONDS
    return told, not told.terminal and told.attempt.pid == attempt.pid and _dead(job, found)


def keep(folder: Path, before: Job, told: Job, dead: bool) -> Job:
    """Write the job's record here if it has changed; a job whose runner is dead is `lost`."""
    if dead:
        gone = f"Its runner on {before.attempt.host} was killed, or the machine restarted"
        told = lost(told, folder, gone if before.attempt.pid else NEVER_ARRIVED)
    if told != before:
        write_job(folder, told)
    return told


def give_back(machine: OverSsh, there: str, folder: Path, progress: Progress) -> None:
    """Send what had come from a machine that has lost it since, so that the next attempt adds to it.

    Raises:
        Unreachable, DiskFull: if that cannot be done.
    """
    ours = {name: size for name in GROWING if (size := _size(folder / name))}
    theirs = machine.pieces({joined(there, name): 0 for name in ours}, limit=0)
    sizes = {name: piece.size if (piece := theirs.get(joined(there, name))) else 0 for name in ours}
    missing = [name for name, size in ours.items() if sizes[name] < (size if name in ADDED_TO else 1)]
    if missing:
        progress.say(f"The job's log, which {machine.name} has lost, goes back there")
        machine.done(["mkdir", "-p", "--", there])
        machine.put(folder, there, progress, *only(*missing))


class _Copy:
    """The copy here of a file that grows there."""

    def __init__(self, path: Path) -> None:
        self.path = self._into = path

    @property
    def offset(self) -> int:
        """Where to read on: a little before the end, to see whether it is still the same file."""
        return max(0, _size(self._into) - OVERLAP)

    def take(self, piece: Piece, offset: int) -> bool:
        """Take in what the file there has after `offset`; True if there is more to read."""
        here = logs.after(self._into, offset)
        if here != piece.data[: len(here)]:
            if self.path.name in ADDED_TO and piece.size < offset + len(here):
                return False
            # Written anew over there: from the beginning, in the next rounds; the one here stays until all has come.
            self._into = self.path.with_name(f".{self.path.name}.anew")
            self._into.unlink(missing_ok=True)
            return True
        new = piece.data[len(here) :]
        with self._into.open("ab") as stream:
            stream.write(new)
        if new and offset + len(piece.data) < piece.size:
            return True
        if self._into != self.path:
            os.replace(self._into, self.path)
            self._into = self.path
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(piece: Piece, job: Job) -> Job:
    """The record there; while it cannot be read, what is known here."""
    try:
        told = Job.model_validate_json(piece.data)
    except ValueError:
        return job
    return told if told.job_id == job.job_id else job


def _dead(job: Job, found: dict[str, Piece]) -> bool:
    """Whether the runner is seen to be gone on its own machine; False where that cannot be seen."""
    attempt = job.attempt
    host, boot = (found[name].data.decode().strip() if name in found else None for name in (HOSTNAME, BOOT_ID))
    if attempt.pid is None or host != attempt.host:
        return False
    if attempt.boot_id is not None and boot != attempt.boot_id:
        return True
    process = found.get(f"/proc/{attempt.pid}/stat")
    if process is None:
        return True
    fields = process.data.decode(errors="replace").rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return True
    return attempt.pid_started is not None and fields[19] != str(attempt.pid_started)
