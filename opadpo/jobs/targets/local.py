"""Jobs on this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from opadpo.checks import Check
from opadpo.errors import StepFailed
from opadpo.files import atomic_write
from opadpo.jobs import logs
from opadpo.jobs.devices import gpus_here
from opadpo.jobs.folder import CANCEL_FILE, LOG_FILE, RUNNER_LOG_FILE, read_job, wish_to_stop
from opadpo.jobs.identity import alive
from opadpo.jobs.record import REFUSED, START_SECONDS, Job, Resources, observe
from opadpo.jobs.targets.base import Target
from opadpo.progress import Progress

CHECK_SECONDS = 300.0


class LocalTarget(Target):
    """This machine: the runner is a process of its own here, and the folder is the one it works in."""

    def check(self, recipe: Path | None) -> list[Check]:
        """What `opadpo doctor` says in the interpreter that jobs use, and which GPUs they may have."""
        words = ["-m", "opadpo", "doctor", "--json", "--workspace", str(self.workspace.root)]
        words += ["--recipe", str(recipe)] if recipe else []
        try:
            done = subprocess.run(self._command(words), capture_output=True, text=True, timeout=CHECK_SECONDS)
            checks = [Check(**row) for row in json.loads(done.stdout)["checks"]]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            remedy = f"correct jobs.targets.{self.name}.python and .setup"
            return [Check("interpreter", "missing", f"{self._python}: {error}", "no job runs", remedy, required=True)]
        here = ", ".join(map(str, gpus_here())) or "none: jobs run on the CPU"
        return [*checks, Check("GPUs of jobs", "ok", here)]

    def problems(self, resources: Resources) -> list[str]:
        """GPUs that this machine does not have."""
        wanted, here = resources.gpus, gpus_here()
        shown = f"this machine has {', '.join(map(str, here))}" if here else "this machine has none"
        if isinstance(wanted, list) and (missing := [index for index in wanted if index not in here]):
            return [f"gpus: seen {', '.join(map(str, missing))}; {shown}: name those, or 0 for the CPU"]
        if isinstance(wanted, int) and wanted > len(here):
            return [f"gpus: seen {wanted}; {shown}: ask for fewer, or 0 for the CPU"]
        return []

    def submit(self, job: Job, folder: Path, progress: Progress) -> Job:
        """Start the runner; it has left this process's session when this returns.

        Raises:
            StepFailed: if it did not start.
        """
        command = self._command(["-m", "opadpo.jobs.runner", str(folder)])
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                timeout=START_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._not_started(str(error), folder) from error
        if done.returncode != 0:
            # A runner that has a reason of its own tells it with its remedy.
            told = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            if done.returncode == REFUSED:
                raise StepFailed("The job's runner did not start", seen=told)
            raise self._not_started(told, folder)
        return read_job(folder)

    def status(self, job: Job, folder: Path) -> Job:
        """What the folder says."""
        return observe(read_job(folder), folder)

    def logs(self, job: Job, folder: Path, offset: int) -> bytes:
        """From the file."""
        return logs.after(folder / LOG_FILE, offset)

    def cancel(self, job: Job, folder: Path, by: str) -> None:
        """Leave a note in the folder, and wake the runner where it is on this machine."""
        atomic_write(folder / CANCEL_FILE, wish_to_stop(by))
        attempt = read_job(folder).attempt
        if attempt.pid is not None and alive(attempt.pid, attempt.pid_started, attempt.boot_id):
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(attempt.pid, signal.SIGTERM)

    def fetch(self, job: Job, folder: Path, progress: Progress) -> list[str]:
        """Nothing: everything is here."""
        return []

    @property
    def _python(self) -> str:
        return self.settings.python or sys.executable

    def _command(self, words: list[str]) -> list[str]:
        """The interpreter with these arguments, after the target's own lines of shell."""
        argv = [self._python, *words]
        if not self.settings.setup:
            return argv
        return ["/bin/sh", "-c", "\n".join([*self.settings.setup, 'exec "$@"']), "sh", *argv]

    def _not_started(self, seen: str, folder: Path) -> StepFailed:
        return StepFailed(
            "The job's runner did not start",
            seen=seen,
            remedy=f"see {folder / RUNNER_LOG_FILE}; check jobs.targets.{self.name}.python and .setup",
        )
