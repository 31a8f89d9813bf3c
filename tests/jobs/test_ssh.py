"""Jobs on another machine, over a real sshd."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_jobs import STUBBORN, JobByHand, made, python, with_targets
from running_jobs import until_so
from ssh_server import ALIAS, SshServer, bare_python, script

from opadpo.errors import DependencyMissing, DiskFull, Unreachable, UserError
from opadpo.jobs.connection_errors import explained
from opadpo.jobs.folder import read_job, write_job
from opadpo.jobs.machines import OverSsh
from opadpo.jobs.mirrored_folder import ARRIVAL_SECONDS
from opadpo.jobs.record import JobRequest
from opadpo.jobs.service import Jobs
from opadpo.progress import SilentProgress
from opadpo.recipe.jobs import TargetSection
from opadpo.steps.status import status
from opadpo.steps.train import train
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

ROLLOUT = ["{python}", "-m", "opadpo", "rollout", "{workspace}"]
HOSTILE = ["a b", "$(touch /tmp/opadpo-pwned)", "`id`", "it's", '"', "new\nline", "-rf", "--", "*", "~", "\\", "é", ";"]


@pytest.fixture
def workspace(tmp_path: Path, tiny_llava_folder: Path) -> Workspace:
    """One with prompts, and a space in its name."""
    return made(tmp_path / "work space", tiny_llava_folder)


def far(sshd: SshServer, **fields: Any) -> TargetSection:
    """The machine as a target."""
    given = {"kind": "ssh", "host": ALIAS, "ssh_config": str(sshd.client_config), "python": sys.executable}
    return TargetSection(**{**given, "grace_seconds": 1.0, **fields})


def test_arguments_arrive_as_they_are(machine: OverSsh) -> None:
    ended = machine.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *HOSTILE])
    assert ended.out.decode().strip() == repr(HOSTILE)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=3))
def test_any_argument_arrives_as_it_is(machine: OverSsh, words: list[str]) -> None:
    ended = machine.run(["printf", "%s\\0", *words]) if words else machine.run(["true"])
    assert ended.out.decode().split("\0")[:-1] == words


def test_files_of_any_name_are_written_read_and_copied(machine: OverSsh, sshd: SshServer, tmp_path: Path) -> None:
    source = tmp_path / 'it\'s $(a) "folder"'
    source.mkdir()
    for name in HOSTILE:
        (source / name.replace("/", "_")).write_text(name)
    there = f"{sshd.home}/-x $(y) 'z'"
    assert machine.put(source, there, SilentProgress()) > 0
    assert machine.put(source, there, SilentProgress()) == 0
    machine.get(there, tmp_path / "back", SilentProgress())
    assert {path.name: path.read_text() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_text() for path in source.iterdir()
    }
    machine.write(f"{there}/new\nfile", b"\0secret", mode=0o600)
    assert machine.read(f"{there}/new\nfile", 2) == b"ecret"
    assert os.stat(f"{there}/new\nfile").st_mode & 0o777 == 0o600
    assert machine.read(f"{there}/none") is None


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "a b", "a;b", "host:path", ""])
def test_a_host_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UserError):
        OverSsh(host)


def test_calls_share_one_connection(sshd: SshServer, machine: OverSsh) -> None:
    machine.run(["true"])
    before = len(sshd.connections())
    for _ in range(5):
        machine.run(["true"])
    assert subprocess.run([*machine._ssh, "-O", "check", "--", ALIAS], capture_output=True).returncode == 0
    assert len(sshd.connections()) == before


def test_each_way_not_to_get_in_has_its_own_remedy(sshd: SshServer, machine: OverSsh) -> None:
    def said() -> str:
        machine.close()
        with pytest.raises(Unreachable) as caught:
            machine.run(["true"])
        return str(caught.value)

    known, allowed = sshd.known_hosts.read_text(), (sshd.folder / "authorized_keys").read_text()
    try:
        sshd.known_hosts.write_text("")
        assert "not known here" in said()
        sshd.trust(sshd.folder / "key.pub")
        assert "another one than it was" in said()
        sshd.known_hosts.write_text(known)
        (sshd.folder / "authorized_keys").write_text("")
        assert "ssh-add" in said()
    finally:
        sshd.known_hosts.write_text(known)
        (sshd.folder / "authorized_keys").write_text(allowed)
    sshd.stop()
    try:
        assert "refuses connections" in said()
    finally:
        sshd.start()
    with pytest.raises(Unreachable, match="no machine of this name"):
        OverSsh("nowhere.invalid").run(["true"])


def test_a_job_goes_on_while_the_machine_cannot_be_reached(sshd: SshServer, workspace: Workspace) -> None:
    code = "import time\nfor n in range(60): print(n); time.sleep(0.05)"
    job = JobByHand(workspace, far(sshd), python(code)).submit()
    job.until(lambda: "0" in job.printed)
    assert sshd.cut() > 0
    assert job.look().state in ("running", "succeeded")
    sshd.stop()
    before = read_job(job.folder)
    with pytest.raises(Unreachable, match="refuses"):
        job.look()
    assert read_job(job.folder) == before
    time.sleep(0.5)
    sshd.start()
    job.until_state("succeeded")
    assert job.printed.split() == [str(number) for number in range(60)]
    assert "exit 0" in job.log
    assert job.target.logs(job.job, job.folder, 3) == job.log.encode()[3:]


def test_a_job_is_lost_when_whoever_copies_it_has_died_and_not_before(
    sshd: SshServer, workspace: Workspace, tmp_path: Path
) -> None:
    workspace = with_targets(workspace, far=far(sshd))
    tools = tmp_path / "tools"
    tools.mkdir()
    begun = tmp_path / "begun"
    script(tools / "rsync", f"touch '{begun}'", "while kill -0 $PPID; do sleep 0.1; done")  # a copy without an end
    command = [sys.executable, "-m", "opadpo", "jobs", "submit", str(workspace.root), "rollout", "--target", "far"]
    jobs = Jobs(workspace)
    with subprocess.Popen(command, env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}) as copying:
        until_so(lambda: begun.exists() or copying.poll() is not None)
        assert copying.poll() is None
        (job,) = jobs.list()
        early = job.submitted_at - timedelta(seconds=2 * ARRIVAL_SECONDS)
        write_job(jobs.folder(job.job_id), job.changed(queued_at=early).model_copy(update={"state_at": early}))
        assert jobs.refresh(job.job_id).state == "queued"
        copying.kill()
    lost = jobs.refresh(job.job_id)
    assert (lost.state, (lost.reason or "").split(",")[0]) == ("lost", "It never arrived")
    assert jobs.resume(job.job_id, by="tester").attempt.number == 2
    jobs.cancel(job.job_id, by="tester")
    until_so(lambda: jobs.refresh(job.job_id).terminal)


def test_what_ignores_being_asked_to_stop_is_killed(sshd: SshServer, workspace: Workspace) -> None:
    job = JobByHand(workspace, far(sshd), python(STUBBORN)).submit()
    job.until(lambda: "up" in job.printed)
    job.cancel()
    assert job.until_state("cancelled").reason == "Cancelled by tester"
    job.again()
    assert job.job.attempt.number == 2
    job.until(lambda: job.printed.count("up") == 2)
    job.cancel()
    job.until_state("cancelled")


def test_a_runner_that_died_is_lost_and_resumed(sshd: SshServer, workspace: Workspace) -> None:
    first = "import os, time; first = not os.path.exists('{mark}'); open('{mark}', 'w').close(); print('up')\n"
    mark = workspace.root / "mark"
    job = JobByHand(workspace, far(sshd), python(first.format(mark=mark) + "time.sleep(300 if first else 0)")).submit()
    job.until(lambda: "up" in job.printed)
    assert job.job.attempt.pid is not None
    os.kill(job.job.attempt.pid, 9)
    assert "resume" in (job.until_state("lost").reason or "")
    assert job.again().until_state("succeeded").attempt.number == 2


def test_secrets_reach_the_command_and_nothing_else(
    sshd: SshServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_TOKEN", "s3cr3t-value")
    code = "import os, hashlib; print(hashlib.sha256(os.environ['FAR_TOKEN'].encode()).hexdigest()[:8])"
    job = JobByHand(workspace, far(sshd, env=["FAR_TOKEN"]), python(code)).submit()
    job.until_state("succeeded")
    assert len(job.printed.strip()) == 8
    kept = [*job.folder.rglob("*"), *sshd.home.rglob("*")]
    assert not [path for path in kept if path.is_file() and b"s3cr3t-value" in path.read_bytes()]
    assert not list((sshd.home / ".cache/opadpo/secrets").iterdir())
    monkeypatch.delenv("FAR_TOKEN")
    with pytest.raises(UserError, match="FAR_TOKEN"):
        JobByHand(workspace, far(sshd, env=["FAR_TOKEN"]), python("")).submit()


def test_a_node_without_the_package_is_refused_before_anything_is_copied(
    sshd: SshServer, workspace: Workspace, tmp_path: Path
) -> None:
    other = script(tmp_path / "other", f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    (tmp_path / "opadpo").mkdir()
    (tmp_path / "opadpo/__init__.py").write_text('__version__ = "0.0.1"')
    cases = {
        str(bare_python(tmp_path / "bare", sys.executable)): "not installed",
        str(tmp_path / "no such python"): "No such file|not found",
        str(other): "0.0.1",
    }
    for interpreter, said in cases.items():
        shutil.rmtree(sshd.home / "opadpo-workspaces", ignore_errors=True)
        job = JobByHand(workspace, far(sshd, python=interpreter), python(""))
        with pytest.raises(DependencyMissing, match=said) as caught:
            job.submit()
        assert "install opadpo" in str(caught.value)
        assert not (sshd.home / "opadpo-workspaces").exists()
        assert any(check.required and check.state == "missing" for check in job.target.check(None))


def test_a_full_disk_there_stops_the_copy_with_a_message(sshd: SshServer, workspace: Workspace, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        with pytest.raises(DiskFull, match="free some space"):
            (workspace.prompts / "images/large").write_bytes(os.urandom(300_000))
            JobByHand(workspace, far(sshd, folder=str(small)), ROLLOUT).submit()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_disk_that_is_full_without_a_word_of_it() -> None:
    for said in ("", "rsync: [receiver] write failed: No space left on device (28)"):
        told = explained("node", 11, said, program="rsync")
        assert isinstance(told, DiskFull)
        assert "free some space there" in str(told)


def test_steps_of_people_are_refused(sshd: SshServer, workspace: Workspace) -> None:
    job = JobByHand(workspace, far(sshd), ["{python}", "-m", "opadpo", "revise", "{workspace}"])
    with pytest.raises(UserError, match="where people work"):
        job.submit()
    jobs = Jobs(with_targets(workspace, far=far(sshd)))
    preview = jobs.preview(JobRequest(step="build", target="far"))
    assert any("build" in problem for problem in preview.problems)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes with one, as the sessions over there: the last digits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_training_goes_on_there_and_counts_as_done_here(sshd: SshServer, trainable: Path, tmp_path: Path) -> None:
    workspace = with_targets(Workspace.open(shutil.copytree(trainable, tmp_path / "here")), far=far(sshd))
    train(workspace, "opa", progress=SilentProgress())
    # The same run, stopped here after its second update, and unknown there: it goes up and continues.
    run, weights = workspace.run("opa"), workspace.adapter("opa") / "adapter_model.safetensors"
    whole, metrics = weights.read_bytes(), (run / "metrics.jsonl").read_text()
    marker = run / "checkpoint-2/complete.json"
    written = marker.stat().st_mtime_ns
    shutil.rmtree(run / "checkpoint-3")
    shutil.rmtree(workspace.adapter("opa"))
    jobs = Jobs(workspace)
    job = jobs.submit(JobRequest(step="opa", target="far"), by="tester")
    until_so(lambda: jobs.refresh(job.job_id).terminal, lambda: jobs.get(job.job_id), seconds=240, every=0.5)
    job = jobs.get(job.job_id)
    log = (jobs.folder(job.job_id) / "log.txt").read_text()
    assert job.state == "succeeded", (job.reason, log)
    assert status(workspace)["adapters/opa"].state == "done"
    assert weights.read_bytes() == whole
    assert (run / "checkpoint-3/complete.json").exists()
    assert marker.stat().st_mtime_ns == written
    steps = [
        [json.loads(line)["step"] for line in text.splitlines()]
        for text in (metrics, (run / "metrics.jsonl").read_text())
    ]
    assert steps[0] == steps[1] == [1, 2, 3]
