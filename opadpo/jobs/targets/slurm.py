"""Jobs on a Slurm cluster: sbatch on this machine, or on a login node over ssh."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opadpo.checks import Check
from opadpo.errors import DependencyMissing, StepFailed, UserError, disk_errors
from opadpo.jobs import mirrored_folder
from opadpo.jobs.batch_script import GOING, OUTPUT_FILE, SCRIPT_FILE, ended, pending, script
from opadpo.jobs.folder import CANCEL_FILE, HEARTBEAT_FILE, JOB_FILE, read_job, wish_to_stop, write_job
from opadpo.jobs.identity import age
from opadpo.jobs.machines import Here, Machine, OverSsh, joined
from opadpo.jobs.over_there import OverThere
from opadpo.jobs.record import DEAD_AFTER_SECONDS, OPADPO, SEVERAL_NODES, Job, last_checkpoint, lost
from opadpo.jobs.targets.base import Target
from opadpo.progress import Progress
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

SEVERAL_PROCESSES = ("train", "rollout", "caption")
FORGOTTEN = ""
NEVER_QUEUED = "Whoever handed it over was ended before Slurm had it"


class SlurmTarget(Target):
    """A batch script starts the same runner inside the allocation; the queue is Slurm's."""

    def __init__(self, name: str, settings: TargetSection, workspace: Workspace) -> None:
        super().__init__(name, settings, workspace)
        self.machine: Machine = OverSsh(settings.host, settings.ssh_config) if settings.host else Here()
        if not settings.host and settings.python is None:
            settings = settings.model_copy(update={"python": sys.executable})
        self.there = OverThere(name, settings, workspace, self.machine)

    def check(self, recipe: Path | None) -> list[Check]:
        """As `Target.check`, on the login node, and whether Slurm answers there."""
        asked = self.machine.run(["sh", "-c", 'sinfo --noheader --format="%P %a %l %D %G"'])
        name, seen = "slurm", asked.out.decode(errors="replace").strip().replace("\n", "; ")
        if asked.code == 0 and seen:
            found = Check(name, "ok", seen)
        else:
            remedy = "correct `host` of the target: sbatch and sinfo have to work there"
            found = Check(name, "missing", asked.err.strip()[-200:], "no job can be queued", remedy, required=True)
        return [found, *self.there.check(recipe)]

    def submit(self, job: Job, folder: Path, progress: Progress) -> Job:
        """As `Target.submit`; the job is held until its record knows the id that Slurm gave it."""
        self._require_slurm()
        self.there.require_fit()
        job = job.model_copy(update={"commands": [_on_every_node(job, command) for command in job.commands]})
        secret = self.there.write_secrets(job)
        try:
            there = self.there.folder(job)
            python = [self.machine.expanded(self.there.settings.python or "python3")]
            text = script(job, python=python, folder=there, secret=secret)
            if self.there.mirror is not None:
                self.there.arrive(self.there.stage(job, folder, progress))
            self.machine.write(joined(there, SCRIPT_FILE), text.encode())
            number = self._queue(job, there)
        except BaseException:
            self.there.forget_secrets(secret)
            raise
        job = job.changed(scheduler_id=number)
        job = job.moved("queued", pending(job, "None"))
        with disk_errors(folder):
            write_job(folder, job)
        if self.there.mirror is not None:
            self.machine.write(joined(there, JOB_FILE), job.model_dump_json(indent=2).encode())
        self.machine.done(["scontrol", "release", number])
        return job

    def _require_slurm(self) -> None:
        """Refuse a machine that cannot queue anything, before anything is copied.

        Raises:
            DependencyMissing: if sbatch is not there.
        """
        if self.machine.run(["sh", "-c", "command -v sbatch squeue scancel scontrol"]).code != 0:
            raise DependencyMissing(
                f"There is no Slurm on {self.machine.name}",
                seen="sbatch, squeue, scancel or scontrol is not on the PATH",
                remedy=f"name the cluster's login node as jobs.targets.{self.name}.host",
            )

    def _queue(self, job: Job, there: str) -> str:
        """Hand the script to Slurm, held; the id that it gets.

        Raises:
            UserError: if Slurm refuses it; the message says why.
        """
        name, output = f"opadpo-{job.job_id}", joined(there, OUTPUT_FILE).replace("%", "%%")
        # What a hand-over has left that was ended in its last moment: nobody would ever release it.
        self.machine.run(["scancel", "--state=PENDING", f"--name={name}"])
        options = ["--parsable", "--hold", f"--job-name={name}", f"--output={output}", f"--chdir={there}"]
        asked = self.machine.run(["sbatch", *options, joined(there, SCRIPT_FILE)])
        number = asked.out.decode().strip().partition(";")[0]
        if asked.code != 0 or not number.isdigit():
            raise UserError(
                "Slurm does not take the job",
                seen=asked.err.strip()[-300:] or f"exit status {asked.code}",
                remedy=f"correct partition, account, qos, time or extra under jobs.targets.{self.name}",
            )
        return number

    def status(self, job: Job, folder: Path) -> Job:
        """As `Target.status`: what the runner wrote counts; where it wrote nothing, what Slurm says."""
        found = told = self._told(job, folder)
        if told.terminal:
            return mirrored_folder.keep(folder, job, told, False) if self.there.mirror is not None else told
        if told.attempt.scheduler_id is None:
            return self._kept(folder, found, lost(told, folder, NEVER_QUEUED))
        state, reason = self._ask(told.attempt.scheduler_id)
        if state == "PENDING":
            told = self._changed(told, "queued", pending(told, reason))
        elif state not in GOING:
            # The runner may have had its last word meanwhile.
            found = told = self._told(job, folder)
            if not told.terminal:
                told = self._judged(told, folder, state)
        told = self._kept(folder, job if self.there.mirror is not None else found, told)
        self.there.bring_checkpoints(told, folder)
        return told

    def _kept(self, folder: Path, before: Job, told: Job) -> Job:
        """Write what was made of the record `before`, unless its runner, which may write here too, has changed it."""
        if told == before:
            return told
        if self.there.mirror is None and (newest := read_job(folder)) != before:
            return newest
        write_job(folder, told)
        return told

    def _told(self, job: Job, folder: Path) -> Job:
        if self.there.mirror is None:
            return read_job(folder)
        told, _ = mirrored_folder.bring(self.machine, self.there.folder(job), folder, job)
        if told.attempt.scheduler_id is None:
            return told.changed(scheduler_id=job.attempt.scheduler_id)
        return told

    def _ask(self, number: str) -> tuple[str, str]:
        """(state, reason) of a job in Slurm's words; `FORGOTTEN` if it knows the job no more."""
        command = ["squeue", "--noheader", "--states=all", "--format=%T|%r", f"--jobs={number}"]
        asked = self.machine.run(command)
        if asked.code != 0 and "Invalid job id" not in asked.err:
            raise StepFailed(f"Slurm does not answer on {self.machine.name}", seen=asked.err.strip()[-300:])
        state, _, reason = asked.out.decode().strip().partition("|")
        return state, reason

    def _changed(self, job: Job, state: Any, reason: str) -> Job:
        return job if (job.state, job.reason) == (state, reason) else job.moved(state, reason)

    def _judged(self, job: Job, folder: Path, state: str) -> Job:
        """What became of a job whose runner left no word and that Slurm has ended, or knows no more."""
        if state == FORGOTTEN:
            silent = age(folder / HEARTBEAT_FILE) if self.there.mirror is None else None
            if silent is not None and silent < DEAD_AFTER_SECONDS:
                return job
            ours, why = "lost", "Slurm knows it no more, and its runner left no word; resume it"
        else:
            ours, why = ended(job, state)
        step = last_checkpoint(folder)
        kept = "" if step is None else f". Its last checkpoint is that of update {step}"
        said = self.machine.read(joined(self.there.folder(job), OUTPUT_FILE)) or b""
        lines = said.decode(errors="replace").strip().splitlines()
        shown = f" ({OUTPUT_FILE}: {lines[-1][:200]})" if lines and ours != "cancelled" else ""
        return self._changed(job, ours, f"{why}{kept}{shown}")

    def logs(self, job: Job, folder: Path, offset: int) -> bytes:
        """As `Target.logs`."""
        return self.there.logs(job, folder, offset)

    def cancel(self, job: Job, folder: Path, by: str) -> None:
        """As `Target.cancel`: a waiting job leaves Slurm's queue, a running one saves a checkpoint first."""
        self.machine.write(joined(self.there.folder(job), CANCEL_FILE), wish_to_stop(by).encode())
        number = job.attempt.scheduler_id
        if number is None:
            return
        self.machine.run(["scancel", "--state=PENDING", number])
        if self._ask(number)[0] == "RUNNING":
            self.machine.run(["scancel", "--batch", "--signal=TERM", number])
            return
        told = self._told(job, folder)
        if not told.terminal and told.attempt.pid is None:
            write_job(folder, told.moved("cancelled", f"Cancelled by {by} before it started"))
            self._forget_secrets(job)

    def _forget_secrets(self, job: Job) -> None:
        pattern = joined(self.machine.expanded("~/.cache/opadpo/secrets"), job.job_id)
        self.machine.run(["sh", "-c", 'rm -f -- "$1"-*.json', "sh", pattern])

    def fetch(self, job: Job, folder: Path, progress: Progress) -> list[str]:
        """As `Target.fetch`."""
        return self.there.fetch(job, progress)


def _on_every_node(job: Job, command: Sequence[str]) -> list[str]:
    """A command that can work in several processes, on all nodes of the job."""
    start = len(OPADPO)
    if job.resources.nodes > 1 and tuple(command[:start]) == OPADPO and command[start] in SEVERAL_PROCESSES:
        return [*SEVERAL_NODES, *command[start:]]
    return list(command)
