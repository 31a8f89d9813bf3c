"""What the notebooks look at, in a workspace that is not the toy world's; and a step of theirs as a real job."""

import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import IPython.display
import pytest
import small_benchmarks
import tiny_workspace
from running_jobs import made_job, started, until

from opadpo import display, plots
from opadpo.display import running
from opadpo.errors import Conflict, MissingArtefact, StepFailed, UserError
from opadpo.jobs.record import JobRequest
from opadpo.jobs.service import Jobs
from opadpo.progress import SilentProgress
from opadpo.steps import catching_up, looking
from opadpo.steps.status import status
from opadpo.workspace import Workspace

Make = Callable[..., Workspace]
PNG = b"\x89PNG"


@pytest.mark.slow
def test_what_is_missing_is_made_first_and_told_and_nothing_twice(made: Make) -> None:
    workspace, progress = made(), SilentProgress()
    with pytest.raises(UserError, match=r"no such step[\s\S]*cook"):
        catching_up.catch_up(workspace, "cook", progress=progress)
    with pytest.raises(MissingArtefact, match="opadpo build"):
        looking.examples(workspace, 1)
    assert catching_up.catch_up(workspace, "opa", progress=progress) == ["build"], (
        "revisions that are there need no expert"
    )
    assert any("datasets/opa, datasets/opadpo are not there yet: `build` runs first" in m for m in progress.messages)
    assert catching_up.catch_up(workspace, "opa", progress=progress) == []
    states = {each.artefact: each.state for each in status(workspace).artefacts}
    assert states["datasets/opadpo"] == "done"


@pytest.mark.slow
def test_what_training_sees_and_does_is_there_to_look_at(made: Make) -> None:
    workspace, progress = made(), SilentProgress()
    catching_up.catch_up(workspace, "opadpo", progress=progress)
    catching_up.run_step(workspace, "opadpo", progress=progress)

    before, after = looking.likelihoods(workspace, "opa")
    assert {name: len(values) for name, values in before.items()} == {"standard": 12, "revised": 12, "generated": 12}
    for name in ("standard", "revised"):
        assert mean(after[name]) > mean(before[name]) + 0.5, "trained on"
    measured = looking.on_policy(workspace)
    for model, found in (("base", before), ("opa", after)):
        for name, values in found.items():
            assert mean(values) == pytest.approx(measured[model][name], rel=0.1), (model, name)

    sights = looking.masked_images(workspace, count=2, epochs=2)
    for sight in sights:
        assert all(sight.clean.shape == image.shape for image in sight.masked)
        shares = [(sight.clean != image).any(-1).mean() for image in sight.masked]
        assert all(0.1 < share < 0.9 for share in shares)
        assert (sight.masked[0] != sight.masked[1]).any(), "another mask in each epoch"

    clean, masked = looking.packed_rows(workspace)
    assert [name for name, _ in clean.parts] == ["image and prompt", "standard", "revised", "generated"]
    assert [name for name, _ in masked.parts] == ["image and prompt", "standard", "revised"]
    (_, prompt), (_, first), (_, second), *_ = clean.parts
    assert clean.visible[-1, :prompt].all(), "a response sees the prompt"
    assert not clean.visible[prompt + first : prompt + first + second, prompt : prompt + first].any(), "not each other"

    lines = looking.curve(workspace, "opadpo")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    figures = [
        plots.likelihoods(before, after),
        plots.on_policy(measured),
        plots.masked_images([(each.example_id, [each.clean, *each.masked]) for each in sights], ["a", "b", "c"]),
        plots.attention([clean, masked]),
        plots.rewards(lines),
        plots.training_curves("opadpo", lines),
        plots.lengths(looking.word_counts(workspace), unit="words"),
        plots.scores(looking.scores(workspace)),
    ]
    assert all(plots.png(figure).startswith(PNG) for figure in figures)
    assert sum(looking.scores(workspace).values()) == 24
    assert {row["file"] for row in looking.adapter_files(workspace, "opa")} >= {
        "adapters/opa/adapter_model.safetensors"
    }


def test_figures_of_next_to_nothing_are_drawn_too() -> None:
    empty: dict[str, Any] = {}
    little = [
        plots.likelihoods({"standard": [-1.0]}, {}),
        plots.lengths(empty),
        plots.scores({}),
        plots.rewards([]),
        plots.training_curves("opa", []),
        plots.tradeoff([plots.Point("base", 0.0, 0.0)]),
    ]
    assert all(plots.png(figure).startswith(PNG) for figure in little)


class Page:
    """Stands for the notebook's page: the newest state of each output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[str] = []
        monkeypatch.setattr(IPython.display, "display", self.display)

    def display(self, html: Any, **_: Any) -> "Page":
        self.states.append(html.markup)
        return self

    update = display


@pytest.mark.slow
def test_a_step_as_a_job_is_followed_to_its_result(made: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))
    workspace, page = made(), Page(monkeypatch)
    catching_up.catch_up(workspace, "opa", progress=SilentProgress())
    request = JobRequest(step="opa", name="other")
    other, _ = made_job(workspace, step="opa", request=request, writes=["adapters/other"])
    result = display.run(workspace, "opa", target="local")
    (job,) = [each for each in Jobs(workspace).list() if each.job_id != other.job_id]
    assert (job.state, job.step) == ("succeeded", "opa")
    assert result.step == "train opa"
    assert result.status == "done"
    assert result.counts["updates"] == len(looking.curve(workspace, "opa"))
    assert any("it goes on without this notebook" in state for state in page.states)
    assert any('role="progressbar"' in state for state in page.states), "a bar on the way"
    assert "✓" in page.states[-1]
    assert "data:image/svg" in page.states[-1], "with its curves"
    for target in (None, "local"):  # the job then ends before it has counted anything
        assert display.run(workspace, "opa", target=target).status == "up_to_date"
    assert "✓" in page.states[-1]


@pytest.mark.slow
def test_captions_of_several_sets_are_a_job_each_and_one_result(
    tiny_llava_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))
    files = {"chair": small_benchmarks.make(tmp_path / "published", monkeypatch)["chair"]}
    evaluate = {"benchmarks": ["chair"], "files": files}
    workspace, page = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, evaluate=evaluate), Page(monkeypatch)
    result = display.run(workspace, "caption", target="local", models=["base"])
    states = {job.request.prompt_set: job.state for job in Jobs(workspace).list()}
    assert states == {"heldout": "succeeded", "chair": "succeeded"}
    assert result.status == "done"
    assert {f"captions/base/{name}.parquet" for name in states} <= set(result.outputs)
    assert result.counts["captions"] == 6 + len(small_benchmarks.COCO_IMAGES)
    assert result.counts["models"] == 1
    assert any('role="progressbar"' in state for state in page.states), "a bar on the way"
    for job in Jobs(workspace).list():
        assert f"Job {job.job_id} on local: it goes on without this notebook." in page.states[-1]
    bars = re.findall(r"✓</span> ([^<]+?) *<", page.states[-1])
    # A cell looks twice a second: what a job does in less may go unseen, but never what it did last.
    assert [bars[0], bars[-1]] == ["Captions of base", "Captions of base"]
    assert set(bars[1:-1]) <= {"Storing the images of COCO"}


def test_a_job_that_makes_less_is_not_followed(
    tiny_llava_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace, page = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder), Page(monkeypatch)
    made_job(workspace, step="opa", request=JobRequest(step="opa"), writes=["adapters/opa"])
    request = JobRequest(step="caption", models=["base"], prompt_set="heldout")
    made_job(workspace, step="caption", request=request, writes=["captions/base/heldout.parquet"])
    with pytest.raises(Conflict, match=r"captions/base/heldout.parquet[\s\S]*wait until it has ended"):
        display.run(workspace, "caption", target="local", models=["base", "opa"])
    assert not page.states


@pytest.mark.slow
def test_a_job_goes_on_when_the_cell_that_follows_it_is_interrupted(
    tiny_llava_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPADPO_RUNTIME", str(tmp_path / "line"))
    workspace, page = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder), Page(monkeypatch)
    program = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)"
    job, folder = made_job(workspace, program)
    started(workspace, job, folder)
    jobs, progress = Jobs(workspace), display.notebook_progress()

    def press(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "time", SimpleNamespace(sleep=press))
    with pytest.raises(StepFailed, match=rf"the job goes on[\s\S]*{job.job_id}[\s\S]*run the cell again"):
        display.follow(jobs, job.job_id, progress)
    assert "not followed any longer" in page.states[-1]
    assert not jobs.get(job.job_id).terminal
    (tmp_path / "go").touch()
    assert until(folder).state == "succeeded"
