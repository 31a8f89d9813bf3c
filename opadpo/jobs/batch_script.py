"""The script that Slurm runs for a job, and what Slurm's words mean."""

import re
import shlex
from collections.abc import Sequence

from opadpo.errors import UserError
from opadpo.jobs.record import Job

SCRIPT_FILE = "batch.sh"
OUTPUT_FILE = "slurm.out"
WARNING_SECONDS = 90
"""So long before the end of its time a job is told to save and stop."""
EXPORTED = (
    "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LD_LIBRARY_PATH", "MODULEPATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH",
    "VIRTUAL_ENV", "CONDA_PREFIX", "HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "OPADPO_RUNTIME",
)  # fmt: skip
"""What a job gets of the environment of sbatch, beside Slurm's own variables: all of it would put every key that is set
there into Slurm's records. Others come by `env` of the target."""
_VALUE = re.compile(r"[A-Za-z0-9_.,:@+/=-]+")
_MEMORY = re.compile(r"\d+[KMGT]?")

PENDING = {
    "Resources": "waits until nodes are free; fewer GPUs or nodes, or a shorter time, start sooner",
    "Priority": "waits behind jobs of higher priority",
    "Dependency": "waits for another job",
    "BeginTime": "waits for the time at which it may begin",
    "JobHeldUser": "is held; `scontrol release {id}` lets it go",
    "JobHeldAdmin": "is held by the cluster's administrators; ask them",
    "PartitionTimeLimit": "never starts: the partition {partition} does not allow {minutes} minutes; lower `time` of"
    " the target, or name another partition",
    "PartitionNodeLimit": "never starts: the partition {partition} does not give so many nodes; lower `nodes`",
    "PartitionDown": "does not start: the partition {partition} is closed; name another one, or wait",
    "PartitionInactive": "does not start: the partition {partition} is closed; name another one, or wait",
    "PartitionConfig": "never starts: the partition {partition} cannot give what it asks for; lower it",
    "BadConstraints": "never starts: no node is as it asks; lower gpus_per_node, cpus_per_task or memory",
    "ReqNodeNotAvail": "waits: nodes that it needs are reserved, drained or down",
    "QOSMaxJobsPerUserLimit": "waits: your jobs are as many as this quality of service allows",
    "AssocGrpGRES": "waits: your account uses as many GPUs as it may",
    "Licenses": "waits for a licence",
    "None": "was just taken in",
}
"""Slurm's reason for a pending job -> what follows "The job"."""
_STARTS = {
    "QOS": "waits: it is over a limit of the quality of service ({reason}); name another `qos`, or ask for less",
    "Assoc": "waits: it is over a limit of your account ({reason}); ask for less, or wait for your other jobs",
    "Invalid": "never starts: account or quality of service are wrong ({reason}); correct `account` and `qos`",
}
_ENDED = {
    "TIMEOUT": ("failed", "Its time of {minutes} minutes was over; resume it, or give it more (`time` of the target)"),
    "CANCELLED": ("cancelled", "Cancelled with Slurm's own scancel"),
    "OUT_OF_MEMORY": ("failed", "Its memory ran out; raise `memory` of the target, and resume it"),
    "NODE_FAIL": ("lost", "Its node failed; resume it"),
    "PREEMPTED": ("lost", "Slurm took its nodes for another job; resume it"),
    "BOOT_FAIL": ("lost", "Its node did not start; resume it"),
    "DEADLINE": ("failed", "Slurm ended it at its deadline"),
    "FAILED": ("failed", "Its batch script failed before the job began"),
}
"""State of a job that Slurm has ended and whose runner has left no word -> (ours, why)."""
GOING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED"})


def script(job: Job, *, python: Sequence[str], folder: str, secret: str | None) -> str:
    """The batch script of a job whose folder on the cluster is `folder`; `python` starts the interpreter.

    Raises:
        UserError: if a value of the target could mean something else in a script.
    """
    settings, minutes = job.target_settings, job.resources.time
    lines = ["#!/bin/bash -l"]
    for option, value in _options(job):
        if not _VALUE.fullmatch(value):
            raise UserError(
                f"A value of the target has characters that are not allowed: {option}",
                seen=repr(value),
                remedy=f"correct it under jobs.targets.{job.target}",
            )
        lines.append(f"#SBATCH --{option}={value}")
    if minutes is not None:
        # Half of a short time is for work.
        lines.append(f"#SBATCH --signal=B:TERM@{min(WARNING_SECONDS, minutes * 30)}")
    lines += ["#SBATCH --no-requeue", "#SBATCH --open-mode=append", f"#SBATCH --export={','.join(EXPORTED)}"]
    for extra in settings.extra:
        if not extra.startswith("-") or not extra.isprintable():
            raise UserError(
                "A further option of sbatch has to be one line and to begin with a dash",
                seen=repr(extra),
                remedy=f"correct jobs.targets.{job.target}.extra",
            )
        lines.append(f"#SBATCH {extra}")
    lines += ["", *settings.setup]
    if secret is not None:
        lines.append(f"export OPADPO_SECRETS={shlex.quote(secret)}")
    # `exec`: the signals of Slurm reach the runner itself.
    lines += [f"exec {shlex.join([*python, '-m', 'opadpo.jobs.runner', '--foreground', folder])}", ""]
    return "\n".join(lines)


def _options(job: Job) -> list[tuple[str, str]]:
    settings, resources = job.target_settings, job.resources
    gpus = settings.gpus_per_node
    if gpus is None and resources.gpus is not None:
        gpus = len(resources.gpus) if isinstance(resources.gpus, list) else resources.gpus
    if settings.memory is not None and not _MEMORY.fullmatch(settings.memory):
        raise UserError(
            "The memory of the target is no number with a unit",
            seen=repr(settings.memory),
            remedy=f"write 64G, for example, as jobs.targets.{job.target}.memory",
        )
    values: dict[str, object] = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": settings.cpus_per_task,
        "gpus-per-node": gpus or None,
        "mem": settings.memory,
        "time": resources.time,
    }
    return [(name, str(value)) for name, value in values.items() if value is not None]


def pending(job: Job, reason: str) -> str:
    """Why a job has not started, in plain words."""
    words = {
        "id": job.attempt.scheduler_id,
        "partition": job.target_settings.partition or "(the default)",
        "minutes": job.resources.time or "so many",
        "reason": reason,
    }
    reason = reason.strip("()").partition(",")[0]
    meaning = PENDING.get(reason) or next((text for start, text in _STARTS.items() if reason.startswith(start)), None)
    told = meaning.format(**words) if meaning else "waits"
    own = "" if reason == "None" else f"{reason}, "
    return f"The job {told} (Slurm: {own}job {job.attempt.scheduler_id})"


def ended(job: Job, state: str) -> tuple[str, str]:
    """(our state, why) for a job that Slurm has ended and whose runner has left no word."""
    known = _ENDED.get(state.partition(" ")[0])
    if known is None:
        return "lost", f"Slurm says {state}, and its runner left no word; resume it"
    return known[0], known[1].format(minutes=job.resources.time or "the partition's")
