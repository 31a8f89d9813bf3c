"""The process that runs a job: `python -m opadpo.jobs.runner FOLDER`, on the machine where the work is done.

It leaves the session of whoever starts it, waits for its devices, runs the commands one after another, watches them,
and writes what becomes of them into the job's folder. Nothing depends on the program that asked for the job.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from opadpo.errors import Conflict, OpadpoError, UserError, disk_errors
from opadpo.jobs import identity
from opadpo.jobs.descendants import GRACE_VARIABLE, JOB_VARIABLE, adopt_orphans, descendants, marked
from opadpo.jobs.devices import CPU, GPU, gpu, gpus_here, visible_gpus
from opadpo.jobs.folder import (
    CANCEL_FILE,
    LOG_FILE,
    RESULT_FILE,
    RUNNER_LOCK_FILE,
    RUNNER_LOG_FILE,
    STEP_PROGRESS_FILE,
    read_job,
    write_job,
)
from opadpo.jobs.keeping import Keeper
from opadpo.jobs.monitor import Monitor
from opadpo.jobs.queue import Queue, Wish, queue_folder
from opadpo.jobs.record import REFUSED, Job, State, now, one_line
from opadpo.jobs.running import Command, end_all, failure
from opadpo.jobs.webhook import tell_end

SECRETS_VARIABLE = "OPADPO_SECRETS"
"""Environment variable with the path of a file of further ones (JSON), which is read once and deleted."""
PROGRESS_VARIABLE = "OPADPO_PROGRESS"
"""Environment variable with the path to which a step writes how far it is."""

TICK_SECONDS = 0.5
PROCESSES_SECONDS = 5.0
LAST_WORD_SECONDS = 10.0
"""So long a new attempt waits for the runner of the one before, which has written how that ended and is about to go."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stop(NamedTuple):
    """Why a job is stopped before its end."""

    state: State
    reason: str


class Failed(Exception):
    """A command has failed."""

    def __init__(self, reason: str, code: int | None) -> None:
        self.reason, self.code = reason, code
        super().__init__(reason)


class Stopped(Exception):
    """The job was stopped, and nothing of it runs any more."""


class Runner:
    """Runs one attempt of a job."""

    def __init__(self, folder: Path) -> None:
        """Claim the job for this process.

        Raises:
            OpadpoError: if the folder holds no job, or there is no room to write that it runs.
        """
        self.folder = folder
        self.root = folder.parent.parent
        self._lock = _only_runner(folder)
        job = read_job(folder)
        self._secrets = _secrets()
        self.keeper = Keeper(folder, job.changed(**identity.of_this_process()))
        self._pids: list[int] = []
        self._pids_at = 0.0
        self.stop: Stop | None = None
        self._signals: list[int] = []
        self._monitor: Monitor | None = None
        self._running = False
        self._started = 0.0
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda got, _: self._signals.append(got))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        adopt_orphans()

    def claim(self) -> None:
        """Write that the job has a runner.

        Raises:
            DiskFull: if there is no room for that.
        """
        with disk_errors(self.folder):
            write_job(self.folder, self.job)
        self.keeper.tick()

    @property
    def job(self) -> Job:
        """The job as it is now."""
        return self.keeper.job

    def run(self) -> None:
        """Do the whole job, and write how it ended."""
        try:
            self._clear_earlier_attempt()
            with self._devices() as devices:
                self._begin(devices)
                try:
                    for number, command in enumerate(self.job.commands):
                        self._run_command(number, command, devices)
                finally:
                    self._watch([])
            self._end("succeeded")
        except Stopped:
            assert self.stop is not None
            self._end(self.stop.state, self.stop.reason)
        except Failed as failed:
            self._end("failed", failed.reason, failed.code)
        except Exception as error:
            traceback.print_exc()
            end_all(descendants, self.job.target_settings.grace_seconds, self._tick)
            self._end("failed", f"The runner itself failed: {error!r}; {self.folder / RUNNER_LOG_FILE} has more")
            raise

    # -- the way of a job ---------------------------------------------------------------------------------------

    def _clear_earlier_attempt(self) -> None:
        """End what is left of an attempt whose runner was killed: it may be saving its last checkpoint still."""
        if self.job.attempt.number > 1:
            end_all(lambda: marked(self.job.job_id), self.job.target_settings.grace_seconds, self._tick)

    @contextlib.contextmanager
    def _devices(self) -> Iterator[list[str]]:
        """Hold the job's devices; a scheduler has seen to that already."""
        if self.job.target_settings.kind == "slurm":
            yield [gpu(int(word)) for word in visible_gpus().split(",") if word.isdigit()] or [CPU]
            return
        try:
            with disk_errors(queue_folder()):
                queue = Queue.join(self.job.title, _wish(self.job))
        except UserError as error:
            raise Failed(f"{error.what}; seen: {error.seen}; {error.remedy}", None) from error
        try:
            yield self._wait_for(queue)
        finally:
            queue.leave()

    def _wait_for(self, queue: Queue) -> list[str]:
        while True:
            devices, reason = queue.try_take()
            if devices:
                return devices
            if reason != self.job.reason:
                self.keeper.set(self.job.moved("queued", reason))
            look_again = time.monotonic() + queue.pause
            while time.monotonic() < look_again:
                self._tick(TICK_SECONDS)
                if self.stop is not None:
                    raise Stopped

    def _begin(self, devices: list[str]) -> None:
        if self.stop is not None:
            raise Stopped
        self._started = time.monotonic()
        self.keeper.set(self.job.moved("running", devices=devices, started_at=now()))
        self._monitor = Monitor(self.folder, self.job, self.root / "runs")

    def _run_command(self, number: int, words: list[str], devices: list[str]) -> None:
        """Run one command to its end.

        Raises:
            Failed: if it failed.
            Stopped: if the job was stopped meanwhile.
        """
        result = self.folder / RESULT_FILE
        printed_before = result.stat().st_size if result.exists() else 0
        argv = self.job.argv(words, python=sys.executable, workspace=str(self.root), job=str(self.folder))
        (self.folder / STEP_PROGRESS_FILE).unlink(missing_ok=True)
        self.keeper.log(f"attempt {self.job.attempt.number}: {self.job.verb(number)}")
        grace = self.job.target_settings.grace_seconds
        try:
            command = Command(
                argv, env=self._environment(devices), log=self.folder / LOG_FILE, result=result, grace_seconds=grace
            )
        except OSError as error:
            raise Failed(f"The command cannot be started: {error}", None) from error
        self._running = True
        while not command.gone():
            if self.stop is not None:
                command.stop()
            self._tick(TICK_SECONDS)
        self._running = False
        code = command.code
        assert code is not None
        self.keeper.log(f"exit {code}")
        if self.stop is not None:
            self.keeper.set(self.job.changed(exit_code=code))
            raise Stopped
        if code != 0:
            raise Failed(failure(result, printed_before, code), code)

    def _end(self, state: State, reason: str | None = None, code: int | None = None) -> None:
        """Write how the job ended, and go only when that is on disk."""
        code = 0 if state == "succeeded" else code if code is not None else self.job.attempt.exit_code
        self.keeper.set(self.job.moved(state, reason, exit_code=code))
        self._signals.clear()
        while self.keeper.unwritten_since is not None and not self._signals and not self.keeper.gone:
            self._tick(TICK_SECONDS)
        self._lock.close()  # from here on the job may be resumed
        tell_end(self.job, lambda text: print(text, file=sys.stderr, flush=True), {**os.environ, **self._secrets})

    # -- what goes on all the time ------------------------------------------------------------------------------

    def _tick(self, seconds: float) -> None:
        """Wait, at most so long, and look after the job: heartbeat, record, wishes to stop."""
        select.select([self._woken], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        self.keeper.tick()
        if self.stop is None and not self.job.terminal:
            self.stop = self._asked_to_stop()
        if self._running:
            self._watch(self._processes())

    def _processes(self) -> list[int]:
        """Processes of the job, as of some seconds ago: to look for them costs more than all else that is done here."""
        at = time.monotonic()
        if at - self._pids_at >= PROCESSES_SECONDS:
            self._pids_at, self._pids = at, [process.pid for process in descendants()]
        return self._pids

    def _watch(self, pids: list[int]) -> None:
        """Let the monitor look; an alarm that is to stop the job does."""
        if self._monitor is None or self.keeper.gone:
            return
        alarm = self._monitor.tick(time.time(), pids)
        if alarm is not None and self.stop is None:
            self.stop = Stop("failed", f"Stopped by an alarm: {alarm.what} {alarm.remedy}")

    def _asked_to_stop(self) -> Stop | None:
        if self.keeper.gone:
            return Stop("lost", "Its folder was deleted or moved away")
        by = _cancelled_by(self.folder)
        if by is not None:
            return Stop("cancelled", f"Cancelled by {by}" if by else "Cancelled")
        limit = self.job.resources.time
        left = self._started + limit * 60 - time.monotonic() if limit and self._started else None
        if left is not None and left <= 0:
            return Stop("failed", _time_over(limit))
        if self._signals:
            if left is not None and left <= self.job.target_settings.grace_seconds + 120:
                return Stop("failed", _time_over(limit))
            name = signal.Signals(self._signals[0]).name
            return Stop("cancelled", f"Its runner was sent {name}: the machine shuts down, or somebody ended it")
        return None

    def _environment(self, devices: list[str]) -> dict[str, str]:
        """What the commands find in their environment."""
        ours = {
            JOB_VARIABLE: self.job.job_id,
            GRACE_VARIABLE: str(self.job.target_settings.grace_seconds),
            PROGRESS_VARIABLE: str(self.folder / STEP_PROGRESS_FILE),
            "PYTHONUNBUFFERED": "1",
        }
        if self.job.target_settings.kind != "slurm":
            indexes = [device.removeprefix(GPU) for device in devices if device.startswith(GPU)]
            # The numbers are those of the bus, as every tool but CUDA's default counts them.
            ours |= {"CUDA_VISIBLE_DEVICES": ",".join(indexes), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {**os.environ, **self._secrets, **ours}


def _wish(job: Job) -> Wish:
    """What a job wants of this machine.

    Raises:
        Failed: if the machine has fewer GPUs.
    """
    wanted = job.resources.gpus
    if isinstance(wanted, list):
        return Wish(tuple(map(gpu, wanted)), len(wanted)) if wanted else Wish((CPU,), 1)
    here = [] if wanted == 0 else gpus_here()
    count = len(here) if wanted is None else wanted
    if count > len(here):
        raise Failed(f"It wants {count} GPUs, and {identity.hostname()} has {len(here)}; ask for fewer", None)
    return Wish(tuple(map(gpu, here)), count) if here else Wish((CPU,), 1)


def _cancelled_by(folder: Path) -> str | None:
    """Who wants the job to stop; empty if that cannot be read; None if nobody does."""
    path = folder / CANCEL_FILE
    if not path.exists():
        return None
    try:
        return one_line(str(json.loads(path.read_text(encoding="utf-8"))["by"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _time_over(minutes: int | None) -> str:
    return f"Its time of {minutes} minutes was over; resume it, or give it more"


def _secrets() -> dict[str, str]:
    """Environment variables from the file that a target has left for this attempt; it is deleted."""
    path = os.environ.pop(SECRETS_VARIABLE, None)
    if path is None:
        return {}
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    os.unlink(path)
    return {str(name): str(value) for name, value in values.items()}


def _only_runner(folder: Path) -> IO[str]:
    """A lock that this process keeps as long as it lives.

    Raises:
        Conflict: if another runner has the job.
    """
    with disk_errors(folder):
        stream = (folder / RUNNER_LOCK_FILE).open("w")
    deadline = time.monotonic() + LAST_WORD_SECONDS
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        except BlockingIOError as error:
            if read_job(folder).state != "queued" or time.monotonic() >= deadline:
                raise Conflict("The job is running already", seen=folder.name, remedy="cancel it first") from error
        time.sleep(0.05)


def main(words: list[str]) -> int:
    """`FOLDER` detaches and returns as soon as the job has a runner; `--foreground FOLDER` stays until it has ended."""
    foreground = words[0] == "--foreground"
    folder = Path(words[-1]).resolve()
    if foreground:
        _report_and_run(folder, os.dup(sys.stderr.fileno()))
        return 0
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        with open(told, encoding="utf-8") as stream:
            problem = stream.read()
        os.waitpid(child, 0)
        print(problem, end="", file=sys.stderr)
        return REFUSED if problem else 0
    os.setsid()
    if os.fork():
        os._exit(0)
    _detach(folder)
    _report_and_run(folder, tell)
    return 0


def _report_and_run(folder: Path, tell: int) -> None:
    """Run the job, once whoever waits at the other end of `tell` knows that it has a runner, or why it has none."""
    try:
        runner = Runner(folder)
        runner.claim()
    except (OpadpoError, OSError) as error:
        os.write(tell, str(error).encode())
        raise SystemExit(1) from error
    os.close(tell)
    runner.run()


def _detach(folder: Path) -> None:
    """Let go of the terminal and of whoever listens to our output."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        log = os.open(folder / RUNNER_LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        log = nothing
    for number, target in enumerate((nothing, log, log)):
        os.dup2(target, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
