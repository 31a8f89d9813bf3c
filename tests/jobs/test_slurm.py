"""Jobs on a real Slurm of two nodes, one with a fake GPU: sbatch on this machine, and over ssh."""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from remote_jobs import STUBBORN, JobByHand, made, python, with_targets
from running_jobs import until_so
from slurm_cluster import NODES, SlurmCluster
from ssh_server import ALIAS, bare_python, environment, running

from opadpo.errors import DependencyMissing, UserError
from opadpo.jobs.batch_script import pending
from opadpo.jobs.descendants import marked
from opadpo.jobs.folder import read_job, write_job
from opadpo.jobs.record import Job, JobRequest, Resources
from opadpo.jobs.service import Jobs
from opadpo.jobs.several_nodes import command
from opadpo.jobs.targets.slurm import SlurmTarget
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

SAY = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"


@pytest.fixture
def workspace(tmp_path: Path, tiny_llava_folder: Path) -> Workspace:
    """One with prompts, and a space in its name."""
    return made(tmp_path / "work space", tiny_llava_folder)


@pytest.fixture(autouse=True)
def here(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine as the cluster's login node, with a home folder of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {**cluster.environment, "HOME": str(home), "OPADPO_RUNTIME": str(home / "queue")}.items():
        monkeypatch.setenv(name, value)


def batch(**fields: Any) -> TargetSection:
    """The cluster as a target."""
    return TargetSection(**{"kind": "slurm", "gpus_per_node": 1, "grace_seconds": 1.0, **fields})


@pytest.fixture(scope="module", autouse=True)
def overlong(cluster: SlurmCluster, tiny_llava_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> JobByHand:
    """A job that takes longer than its minute. Slurm looks for such ones twice a minute: other tests need not wait."""
    place = tmp_path_factory.mktemp("overlong")
    code = (
        f"import os, time; first = not os.path.exists('{place}/mark'); open('{place}/mark', 'w').close()\n"
        "if first: print('up'); time.sleep(600)"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.environment, "HOME": str(place), "OPADPO_RUNTIME": str(place)}.items():
            patch.setenv(name, value)
        settings = batch(partition="short", time=1, gpus_per_node=None)
        return JobByHand(made(place / "w", tiny_llava_folder), settings, python(code)).submit()


def nodes(job_id: str) -> set[str]:
    """Names of the nodes on which processes of a job run."""
    found = set()
    for process in marked(job_id):
        with suppress(psutil.Error):  # it may end while we look
            found.add(process.environ().get("SLURMD_NODENAME", ""))
    return found


def test_two_jobs_take_turns_on_one_gpu(workspace: Workspace, tmp_path: Path) -> None:
    go = tmp_path / "go"
    waits = f"{SAY}; import time\nwhile not os.path.exists('{go}'): time.sleep(0.05)"
    first = JobByHand(workspace, batch(), python(waits)).submit()
    second = JobByHand(workspace, batch(), python(SAY)).submit()
    first.until_state("running")
    second.until(lambda: "waits until nodes are free" in (second.job.reason or ""))
    assert second.job.state == "queued"
    go.touch()
    assert first.until_state("succeeded").attempt.devices == ["gpu-0"]
    second.until_state("succeeded")
    assert first.printed.strip() == second.printed.strip() == "0"
    assert first.job.attempt.ended_at is not None
    assert second.job.attempt.started_at is not None
    assert first.job.attempt.ended_at < second.job.attempt.started_at


@pytest.mark.parametrize(("before", "slurm"), [("running", "RUNNING"), ("queued", "PENDING")])
def test_a_look_leaves_what_the_runner_writes_meanwhile(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, before: Any, slurm: str
) -> None:
    job = JobByHand(workspace, batch(), python(SAY))
    seen = job.job.changed(scheduler_id="7")
    write_job(job.folder, seen.moved(before))
    ended = seen.moved("failed", "its own words")

    def ask(number: str) -> tuple[str, str]:
        write_job(job.folder, ended)
        return slurm, "Priority"

    monkeypatch.setattr(job.target, "_ask", ask)
    told = job.target.status(seen, job.folder)
    assert read_job(job.folder) == ended
    assert told.state in (before, "failed")


def test_a_job_that_slurm_never_got_is_lost_and_leaves_nothing_in_the_queue(
    cluster: SlurmCluster, workspace: Workspace
) -> None:
    job = JobByHand(workspace, batch(), python(SAY))
    held = cluster.ask("sbatch", "--parsable", "--hold", f"--job-name=opadpo-{job.job.job_id}", "--wrap=true").strip()
    assert "before Slurm had it" in (job.look().reason or "")
    assert job.job.state == "lost"
    job.again().until_state("succeeded")
    assert cluster.state(held) == "CANCELLED"


def test_a_job_that_never_starts_says_why_and_leaves_the_queue(
    cluster: SlurmCluster, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAR_TOKEN", "s3cr3t-value")
    for fields, said in (
        ({"partition": "short", "time": 5}, "never starts: the partition short does not allow 5 minutes"),
        ({"partition": "closed"}, "the partition closed is closed"),
    ):
        job = JobByHand(workspace, batch(env=["FAR_TOKEN"], **fields), python(SAY)).submit()
        job.until(lambda job=job, said=said: said in (job.job.reason or ""))
        assert job.job.state == "queued"
        assert not [path for path in job.folder.iterdir() if b"s3cr3t" in path.read_bytes()]
        job.cancel()
        assert job.look().state == "cancelled"
        assert cluster.state(job.job.attempt.scheduler_id or "") == "CANCELLED"
        assert not list((tmp_path / "home/.cache/opadpo/secrets").iterdir())


def test_what_slurm_does_not_take_is_told_at_once(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="partition"):
        JobByHand(workspace, batch(partition="none"), python(SAY)).submit()
    for fields in (
        {"account": "x\n#SBATCH --y"},
        {"memory": "1G; id"},
        {"extra": ["--comment=a\nid"]},
        {"extra": ["id"]},
    ):
        with pytest.raises(UserError, match=r"jobs\.targets\.far"):
            JobByHand(workspace, batch(**fields), python(SAY)).submit()


def test_a_job_whose_time_is_over_is_ended_by_slurm_and_resumed(overlong: JobByHand) -> None:
    assert "#SBATCH --signal=B:TERM@30" in (overlong.folder / "batch.sh").read_text()
    assert "time of 1 minutes was over" in (overlong.until_state("failed", seconds=240).reason or "")
    assert overlong.printed == "up\n"
    assert overlong.again().until_state("succeeded").attempt.number == 2


def test_the_job_gets_what_it_is_given_and_no_other_key(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "s3cr3t")
    monkeypatch.setenv("FAR_TOKEN", "given")
    code = "import os; print([os.environ.get(name) for name in ('OTHER_TOKEN', 'FAR_TOKEN', 'HOME')])"
    job = JobByHand(workspace, batch(env=["FAR_TOKEN"]), python(code)).submit()
    job.until_state("succeeded")
    assert job.printed.strip() == str([None, "given", str(tmp_path / "home")])


def test_a_machine_without_slurm_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    job = JobByHand(workspace, batch(), python(SAY))
    monkeypatch.setenv("PATH", str(workspace.root))
    monkeypatch.setattr(os, "defpath", "")
    with pytest.raises(DependencyMissing):
        job.submit()


def test_cancelling_reaches_what_ignores_it(cluster: SlurmCluster, workspace: Workspace) -> None:
    job = JobByHand(workspace, batch(), python(STUBBORN)).submit()
    job.until(lambda: "up" in job.printed)
    job.cancel()
    assert job.until_state("cancelled").reason == "Cancelled by tester"
    outside = JobByHand(workspace, batch(), python(STUBBORN)).submit()
    outside.until(lambda: "up" in outside.printed)
    cluster.ask("scancel", outside.job.attempt.scheduler_id or "")
    outside.until_state("cancelled")


def test_a_runner_that_left_no_word_is_judged_by_slurm(cluster: SlurmCluster, workspace: Workspace) -> None:
    job = JobByHand(workspace, batch(), python(STUBBORN)).submit()
    job.until(lambda: "up" in job.printed)
    assert job.job.attempt.pid is not None
    os.kill(job.job.attempt.pid, 9)
    assert job.until_state("failed", "lost").reason


def test_a_login_node_over_ssh_mirrors_the_job(cluster: SlurmCluster, workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "cluster's folder"
    with running({**environment(), **cluster.environment}) as server:
        far = batch(host=ALIAS, ssh_config=str(server.client_config), python=sys.executable, folder=str(folder))
        job = JobByHand(workspace, far, python(SAY)).submit()
        job.until_state("succeeded")
        assert job.printed.strip() == "0"
        assert "exit 0" in job.log
        bare = str(bare_python(tmp_path / "bare", sys.executable))  # only Slurm is looked at here
        login = SlurmTarget("far", far.model_copy(update={"python": bare}), workspace)
        assert {check.name: check.state for check in login.check(None)}["slurm"] == "ok"
        login.machine.close()  # pyright: ignore[reportAttributeAccessIssue]
    shutil.rmtree(folder)


def test_cancelled_means_that_nothing_is_left_on_any_node(workspace: Workspace) -> None:
    # In place of a training: a leading process and another node's, which ignore every wish.
    code = f"""
import sys
from opadpo.jobs import several_nodes
tasks = 'RANK=$SLURM_PROCID exec "$0" -u -c "$1"'
words = ["srun", "--export=ALL", "-N2", "-n2", "bash", "-c", tasks, sys.executable, {STUBBORN!r}]
several_nodes.command = lambda *_: words
sys.exit(several_nodes.main([]))
"""
    both = batch(nodes=2, gpus_per_node=None, grace_seconds=4.0)
    job = JobByHand(workspace, both, python(code), resources=Resources(gpus=0, nodes=2)).submit()
    job.until(lambda: job.printed.count("up") == 2)
    assert nodes(job.job.job_id) == set(NODES)
    job.cancel()
    job.until_state("cancelled")
    assert marked(job.job.job_id) == []


@pytest.mark.timeout(600)
def test_two_nodes_train_together_are_cancelled_together_and_go_on(trainable: Path, tmp_path: Path) -> None:
    target = TargetSection(kind="slurm", nodes=2, grace_seconds=60.0)
    workspace = with_targets(Workspace.open(shutil.copytree(trainable, tmp_path / "two nodes")), both=target)
    jobs, run = Jobs(workspace), workspace.run("opa")
    long = ["train.opa.epochs=20", "train.opa.save_steps=1000"]
    job_id = jobs.submit(JobRequest(step="opa", target="both", overrides=long), by="tester").job_id
    log = jobs.folder(job_id) / "log.txt"

    def ended() -> Job:
        job = until_so(lambda: job if (job := jobs.refresh(job_id)).terminal else None, log.read_text, every=0.5)
        assert marked(job_id) == []
        return job

    until_so(lambda: (run / "metrics.jsonl").exists() or jobs.refresh(job_id).terminal, log.read_text)
    assert set(NODES) <= nodes(job_id)
    jobs.cancel(job_id, by="tester")
    assert ended().state == "cancelled", log.read_text()
    assert "attempt 1: opadpo train opa\n" in log.read_text()
    # Nothing but the wish to stop has saved one.
    (kept,) = run.glob("checkpoint-*/complete.json")
    assert len(list(kept.parent.glob("rng_state_*"))) == 2
    jobs.resume(job_id, by="tester")
    job = ended()
    assert job.state == "succeeded", (job.reason, log.read_text())
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))
    assert (workspace.adapter("opa") / "adapter_model.safetensors").exists()


def test_one_launcher_on_every_node() -> None:
    environment = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}
    words = command("/p y/python", ["train", "opa", "a b"], environment, "node1")
    assert words[:6] == [
        "srun",
        "--export=ALL",
        "--kill-on-bad-exit=1",
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
    ]
    assert words[words.index("--num_processes") + 1] == "8"
    assert words[words.index("--main_process_ip") + 1] == "node1"
    assert words[-5:] == ["-m", "opadpo", "train", "opa", "a b"]
    with pytest.raises(UserError, match="no allocation"):
        command("python", [], {}, "node1")


def test_an_unknown_reason_is_told_as_it_is(workspace: Workspace) -> None:
    job = JobByHand(workspace, batch(), python(SAY)).job.changed(scheduler_id="7")
    assert "Slurm: SomethingNew" in pending(job, "SomethingNew")
    assert "limit of your account" in pending(job, "AssocGrpCpuLimit")
    assert json.loads(job.model_dump_json())["attempts"][0]["scheduler_id"] == "7"
