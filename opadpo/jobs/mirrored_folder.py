"""A job's folder here, kept like the one on the machine where the job runs: what is appended there is appended here."""

from pathlib import Path

from opadpo.files import atomic_write
from opadpo.jobs import curves
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
from opadpo.jobs.machines import Machine, Piece, joined
from opadpo.jobs.record import Job, last_checkpoint, now

GROWING = (LOG_FILE, RESULT_FILE, METRICS_FILE, USAGE_FILE, ALARMS_FILE, RUNNER_LOG_FILE)
WHOLE = (PROGRESS_FILE,)
HOSTNAME = "/proc/sys/kernel/hostname"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
ARRIVAL_SECONDS = 300.0
"""So long after its submission the record of a job has to be there."""
OVERLAP = 256
"""Bytes before the end that are read again: if they differ, the file was written anew, and all of it is read."""


def bring(machine: Machine, there: str, folder: Path, job: Job) -> tuple[Job, bool]:
    """Bring the small files up to date; returns (the job as its runner last wrote it, whether the runner is dead).

    Raises:
        Unreachable: if the machine cannot be reached; what is here stays.
    """
    attempt = job.attempt
    metrics = _size(folder / METRICS_FILE)
    offsets = {name: max(0, _size(folder / name) - OVERLAP) for name in GROWING}
    # The process is looked at before the record: one that ends in between has written its last word by then.
    facts = {HOSTNAME: 0, BOOT_ID: 0, f"/proc/{attempt.pid or 0}/stat": 0}
    record = joined(there, JOB_FILE)
    files = {joined(there, name): offset for name, offset in {**offsets, **dict.fromkeys(WHOLE, 0)}.items()}
    while True:
        found = machine.pieces({**facts, record: 0, **files})
        more = [name for name in GROWING if _take(folder / name, found.get(joined(there, name)), offsets[name])]
        for name in WHOLE:
            if piece := found.get(joined(there, name)):
                atomic_write(folder / name, piece.data)
        if not more:
            break
        offsets = {name: max(0, _size(folder / name) - OVERLAP) for name in GROWING}
        files |= {joined(there, name): offsets[name] for name in GROWING}
    curves.refresh(folder, before=metrics)
    if record not in found:
        return job, (now() - attempt.queued_at).total_seconds() > ARRIVAL_SECONDS
    told = _read(found[record], job)
    if told.attempt.number < attempt.number:
        return job, False
    return told, not told.terminal and told.attempt.pid == attempt.pid and _dead(job, found)


def keep(folder: Path, before: Job, told: Job, dead: bool) -> Job:
    """Write the job's record here if it has changed; a job whose runner is dead is `lost`."""
    if dead:
        step = last_checkpoint(folder)
        kept = "It saved no checkpoint" if step is None else f"Its last checkpoint is that of update {step}"
        gone = f"Its runner on {before.attempt.host} was killed, or the machine restarted"
        why = gone if before.attempt.pid else "It never arrived, or its folder there was removed"
        told = told.moved("lost", f"{why}. {kept}; resume it, and it does what is missing.")
    if told != before:
        write_job(folder, told)
    return told


def _take(path: Path, piece: Piece | None, offset: int) -> bool:
    """Append what is new to the copy here; True if there is more to read."""
    if piece is None:
        return False
    size = _size(path)
    known = size - offset
    with path.open("rb") if size else path.open("w+b") as stream:
        stream.seek(offset)
        same = stream.read(known) == piece.data[:known]
    if not same:
        # Written anew over there: from the beginning, in the next round.
        path.unlink()
        return True
    new = piece.data[known:]
    if new:
        with path.open("ab") as stream:
            stream.write(new)
    return offset + len(piece.data) < piece.size and bool(new)


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
