"""`opadpo jobs`: a real step in the background, from asking for it to what people read about it."""

import json
import os
import signal
from pathlib import Path

import job_folders
import pytest
import trainable_workspace
from command import Run
from running_jobs import SIZES, until, until_so

from opadpo.jobs.folder import read_job, write_job
from opadpo.workspace import Workspace

STEPS = 80
"""Of a training that is killed soon after it has begun."""
SET = [word for size in SIZES for word in ("--set", size)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Path:
    """A toy workspace, and a line for devices of its own."""
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))
    assert run("init", tmp_path / "w", "--recipe", "toy", *SET).status == 0
    return tmp_path / "w"


@pytest.mark.slow
def test_a_job_from_the_command_line(run: Run, folder: Path):
    assert run("jobs", "list", folder).out == "There are no jobs.\n"
    done = run("jobs", "submit", folder, "prepare", "--set", "seed=4", "--title", "a\nb", "--follow")
    assert done.status == 0, done.err
    assert "Checking and storing images" in done.err
    listed = run("jobs", "list", folder, "--json").result["jobs"]
    assert [(job["state"], job["title"], job["overrides"]) for job in listed] == [("succeeded", "a b", ["seed=4"])]
    job = listed[0]["job_id"]
    assert json.loads((folder / "prompts" / "manifest.json").read_text())["overrides"] == ["seed=4"]
    shown = run("jobs", "show", folder, job)
    assert f"opadpo prepare {folder} --recipe {folder}/jobs/{job}/recipe.yaml --set seed=4 --json" in shown.out
    assert "exit 0" in run("jobs", "logs", folder, job).out
    assert "is succeeded" in run("jobs", "cancel", folder, job).out
    cloned = run(
        "jobs", "clone", folder, job, "--set", "prepare.heldout_size=3", "--title", "less", "--follow", "--json"
    )
    assert cloned.status == 0, cloned.err
    assert (cloned.result["state"], cloned.result["title"], cloned.result["cloned_from"]) == ("succeeded", "less", job)
    assert cloned.result["overrides"] == ["seed=4", "prepare.heldout_size=3"]
    again = run("jobs", "clone", folder, cloned.result["job_id"], "--set", "seed=5", "--target", "moon")
    assert (again.status, "there is no 'moon'" in again.err) == (2, True)
    refused = run("jobs", "resume", folder, job, "--json")
    assert (refused.status, refused.result["error"]["type"]) == (2, "Conflict")
    assert run("jobs", "fetch", folder, job, "--json").result["fetched"] == []
    assert run("jobs", "list", folder, "--state", "failed,lost", "--json").result["jobs"] == []
    assert run("jobs", "show", folder, "../etc").status == 2


def test_show_tells_how_far_a_job_is_and_what_is_wrong(run: Run, folder: Path):
    workspace = Workspace.open(folder)
    job = job_folders.make(workspace, "20260105-120400-opadpo-qxwm", state="running", pid=os.getpid(), runs=["opadpo"])
    job_folders.fill(job, workspace, steps=412)
    job_folders.alarm(job)
    rows = [" ".join(line.split()) for line in run("jobs", "show", folder, job.name).out.splitlines()]
    text = " ".join(rows)
    assert "progress train opadpo: 412 of 628, 1 h 09 min left" in text
    assert "checkpoint update 400 of opadpo" in rows
    assert "alarm Chosen and rejected rewards have been falling together since update 352" in text
    assert "train.opadpo.loss.anchor_coef is 1.0" in text
    write_job(job, read_job(job).moved("failed", "The loss is not finite; lower the learning rate."))
    rows = [" ".join(line.split()) for line in run("jobs", "show", folder, job.name).out.splitlines()]
    assert "The loss is not finite; lower the learning rate." in rows
    assert "checkpoint update 400 of opadpo" in rows
    assert not [row for row in rows if row.startswith("progress")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "many"], "These are no GPUs"),
        (["--set", "train.opa.epocs=3"], "did you mean train.opa.epochs?"),
        (["--name", "a/b"], "characters that are not allowed"),
        (["--target", "moon"], "there is no 'moon' in the recipe"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(run: Run, folder: Path, words: list[str], message: str):
    refused = run("jobs", "submit", folder, "opa", *words)
    assert refused.status == 2
    assert message in refused.err
    assert not list((folder / "jobs").glob("*/job.json"))


def test_a_step_reads_another_recipe(run: Run, folder: Path, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text((folder / "recipe.yaml").read_text().replace("seed: 0", "seed: 9"))
    assert run("prepare", folder, "--recipe", other).status == 0
    assert "seed: 9" in (folder / "prompts" / "recipe.resolved.yaml").read_text()
    assert run("prepare", folder, "--recipe", tmp_path / "none.yaml").status == 2


@pytest.mark.slow
def test_training_in_the_background_is_lost_found_and_resumed_from_its_checkpoint(
    run: Run, tmp_path: Path, tiny_llava_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))
    workspace = trainable_workspace.make(tmp_path / "w", tiny_llava_folder)
    folder, trained = workspace.root, workspace.run("opa")
    long = ["--set", "train.opa.epochs=400", "--set", f"train.opa.max_steps={STEPS}"]
    begun = run("jobs", "submit", folder, "pipeline", "--steps", "build,opa", *long, "--json")
    assert begun.status == 0, begun.err
    job = folder / "jobs" / begun.result["job_id"]
    until_so(lambda: list(trained.glob("checkpoint-*/complete.json")), lambda: (job / "log.txt").read_text())
    os.kill(begun.result["attempts"][0]["pid"], signal.SIGKILL)
    assert until(job).state == "lost"
    first = (trained / "metrics.jsonl").read_text().splitlines()[0]
    again = run("jobs", "resume", folder, job.name, "--follow", "--json")
    assert again.status == 0, again.err
    assert [attempt["state"] for attempt in again.result["attempts"]] == ["lost", "succeeded"]
    results = [json.loads(line) for line in (job / "result.jsonl").read_text().splitlines()]
    assert results[0]["status"] == "done"
    assert [each["status"] for each in results[-2:]] == ["up_to_date", "done"]
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == first  # with the time at which it was written
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    assert (workspace.adapter("opa") / "adapter_model.safetensors").is_file()
