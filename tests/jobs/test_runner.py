"""What becomes of a job's processes and of its record, with real processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from running_jobs import made_job, ran, started, until, until_file, until_so

from opadpo.jobs.descendants import JOB_VARIABLE
from opadpo.jobs.folder import RUNNER_LOCK_FILE, read_job
from opadpo.jobs.record import Job, Resources
from opadpo.jobs.service import Jobs
from opadpo.jobs.targets.local import LocalTarget
from opadpo.recipe.jobs import AlarmsSection
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

IGNORES_TERM = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
# A child in a session of its own, as torchrun makes them, that ignores it too.
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
time.sleep(0.5)
open(sys.argv[1] if len(sys.argv) > 1 else os.environ["PIDS"], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(300)
"""
WAITS = "import os, time\nwhile not os.path.exists(os.environ['GO']): time.sleep(0.05)"
FAILS = """
import json, sys
print("on the way", file=sys.stderr)
print(json.dumps({"error": {"what": "No space left", "seen": "/data", "remedy": "free some"}, "exit": 1}))
sys.exit(1)
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for which `WAITS` waits."""
    monkeypatch.setenv("GO", str(tmp_path / "go"))
    return tmp_path / "go"


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def cancelled(workspace: Workspace, job: Job, folder: Path) -> None:
    LocalTarget("local", job.target_settings, workspace).cancel(job, folder, "somebody")


@pytest.mark.parametrize("queued", [True, False])
def test_a_job_whose_folder_is_gone_ends_and_writes_nothing_there(workspace: Workspace, tmp_path: Path, queued: bool):
    before, _ = made_job(workspace, "import time; time.sleep(300)")
    job, folder = made_job(workspace, "import time; time.sleep(300)")
    if queued:
        started(workspace, before, workspace.jobs() / before.job_id)
    runner = started(workspace, job, folder).attempt.pid
    assert runner is not None
    until(folder, "queued" if queued else "running")
    moved = workspace.root.rename(tmp_path / "moved")
    until_so(lambda: gone(runner))
    assert not workspace.root.exists()
    found = Jobs(Workspace.open(moved)).get(job.job_id)
    assert (found.state, "resume it" in (found.reason or "")) == ("lost", True)


def test_an_alarm_stops_a_job_where_the_recipe_says_so(workspace: Workspace):
    line = {"step": 7, "time": 9.5, "loss": None, "not_finite": ["loss"]}
    path = workspace.root / "runs" / "x" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    program = f"import time; open({str(path)!r}, 'a').write({json.dumps(line)!r} + chr(10)); time.sleep(300)"
    stopping = AlarmsSection(stop_on=["not_finite"])
    ended, folder = ran(workspace, program, runs=["x"], alarms=stopping)
    assert (ended.state, ended.attempt.exit_code) == ("failed", -signal.SIGTERM)
    assert (ended.reason or "").startswith("Stopped by an alarm: The loss is not finite at update 7. Lower")
    told = json.loads((folder / "alarms.jsonl").read_text())
    assert (told["kind"], told["step"], told["stopped"]) == ("not_finite", 7, True)
    assert "warning: The loss is not finite" in (folder / "log.txt").read_text()


def test_commands_run_one_after_another_with_what_they_need(workspace: Workspace):
    show = "import json, os; print(json.dumps({k: os.environ[k] for k in ('OPADPO_JOB', 'CUDA_VISIBLE_DEVICES')}))"
    ended, folder = ran(workspace, show, "import sys; print('{}'); print('second', file=sys.stderr)")
    assert (ended.state, ended.reason, ended.attempt.exit_code) == ("succeeded", None, 0)
    assert ended.attempt.devices == ["cpu"]
    assert ended.attempt.started_at
    assert ended.attempt.ended_at
    first, second = (folder / "result.jsonl").read_text().splitlines()
    assert json.loads(first) == {"OPADPO_JOB": ended.job_id, "CUDA_VISIBLE_DEVICES": ""}
    assert json.loads(second) == {}
    log = (folder / "log.txt").read_text().splitlines()
    assert [line for line in log if not line.startswith("== ")] == ["second"]
    assert sum("exit 0" in line for line in log) == 2
    assert (folder / "runner.log").read_text() == ""


def test_a_failure_says_what_the_step_said_and_nothing_runs_after_it(workspace: Workspace):
    ended, folder = ran(workspace, FAILS, "print('never')")
    assert (ended.state, ended.attempt.exit_code) == ("failed", 1)
    assert ended.reason == "No space left; seen: /data; free some"
    assert "never" not in (folder / "result.jsonl").read_text()


def test_a_command_that_is_killed_is_told_as_such(workspace: Workspace):
    ended, _ = ran(workspace, "import os; os.kill(os.getpid(), 9)")
    assert (ended.state, ended.attempt.exit_code) == ("failed", -9)
    assert "memory" in (ended.reason or "")


def test_cancel_reaches_every_process_also_those_that_ignore_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    job, folder = made_job(workspace, IGNORES_TERM, grace=0.5)
    started(workspace, job, folder)
    pids = [int(word) for word in until_file(tmp_path / "pids").split()]
    assert psutil.Process(pids[0]).environ()[JOB_VARIABLE] == job.job_id
    cancelled(workspace, job, folder)
    ended = until(folder)
    assert ended.state == "cancelled"
    assert ended.reason == "Cancelled by somebody"
    assert all(gone(pid) for pid in pids)
    until_so(lambda: gone(ended.attempt.pid or 0))


def test_what_a_command_leaves_behind_is_ended_with_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    leaves = (
        "import os, subprocess, sys\n"
        "code = 'import time; time.sleep(300)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        "open(os.environ['PIDS'], 'w').write(str(child.pid))"
    )
    ended, _ = ran(workspace, leaves)
    assert ended.state == "succeeded"
    assert gone(int((tmp_path / "pids").read_text()))


def test_a_killed_runner_takes_its_work_along_and_the_job_is_lost_then_resumed(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    works = (
        "import os, time\n"
        "path = os.environ['MARK']\n"
        "again = os.path.exists(path)\n"
        "open(path, 'a').write(f'{os.getpid()} ')\n"
        "again or time.sleep(300)"
    )
    job, folder = made_job(workspace, works)
    running = started(workspace, job, folder)
    worker = int(until_file(tmp_path / "mark"))
    (folder / "progress.json").write_text(json.dumps({"checkpoint": {"run": "opa", "step": 40, "at": 0}}))
    os.kill(running.attempt.pid or 0, signal.SIGKILL)
    lost = until(folder)
    assert lost.state == "lost"
    assert "update 40" in (lost.reason or "")
    jobs = Jobs(workspace)
    assert [each.state for each in jobs.list()] == ["lost"]
    resumed = jobs.resume(job.job_id, by="tester")
    assert (resumed.attempt.number, resumed.attempt.resumed_from) == (2, 40)
    until_so(lambda: gone(worker))  # PDEATHSIG, or the next attempt, which waits until it has gone
    ended = until(folder)
    assert ended.state == "succeeded"
    assert [attempt.state for attempt in ended.attempts] == ["lost", "succeeded"]
    log = (folder / "log.txt").read_text()
    assert "attempt 1: " in log
    assert "attempt 2: " in log


def test_a_job_outlives_the_program_that_asked_for_it(workspace: Workspace, go: Path):
    _, folder = made_job(workspace, WAITS)
    code = (
        "import sys, time; from pathlib import Path; from running_jobs import started;"
        "from opadpo.jobs.folder import read_job; from opadpo.workspace import Workspace;"
        "folder = Path(sys.argv[2]); started(Workspace.open(sys.argv[1]), read_job(folder), folder); time.sleep(300)"
    )
    tests = str(Path(__file__).parents[1])
    asker = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace.root), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        start_new_session=True,
    )
    until(folder, "running")
    os.killpg(asker.pid, signal.SIGKILL)
    asker.wait()
    go.touch()
    assert until(folder).state == "succeeded"


def test_two_jobs_for_one_device_run_one_after_the_other(workspace: Workspace, go: Path):
    clock = "import time; print(time.monotonic_ns())"
    one = made_job(workspace, f"{WAITS}\n{clock}", title="the first", resources=Resources(gpus=[0]))
    two = made_job(
        workspace, f"{clock}; import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", resources=Resources(gpus=[0])
    )
    three = made_job(workspace, "pass", resources=Resources(gpus=[0]))
    beside = made_job(workspace, "pass", resources=Resources(gpus=[1]))
    started(workspace, *one)
    until(one[1], "running")
    for each in (two, three, beside):
        started(workspace, *each)
        until_so(lambda each=each: (job := read_job(each[1])).reason or job.terminal)  # it has its place in the line
    assert until(beside[1]).state == "succeeded"
    assert until(two[1], "queued").reason == "gpu-0 is used by the first"
    cancelled(workspace, *three)
    assert until(three[1]).state == "cancelled"
    go.touch()
    assert (until(one[1]).state, until(two[1]).state) == ("succeeded", "succeeded")
    (ended,), (began, device) = ((folder / "result.jsonl").read_text().split() for _, folder in (one, two))
    assert int(ended) < int(began)
    assert device == "0"


def test_a_time_limit_ends_a_job(workspace: Workspace):
    settings = Resources(gpus=0, time=1)
    job, folder = made_job(workspace, "import time; time.sleep(300)", resources=settings)
    running = started(workspace, job, folder)
    until(folder, "running")
    # So near to its end a signal without a note can only mean that its time is over.
    os.kill(running.attempt.pid or 0, signal.SIGTERM)
    ended = until(folder)
    assert ended.state == "failed"
    assert "1 minutes was over" in (ended.reason or "")


def test_a_full_disk_delays_the_record_and_does_not_end_the_job(tmp_path: Path, go: Path, workspace: Workspace):
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
    try:
        small = Workspace.create(disk / "w", (workspace.root / "recipe.yaml").read_text())
        job, folder = made_job(small, WAITS, "pass")
        running = started(small, job, folder)
        until(folder, "running")
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"x" * 4096)
        go.touch()
        time.sleep(2)
        assert psutil.pid_exists(running.attempt.pid or 0)
        (disk / "filler").unlink()
        ended = until(folder)
        assert ended.state == "succeeded"
        assert "No space left on device" in (ended.reason or "")
        until_so(lambda: gone(running.attempt.pid or 0))
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_new_attempt_waits_until_the_runner_before_it_has_gone(workspace: Workspace):
    job, folder = made_job(workspace, "pass")
    with (folder / RUNNER_LOCK_FILE).open("w") as before:
        fcntl.flock(before, fcntl.LOCK_EX)
        threading.Timer(0.7, before.close).start()
        started(workspace, job, folder)
    assert until(folder).state == "succeeded"


def test_a_second_runner_is_refused(workspace: Workspace):
    job, folder = made_job(workspace, "import time; time.sleep(300)")
    started(workspace, job, folder)
    until(folder, "running")
    again = subprocess.run(
        [sys.executable, "-m", "opadpo.jobs.runner", str(folder)], capture_output=True, text=True, check=False
    )
    assert again.returncode == 3
    assert "running already" in again.stderr
    cancelled(workspace, job, folder)
    assert until(folder).state == "cancelled"
