"""What goes to another machine and what comes back, over a real sshd: nothing that somebody made is lost."""

import json
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from remote_jobs import JobByHand, made, python
from running_jobs import PATIENCE, made_job, until_so
from ssh_server import ALIAS, SshServer

from opadpo.errors import Conflict, ModelError, OpadpoError, Unreachable, UserError
from opadpo.jobs import curves
from opadpo.jobs.folder import JOB_FILE, LOG_FILE, METRICS_FILE, read_job, write_job
from opadpo.jobs.identity import of_this_process
from opadpo.jobs.machines import PIECE_BYTES, Here, OverSsh
from opadpo.jobs.mirrored_folder import ARRIVAL_SECONDS, bring, give_back
from opadpo.jobs.record import Job, observe
from opadpo.jobs.sync import Mirror
from opadpo.jobs.targets.ssh import SshTarget
from opadpo.llm.requests import Answer, Failure
from opadpo.llm.store import RequestStore
from opadpo.manifest import Manifest
from opadpo.progress import SilentProgress
from opadpo.recipe.jobs import TargetSection
from opadpo.records import Usage
from opadpo.steps import arriving
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

QUIET = SilentProgress()
TRAINS = """
import json, pathlib, shutil, sys, time
run = pathlib.Path(sys.argv[1], "runs/opa")
kept = sorted(int(path.parent.name[11:]) for path in run.glob("checkpoint-*/complete.json"))
at = kept[-1] if kept else 0
end = at + 4 if at else 10**6
print("from", at)
run.mkdir(parents=True, exist_ok=True)
(run / "plan.json").write_text(json.dumps({"key": "a"}))
while at < end:
    time.sleep(0.1)
    at += 2
    (run / f"checkpoint-{at}").mkdir()
    (run / f"checkpoint-{at}/state").write_text(f"a {at}")
    (run / f"checkpoint-{at}/complete.json").write_text("{}")
    shutil.rmtree(run / f"checkpoint-{at - 4}", ignore_errors=True)
"""
"""A training that goes on from its newest checkpoint; the first time it has no end."""


@pytest.fixture
def workspace(tmp_path: Path, tiny_llava_folder: Path) -> Workspace:
    """One with prompts, and a space in its name."""
    return made(tmp_path / "work space", tiny_llava_folder)


@pytest.fixture
def mirror(workspace: Workspace, machine: OverSsh, tmp_path: Path) -> Mirror:
    """A mirror of it, empty; both machines see the same disk, so tests look into it directly."""
    return Mirror(workspace, machine, str(tmp_path / "the mirror"))


def far(sshd: SshServer, **fields: Any) -> TargetSection:
    """The machine as a target."""
    given = {"kind": "ssh", "host": ALIAS, "ssh_config": str(sshd.client_config), "python": sys.executable}
    return TargetSection(**{**given, "grace_seconds": 1.0, **fields})


def put_artefact(root: Path, artefact: str, text: str, hours: float = 0) -> None:
    """A finished artefact by hand, made so many hours from now."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    manifest = Manifest(
        artefact=artefact, step="train", settings={"text": text}, inputs={}, started_at=at, finished_at=at
    )
    path, single = root / artefact, bool(Path(artefact).suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    if single:
        path.write_text(text)
    else:
        path.mkdir(exist_ok=True)
        (path / "weights").write_text(text)
    name = path.with_name(f".{path.name}.manifest.json") if single else path / "manifest.json"
    name.write_text(manifest.model_dump_json())


def put_run(root: Path, name: str, plan: str, *steps: int) -> Path:
    """A run's folder with complete checkpoints."""
    run = root / "runs" / name
    (run / "reference").mkdir(parents=True, exist_ok=True)
    (run / "plan.json").write_text(json.dumps({"key": plan}))
    (run / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    for step in steps:
        (run / f"checkpoint-{step}").mkdir(exist_ok=True)
        (run / f"checkpoint-{step}/state").write_text(f"{plan} {step}")
        (run / f"checkpoint-{step}/complete.json").write_text("{}")
    return run


def checkpoints(run: Path) -> list[str]:
    """Names of the complete ones."""
    return sorted(path.parent.name for path in run.glob("checkpoint-*/complete.json"))


def test_a_run_that_was_begun_here_continues_there(mirror: Mirror) -> None:
    here, there = mirror.workspace.root, Path(mirror.root)
    put_run(here, "opa", "a", 2, 4)
    assert mirror.push_run("opa", QUIET)
    assert checkpoints(there / "runs/opa") == ["checkpoint-4"]
    assert not (there / "runs/opa/reference").exists()
    assert not mirror.push_run("opa", QUIET)
    put_run(there, "opa", "a", 6)
    put_run(here, "opa", "b", 8)
    assert not mirror.push_run("opa", QUIET)
    assert checkpoints(there / "runs/opa") == ["checkpoint-4", "checkpoint-6"]


def test_fetching_a_run_loses_none_that_is_here(mirror: Mirror) -> None:
    here, there = mirror.workspace.root, Path(mirror.root)
    assert not mirror.fetch_run("opa", QUIET)
    put_run(there, "opa", "a", 2, 4)
    assert mirror.fetch_run("opa", QUIET)
    assert checkpoints(here / "runs/opa") == ["checkpoint-2", "checkpoint-4"]
    put_run(here, "opa", "a", 6)
    assert not mirror.fetch_run("opa", QUIET)
    assert "checkpoint-6" in checkpoints(here / "runs/opa")
    put_run(there, "opa", "b", 1)
    assert mirror.fetch_run("opa", QUIET)
    assert (here / "runs/opa/checkpoint-1/state").read_text() == "b 1"
    assert "checkpoint-6" in checkpoints(here / ".before/runs/opa")
    put_run(there, "opa", "c", 1)
    assert mirror.fetch_run("opa", QUIET)
    assert (here / ".before/runs/opa/checkpoint-1/state").read_text() == "b 1"
    assert len(list((here / ".before/runs").iterdir())) == 1


def test_results_come_back_and_a_newer_one_here_is_kept(mirror: Mirror) -> None:
    here, there = mirror.workspace.root, Path(mirror.root)
    made_there = ["captions/opa/heldout.parquet", "evaluations/heldout/chair.json"]
    for artefact in made_there:
        put_artefact(there, artefact, artefact)
    assert sorted(mirror.fetch(["captions/opa", "evaluations/heldout"], QUIET)) == made_there
    assert [(here / artefact).read_text() for artefact in made_there] == made_there
    assert mirror.fetch(["captions/opa", "evaluations/heldout"], QUIET) == []
    put_artefact(there, "adapters/opa", "there")
    put_artefact(here, "adapters/opa", "here", hours=1)
    assert mirror.fetch(["adapters/opa"], QUIET) == ["adapters/opa"]
    assert (here / "adapters/opa/weights").read_text() == "there"
    assert (here / ".before/adapters/opa/weights").read_text() == "here"


def test_what_a_judge_answered_there_is_not_asked_again_here(workspace: Workspace, sshd: SshServer) -> None:
    job = JobByHand(workspace, far(sshd), ["{python}", "-m", "opadpo", "evaluate", "{workspace}"])
    target = job.target
    assert isinstance(target, SshTarget)

    def fetched() -> list[str]:
        return target.fetch(job.job, job.folder, QUIET)

    def answer(text: str) -> Answer:
        return Answer(text=text, finish_reason="stop", model="judge-1", usage=Usage(requests=1, cost_usd=0.5))

    failed = Failure(kind="rate_limit", reason="too many", retryable=True, usage=Usage(requests=1))
    assert fetched() == []
    with RequestStore.open(workspace.judge_db) as store:
        store.put([("mine", answer("mine")), ("both", answer("here")), ("failed", failed)])
    with RequestStore.open(Path(target.there.root, "judge/requests.db")) as store:
        store.put([("theirs", answer("theirs")), ("both", answer("there")), ("failed", answer("at last"))])
        store.put([("never", failed)])
        assert fetched() == ["judge/requests.db"]  # while a job there has it open
    assert fetched() == []
    with RequestStore.open(workspace.judge_db) as store:
        found = {key: store.get(key) for key in ("mine", "theirs", "both", "failed")}
        texts = {key: each.text for key, each in found.items() if isinstance(each, Answer)}
        assert texts == {"mine": "mine", "theirs": "theirs", "both": "here", "failed": "at last"}
        assert store.get("never") is None
        assert store.spent() == Usage(requests=5, cost_usd=2.0)
    assert not list((workspace.root / ".staging").glob("*judge*"))
    assert not list(Path(target.there.root, ".staging").glob("*judge*"))


def test_a_result_that_was_not_fetched_is_not_replaced(mirror: Mirror, sshd: SshServer) -> None:
    job = JobByHand(mirror.workspace, far(sshd), python(""), writes=["adapters/opa"]).submit()
    job.until_state("succeeded")
    put_artefact(Path(mirror.root), "adapters/opa", "there")
    put_artefact(mirror.workspace.root, "adapters/opa", "here")
    with pytest.raises(Conflict, match=r"jobs fetch .*" + job.job.job_id):
        mirror.push(["adapters/opa"], QUIET)
    (job.folder / "fetched").touch()
    assert mirror.push(["adapters/opa"], QUIET)


@pytest.mark.slow
def test_checkpoints_come_while_it_runs_and_are_enough_to_go_on(workspace: Workspace, sshd: SshServer) -> None:
    trains = [*python(TRAINS), "{workspace}"]
    job = JobByHand(workspace, far(sshd, checkpoints=True), trains, runs=["opa"]).submit()
    run = workspace.run("opa")
    job.until(lambda: bool(checkpoints(run)))
    assert job.job.state == "running"
    assert job.job.attempt.pid is not None
    os.kill(job.job.attempt.pid, 9)
    job.until_state("lost")
    # The machine comes back with an empty disk: what is here goes up.
    for there in (sshd.home / "opadpo-workspaces").glob("work-space-*"):
        shutil.rmtree(there)
    log = job.log
    assert "attempt 1: " in log
    assert job.target.logs(job.job, job.folder, 0) == log.encode()
    newest = max(int(name[11:]) for name in checkpoints(run))
    job.again().until_state("succeeded")
    assert job.printed == f"from 0\nfrom {newest}\n"
    assert job.log.startswith(log)
    assert "attempt 2: " in job.log
    assert job.target.logs(job.job, job.folder, 0) == job.log.encode()
    assert job.target.fetch(job.job, job.folder, QUIET) == ["runs/opa"]
    assert set(checkpoints(run)) == {f"checkpoint-{newest + more}" for more in (2, 4)}
    assert not (workspace.root / ".before").exists()


def test_a_copy_that_broke_off_goes_on(machine: OverSsh, sshd: SshServer, tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    source.mkdir()
    content = os.urandom(4_000_000)
    (source / "large").write_bytes(content)
    wrong: list[BaseException] = []

    def copy() -> None:
        try:
            machine.put(source, str(there), QUIET, "--bwlimit=400")
        except OpadpoError as error:
            wrong.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    until_so(lambda: any(path.stat().st_size > 400_000 for path in there.glob(".large*")))
    sshd.cut()
    thread.join(PATIENCE)
    assert "lost" in str(wrong[0])
    machine.put(source, str(there), QUIET)
    assert (there / "large").read_bytes() == content


def test_a_base_model_that_is_not_there_is_told_before_anything_is_copied(
    workspace: Workspace, sshd: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = JobByHand(workspace, far(sshd, folder="~/never"), python(""))
    run = OverSsh.run
    # Both machines see one disk: the folder is there unless the test says that it is not.
    monkeypatch.setattr(
        OverSsh, "run", lambda self, words, **more: run(self, ["false"] if words[0] == "test" else words, **more)
    )
    with pytest.raises(ModelError, match="not on node"):
        job.submit()
    assert not (sshd.home / "never").exists()


def test_a_shared_workspace_needs_no_copies(workspace: Workspace, sshd: SshServer) -> None:
    job = JobByHand(workspace, far(sshd, shared=True, folder="~/unused"), python("print('shared')")).submit()
    job.until_state("succeeded")
    assert job.printed.strip() == "shared"
    assert job.target.fetch(job.job, job.folder, QUIET) == []
    assert not (sshd.home / "unused").exists()


def test_a_workspace_that_has_another_path_there(workspace: Workspace, sshd: SshServer, tmp_path: Path) -> None:
    there = tmp_path / "as the node sees it"
    there.mkdir()
    subprocess.run(["mount", "--bind", workspace.root, there], check=True)
    code = "import sys, time; print(sys.argv[1]); sys.stderr.write('here\\n'); time.sleep(300)"
    try:
        shared = far(sshd, shared=str(there), folder="~/unused")
        job = JobByHand(workspace, shared, [*python(code), "{workspace}"]).submit()
        job.until(lambda: "\n" in job.printed and "here" in job.log)
        assert job.printed == f"{there}\n"
        assert job.target.logs(job.job, job.folder, 3) == job.log.encode()[3:]
        assert job.job.attempt.pid is not None
        os.kill(job.job.attempt.pid, 9)
        job.until_state("lost")
        job.again().until(lambda: job.printed.count(str(there)) == 2)
        job.cancel()
        assert job.until_state("cancelled").reason == "Cancelled by tester"
        assert job.target.fetch(job.job, job.folder, QUIET) == []
    finally:
        subprocess.run(["umount", "-l", there], check=True)
    assert not (sshd.home / "unused").exists()


def test_a_shell_that_talks_and_a_configuration_for_terminals(sshd: SshServer, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.client_config.read_text() + "    RemoteCommand echo x\n    RequestTTY force\n")
    profile = sshd.home / ".bashrc"
    profile.write_text("echo Welcome; echo to you >&2\n")
    machine = OverSsh(ALIAS, str(config))
    try:
        ended = machine.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin=b"\0in")
        assert ended == (3, b"\0in", "no\n")
        assert machine.home == str(sshd.home)
        with pytest.raises(UserError, match="prints something"):
            machine.put(tmp_path, str(tmp_path / "there"), QUIET)
    finally:
        profile.unlink()
        machine.close()


def test_what_has_come_is_not_replaced_by_less(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = made_job(workspace, "")
    there, machine = tmp_path / "over there", Here()
    shutil.copytree(folder, there)
    (there / LOG_FILE).write_text("first\nsecond\n")
    (there / METRICS_FILE).write_text("a\nb\n" * 300)
    bring(machine, str(there), folder, job)
    # The machine went down before all was on its disk, and its run went on from a checkpoint.
    (there / LOG_FILE).write_text("first\n")
    (there / METRICS_FILE).write_text("a\nc\n")
    pieces = machine.pieces

    def broken(wanted: Any, limit: int = PIECE_BYTES) -> Any:
        monkeypatch.setattr(machine, "pieces", lost)
        return pieces(wanted, limit)

    def lost(wanted: Any, limit: int = PIECE_BYTES) -> Any:
        raise Unreachable("the connection is lost")

    monkeypatch.setattr(machine, "pieces", broken)
    with pytest.raises(Unreachable):
        bring(machine, str(there), folder, job)
    assert (folder / METRICS_FILE).read_text() == "a\nb\n" * 300
    monkeypatch.undo()
    bring(machine, str(there), folder, job)
    assert (folder / METRICS_FILE).read_text() == "a\nc\n"
    assert (folder / LOG_FILE).read_text() == "first\nsecond\n"
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in there.iterdir())


def test_an_attempt_that_its_machine_does_not_know_is_lost(workspace: Workspace, tmp_path: Path) -> None:
    job, folder = made_job(workspace, "")
    there, machine = tmp_path / "over there", Here()
    shutil.copytree(folder, there)
    write_job(there, job.moved("failed", "the first attempt"))
    again = job.model_copy(update={"attempts": [*job.attempts, job.attempt.model_copy(update={"number": 2})]})
    again = again.moved("queued", "The connection broke while it was handed over")
    assert bring(machine, str(there), folder, again) == (again, False)
    again = again.model_copy(update={"state_at": again.state_at - timedelta(seconds=ARRIVAL_SECONDS + 1)})
    assert bring(machine, str(there), folder, again) == (again, True)
    write_job(there, again.changed(**of_this_process()))
    assert bring(machine, str(there), folder, again)[1] is False


def test_an_arriving_process_stands_for_the_job_until_it_has_a_runner(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = made_job(workspace, "")
    there = tmp_path / "over there"
    seen: list[Job] = []

    def adopt(*_: object) -> None:
        seen.append(read_job(there / "jobs" / job.job_id))

    monkeypatch.setattr(Workspace, "adopt", adopt)
    monkeypatch.setattr(arriving, "start_runner", lambda *_: None)
    come = arriving.Arrival(
        root=str(there), recipe=(workspace.root / "recipe.yaml").read_text(), pin=None, staged={"prompts": "x"},
        job_id=job.job_id, files={JOB_FILE: (folder / JOB_FILE).read_text()}, stale=[], start=True,
    )  # fmt: skip
    arriving.arrive(come)
    assert [one.attempt.pid for one in seen] == [os.getpid()]
    assert observe(seen[0], there / "jobs" / job.job_id).state == "queued"


def test_a_log_that_a_machine_has_lost_goes_back_there(mirror: Mirror, tmp_path: Path) -> None:
    here, there = tmp_path / "job", tmp_path / "the mirror/jobs/job"
    here.mkdir()
    for name in (LOG_FILE, METRICS_FILE):
        (here / name).write_text("first\nsecond\n")
    give_back(mirror.machine, str(there), here, QUIET)
    assert {path.name: path.read_text() for path in there.iterdir()} == {
        LOG_FILE: "first\nsecond\n",
        METRICS_FILE: "first\nsecond\n",
    }
    (there / LOG_FILE).write_text("first\n")
    (there / METRICS_FILE).write_text("forgotten\n")
    give_back(mirror.machine, str(there), here, QUIET)
    assert (there / LOG_FILE).read_text() == "first\nsecond\n"
    assert (there / METRICS_FILE).read_text() == "forgotten\n"
    (there / LOG_FILE).write_text("first\nsecond\nthird\n")
    give_back(mirror.machine, str(there), here, QUIET)
    assert (there / LOG_FILE).read_text() == "first\nsecond\nthird\n"


def test_metrics_that_come_in_are_kept_as_columns_too(workspace: Workspace, machine: OverSsh, tmp_path: Path) -> None:
    job, folder = made_job(workspace, "")
    there = tmp_path / "over there"
    shutil.copytree(folder, there)
    line = {"run": "opa", "time": 0.0, "loss": 1.0, "note": "x" * 400}
    lines = "".join(json.dumps({**line, "step": step}) + "\n" for step in range(12_000))
    assert len(lines) > curves.SAVE_BYTES
    (there / METRICS_FILE).write_text(lines)
    bring(machine, str(there), folder, job)
    assert (folder / METRICS_FILE).read_text() == lines
    assert (folder / curves.CACHE_FILE).stat().st_size > 0
