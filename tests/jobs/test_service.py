"""Asking for jobs: what is refused, what runs, what people read about it."""

import errno
import json
import os
import shlex
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_jobs import made_job, started, toy_workspace, until

from opadpo.errors import Conflict, NotFound, UserError
from opadpo.jobs import targets as targets_of_jobs
from opadpo.jobs.folder import read_job, write_job
from opadpo.jobs.identity import boot_id, hostname, started_at
from opadpo.jobs.record import Attempt, JobRequest, observe, one_line
from opadpo.jobs.requests import differences
from opadpo.jobs.service import Jobs
from opadpo.recipe import apply_overrides, load_recipe, parse_recipe, preset_names, preset_text
from opadpo.workspace import Workspace


@pytest.mark.parametrize("name", preset_names())
def test_a_presets_differences_make_its_recipe(name: str):
    old, new = parse_recipe(preset_text("toy")), parse_recipe(preset_text(name))
    changed = apply_overrides(old.model_dump(mode="json"), list(differences(old, new)))
    made = parse_recipe(json.dumps(changed))
    assert made.model_copy(update={"name": name}) == new.model_copy(update={"name": name})


def test_every_problem_is_told_at_once_each_with_its_field(workspace: Workspace):
    request = JobRequest(
        step="opadpo",
        name="../../etc",
        start="nobody; rm -rf /",
        models=["$(id)"],
        target="moon",
        preset="/etc/passwd",
        overrides=["train.opadpo.epocs=3", "jobs.webhook_env=HOME", "no sign"],
    )
    problems = Jobs(workspace).preview(request).problems
    for start in (
        "name: ",
        "start: ",
        "models: ",
        "target: ",
        "preset: ",
        "train.opadpo.epocs: ",
        "jobs.webhook_env: ",
    ):
        assert any(problem.startswith(start) for problem in problems), start
    assert any("no sign" in problem for problem in problems)
    with pytest.raises(UserError, match="The job cannot be submitted"):
        Jobs(workspace).submit(request, by="tester")
    assert Jobs(workspace).list() == []


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_refused_unless_nothing_runs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # As on a machine with two GPUs, of which this process may use one.
    monkeypatch.setattr("opadpo.jobs.devices._gpus_there", lambda: (0, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    jobs = Jobs(toy_workspace(tmp_path / "w", "model.device=cuda"))
    told = jobs.preview(JobRequest(step="prepare", gpus=[0, 7])).problems
    assert told == ["gpus: seen 0, 7; this machine has 1: name those, or 0 for the CPU"]
    assert jobs.preview(JobRequest(step="prepare", gpus=2)).problems[0].startswith("gpus: seen 2; this machine has 1")
    assert jobs.preview(JobRequest(step="prepare", gpus=[1])).problems == []
    two = JobRequest(step="prepare", gpus=1, overrides=["train.processes=2"])
    assert jobs.preview(two).problems[0].startswith("train.processes: seen 2 with 1 GPUs")
    on_cpu = Jobs(toy_workspace(tmp_path / "cpu", "jobs.targets={local: {kind: local, gpus: 7}}"))
    assert on_cpu.preview(JobRequest(step="prepare")).problems == []
    assert on_cpu.preview(JobRequest(step="prepare", gpus=0)).problems == []
    assert (
        on_cpu.preview(JobRequest(step="prepare", gpus=[7])).problems[0].startswith("gpus: the recipe's model.device")
    )


@pytest.mark.slow
def test_every_gpu_of_a_job_gets_a_process_unless_something_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("opadpo.jobs.devices._gpus_there", lambda: (0, 1, 2, 3))
    jobs = Jobs(toy_workspace(tmp_path / "w", "model.device=cuda"))
    asked = JobRequest(step="pipeline", gpus=2)
    assert jobs.preview(asked).overrides == ["train.processes=2", "model.processes=2"]
    assert jobs.preview(asked).problems == []
    assert jobs.preview(asked.model_copy(update={"steps": ["opa"], "gpus": [0, 3]})).overrides == ["train.processes=2"]
    said = asked.model_copy(update={"overrides": ["train.processes=1", "model.processes=1"]})
    assert jobs.preview(said).overrides == said.overrides
    for gpus in (None, 0, 1, [2]):
        assert jobs.preview(asked.model_copy(update={"gpus": gpus})).overrides == []


@pytest.mark.slow
def test_what_a_step_reads_must_be_there_or_come_from_another_job(workspace: Workspace):
    jobs = Jobs(workspace)
    told = jobs.preview(JobRequest(step="opadpo")).problems
    assert told == ["step: opadpo needs datasets/opadpo, which is not there yet; run build first, or a pipeline"]
    part = JobRequest(step="pipeline", steps=["rollout", "revise"])
    assert [each.split(",")[0] for each in jobs.preview(part).problems] == ["step: rollout needs prompts"]
    assert jobs.preview(JobRequest(step="pipeline")).problems == []
    job, folder = made_job(workspace, "import time; time.sleep(300)", writes=["datasets", "adapters/mine"])
    started(workspace, job, folder)
    assert jobs.preview(JobRequest(step="opadpo", start="mine")).problems == []
    jobs.cancel(job.job_id, by="tester")
    until(folder)
    assert jobs.preview(JobRequest(step="opadpo")).problems == told


def test_a_pipeline_is_every_step_in_order_under_the_chosen_name(workspace: Workspace):
    jobs = Jobs(workspace)
    request = JobRequest(step="pipeline", name="mine", overrides=["seed=3"])
    lines = [shlex.split(line) for line in jobs.preview(request).commands_text.splitlines()]
    root = str(workspace.root)
    tail = ["--set", "seed=3", "--json"]
    assert lines == [
        *(["opadpo", step, root, *tail] for step in ("prepare", "rollout", "revise", "build")),
        ["opadpo", "train", "opa", root, *tail],
        ["opadpo", "train", "opadpo", root, "--name", "mine", *tail],
        ["opadpo", "caption", root, "--model", "base,opa,mine", *tail],
        ["opadpo", "evaluate", root, *tail],
    ]


@pytest.mark.slow
def test_what_people_work_on_is_not_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(targets_of_jobs.KINDS, "ssh", "local:LocalTarget")  # nothing is asked of the machine here
    targets = "jobs.targets={node: {kind: ssh, host: node}, shared: {kind: ssh, host: node, shared: true}}"
    jobs = Jobs(toy_workspace(tmp_path / "w", targets))
    assert [(each.name, each.kind, each.default) for each in jobs.targets()] == [
        ("local", "local", True),
        ("node", "ssh", False),
        ("shared", "ssh", False),
    ]
    assert jobs.preview(JobRequest(step="revise", target="node")).problems[0].startswith("target: revise cannot run")
    text = jobs.preview(JobRequest(step="pipeline", target="node")).commands_text
    assert [line.split()[1] for line in text.splitlines()] == ["rollout", "train", "train", "caption", "evaluate"]
    assert not any("target" in each for each in jobs.preview(JobRequest(step="revise", target="shared")).problems)


@given(st.text(max_size=300))
def test_a_title_is_one_printable_line(text: str):
    shown = one_line(text)
    assert len(shown) <= 120
    assert shown.isprintable()
    assert one_line(shown) == shown


def test_hostile_text_reaches_the_command_as_it_is(workspace: Workspace):
    value = 'it\'s "a" $(touch x); `id`'
    request = JobRequest(
        step="prepare",
        title="a\n\x1b[31m'quoted'",
        overrides=[f"model.base={json.dumps(value)}", "model.revision='a\nb'"],
    )
    preview = Jobs(workspace).preview(request)
    words = shlex.split(preview.commands_text)
    assert words[2] == str(workspace.root)
    assert words[4] == f"model.base={json.dumps(value)}"
    assert preview.recipe.model.base == value
    assert request.title == "a [31m'quoted'"


@pytest.mark.slow
def test_two_jobs_do_not_write_the_same_artefact(workspace: Workspace):
    jobs = Jobs(workspace)
    job, folder = made_job(workspace, "import time; time.sleep(300)", title="slow one", writes=["prompts"])
    started(workspace, job, folder)
    with pytest.raises(Conflict, match="Another job writes prompts") as refused:
        jobs.submit(JobRequest(step="prepare"), by="tester")
    assert job.job_id in str(refused.value)
    assert "slow one" in str(refused.value)
    with pytest.raises(Conflict, match="is running"):
        jobs.resume(job.job_id, by="tester")
    assert jobs.cancel(job.job_id, by="tester").state in ("running", "cancelled")
    assert until(folder).state == "cancelled"
    assert len(jobs.list()) == 1


@pytest.mark.slow
def test_a_submitted_step_runs_with_the_recipe_of_its_submission(workspace: Workspace):
    jobs = Jobs(workspace)
    job = jobs.submit(JobRequest(step="evaluate", overrides=["seed=5"], title="t"), by="a\nb")
    folder = jobs.folder(job.job_id)
    assert job.submitted_by == "a b"
    assert load_recipe(folder / "recipe.resolved.yaml").seed == 5
    assert load_recipe(folder / "recipe.yaml").seed == 0
    ended = until(folder, seconds=60)
    # There is nothing to score yet, and that is what people are told.
    assert (ended.state, ended.attempt.exit_code) == ("failed", 2)
    assert (ended.reason or "").startswith("There are no captions to score yet")
    assert jobs.clone_request(job.job_id).overrides == ["seed=5"]
    with pytest.raises(NotFound):
        jobs.get("20200101-000000-build-abcd")
    with pytest.raises(NotFound):
        jobs.folder("../../etc")


def test_a_runner_counts_as_dead_when_its_machine_or_its_process_is_another(workspace: Workspace):
    me = {"host": hostname(), "boot_id": boot_id(), "pid": os.getpid(), "pid_started": started_at(os.getpid())}
    job, folder = made_job(workspace)
    alive = job.moved("running", **me)
    assert observe(alive, folder) == alive
    assert observe(alive.changed(pid_started=1), folder).state == "lost"
    assert observe(alive.changed(boot_id="another"), folder).state == "lost"
    elsewhere = alive.changed(host="elsewhere")
    (folder / "heartbeat").touch()
    assert observe(elsewhere, folder).state == "running"
    os.utime(folder / "heartbeat", (0, 0))
    lost = observe(elsewhere, folder)
    assert lost.state == "lost"
    assert "elsewhere has not been heard of" in (lost.reason or "")


def test_another_machines_silence_is_measured_by_the_file_servers_clock(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    job, folder = made_job(workspace)
    running = job.moved("running", host="elsewhere", pid=1)
    heartbeat = folder / "heartbeat"
    heartbeat.touch()
    clock = time.time
    for wrong in (-300, 300):  # this machine's, beside the server's
        monkeypatch.setattr(time, "time", lambda wrong=wrong: clock() + wrong)
        assert observe(running, folder).state == "running"
    os.utime(heartbeat, (0, clock() - 120))
    monkeypatch.setattr(time, "time", lambda: clock() - 300)
    assert observe(running, folder).state == "lost"
    before = sorted(folder.iterdir())

    def refused(**_: object) -> None:
        raise PermissionError(errno.EROFS, "read-only")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(time, "time", lambda: clock() + 300)
    assert observe(running, folder).state == "running"
    os.utime(heartbeat, (0, clock() - 7200))
    assert observe(running, folder).state == "lost"
    assert sorted(folder.iterdir()) == before


def test_the_list_is_newest_first_and_survives_a_damaged_record(workspace: Workspace):
    jobs = Jobs(workspace)
    job, folder = made_job(workspace)
    write_job(folder, job.moved("succeeded"))
    broken = shutil.copytree(folder, folder.with_name("20990101-000000-build-aaaa"))
    (broken / "job.json").write_text("{")
    (workspace.jobs() / "stray").mkdir()
    found = jobs.list()
    assert [each.state for each in found] == ["lost", "succeeded"]
    assert "job.json" in (found[0].reason or "")
    again = read_job(folder).model_copy(update={"attempts": [Attempt(number=1, queued_at=job.submitted_at)]})
    write_job(folder, again.moved("failed", "why"))
    assert jobs.list()[1].reason == "why"
