"""Rollouts: complete, seeded by row, resumable after a kill, kept where they are still good."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_workspace

from opadpo.errors import Busy, DataError, MissingArtefact, UserError
from opadpo.progress import SilentProgress
from opadpo.records import Prompt, Rollout
from opadpo.steps import plans, speakers
from opadpo.steps.rollout import rollout
from opadpo.tables import read_records

KILLED = """
import os, signal, sys
from contextlib import contextmanager
from opadpo.progress import SilentProgress
from opadpo.steps.rollout import rollout
from opadpo.workspace import Workspace

class Deadly(SilentProgress):
    @contextmanager
    def task(self, description, total, *, done=0):
        class Counter:
            left = int(sys.argv[2])
            def advance(self, amount=1):
                self.left -= amount
                if self.left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        yield Counter()

rollout(Workspace.open(sys.argv[1], sys.argv[3:]), progress=Deadly())
"""


def run(workspace):
    return rollout(workspace, progress=SilentProgress())


def rows_of(workspace) -> list[Rollout]:
    return read_records(workspace.rollouts, Rollout)


@pytest.fixture(scope="module")
def finished(tiny_llava_folder, tmp_path_factory):
    """An uninterrupted run: not to be changed."""
    workspace = tiny_workspace.make(tmp_path_factory.mktemp("rollouts") / "ws", tiny_llava_folder)
    return workspace, run(workspace)


@pytest.fixture
def speaking(monkeypatch):
    """Sizes of the batches that the model was asked for."""
    sizes: list[int] = []
    original = speakers.Speaker.respond

    def respond(self, jobs, sampling):
        sizes.append(len(jobs))
        return original(self, jobs, sampling)

    monkeypatch.setattr(speakers.Speaker, "respond", respond)
    return sizes


@pytest.mark.slow
def test_every_prompt_has_its_rollout(finished):
    workspace, result = finished
    assert result.status == "done"
    assert result.counts == {"rollouts": 16, "prompts": 16, "dropped": 0, "reused": 0}
    rows = rows_of(workspace)
    prompts = read_records(workspace.prompts / "prompts.parquet", Prompt)
    assert [row.prompt_id for row in rows] == [p.prompt_id for p in prompts if p.split == "train"]
    assert [path.name for path in sorted(workspace.rollouts.glob("part-*"))] == [
        f"part-0000{n}.parquet" for n in range(4)
    ]
    assert len({row.seed for row in rows}) == len({row.rollout_id for row in rows}) == 16
    first = rows[0]
    assert first.model.startswith(str(workspace.recipe.model.base))
    assert (first.adapter, first.template, first.image_aspect) == ("base", "toy", "pad")
    assert first.sampling == workspace.recipe.rollout.sampling
    assert {row.finish_reason for row in rows} == {"stop", "length"}
    assert any("were cut at rollout.max_new_tokens" in text for text in result.warnings)


def test_a_second_run_does_nothing(finished, speaking):
    workspace, result = finished
    again = run(workspace)
    assert again.status == "up_to_date"
    assert again.counts["rollouts"] == result.counts["rollouts"]
    assert speaking == []


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(finished, tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(workspace.root), "9"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert workspace.state(plans.rollouts(workspace)) == "partial"
    assert not workspace.rollouts.exists()
    result = run(workspace)
    assert result.counts["reused"] == 5
    assert rows_of(workspace) == rows_of(finished[0])
    assert sorted(path.name for path in workspace.rollouts.iterdir()) == sorted(
        path.name for path in finished[0].rollouts.iterdir()
    )


@pytest.mark.slow
def test_several_processes_killed_and_resumed_by_one_give_the_same_rollouts(finished, tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder)
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(workspace.root), "9", "model.processes=2"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    left = len(list(workspace.root.glob(".staging/rollouts.*/part-*.parquet")))
    assert 1 <= left < 4
    result = run(workspace)
    assert 5 <= result.counts["reused"] <= 11
    assert rows_of(workspace) == rows_of(finished[0])
    assert workspace.state(plans.rollouts(workspace)) == "done"


@pytest.mark.slow
def test_another_batch_size_gives_the_same_rollouts(finished, tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, rollout={"batch_size": 7, "shard_rows": 100})
    run(workspace)
    assert rows_of(workspace) == rows_of(finished[0])


@pytest.mark.slow
def test_a_damaged_shard_is_made_again(finished, tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder)
    with workspace.writing(plans.rollouts(workspace)) as writer:
        (writer.folder / "part-00000.parquet").write_bytes(b"PAR1 half a file")
        (writer.folder / "part-00009.parquet").write_bytes(b"of another run")
    run(workspace)
    assert rows_of(workspace) == rows_of(finished[0])


@pytest.mark.slow
def test_more_samples_keep_those_that_are_there(finished, tiny_llava_folder, tmp_path, speaking):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, rollout={"subsets": ["train-0"]})
    run(workspace)
    before = rows_of(workspace)
    assert len(before) == 8
    wider = tiny_workspace.change_recipe(workspace, tiny_llava_folder, rollout={"samples_per_prompt": 2})
    assert wider.state(plans.rollouts(wider)) == "stale"
    speaking.clear()
    result = run(wider)
    assert sum(speaking) == 24
    assert result.counts == {"rollouts": 32, "prompts": 16, "dropped": 0, "reused": 8}
    after = rows_of(wider)
    assert [(row.sample_index) for row in after[:4]] == [0, 1, 0, 1]
    assert all(row in after for row in before)
    assert [row for row in after if row.sample_index == 0] == rows_of(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"rollout": {"temperature": 0.5}},
        {"image": {"aspect": "square"}},
        {"prompt": {"template": "vicuna_v1"}, "rollout": {"max_prompt_tokens": 200}},
        {"model": {"dtype": "bfloat16"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rows_made_in_another_way_are_not_kept(change, tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=4, heldout=1)
    run(workspace)
    changed = tiny_workspace.change_recipe(workspace, tiny_llava_folder, **change)
    assert run(changed).counts["reused"] == 0


def test_long_prompts_are_dropped_with_the_reason(tiny_llava_folder, tmp_path):
    import json

    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, rollout={"max_prompt_tokens": 19})
    result = run(workspace)
    lines = (workspace.rollouts / "dropped.jsonl").read_text().splitlines()
    dropped = [json.loads(line) for line in lines]
    assert len(dropped) + len(rows_of(workspace)) == 16
    assert 0 < len(dropped) < 16
    assert result.dropped == {"prompt longer than rollout.max_prompt_tokens": len(dropped)}
    assert dropped[0]["detail"].endswith("text tokens, the limit is 19")
    assert {row["prompt_id"] for row in dropped}.isdisjoint(row.prompt_id for row in rows_of(workspace))


class TestBadInput:
    """One clear message, and nothing half-written."""

    def refused(self, workspace, error, message):
        with pytest.raises(error, match=message) as caught:
            run(workspace)
        assert caught.value.exit_status == 2
        assert not workspace.rollouts.exists()

    def change(self, workspace, folder, **sections):
        return tiny_workspace.change_recipe(workspace, folder, **sections)

    @pytest.fixture
    def workspace(self, tiny_llava_folder, tmp_path):
        return tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=4, heldout=1)

    def test_nothing_prepared(self, tiny_llava_folder, tmp_path):
        from opadpo.workspace import Workspace

        empty = Workspace.create(tmp_path / "ws", tiny_workspace.recipe_text(tiny_llava_folder))
        self.refused(empty, MissingArtefact, "opadpo prepare")

    def test_no_pin(self, workspace):
        (workspace.root / "base.json").unlink()
        self.refused(workspace, MissingArtefact, "base model is not pinned")

    def test_unknown_subset(self, workspace, tiny_llava_folder):
        changed = self.change(workspace, tiny_llava_folder, rollout={"subsets": ["train-0", "train-7"]})
        self.refused(changed, UserError, r"seen: train-7(.|\n)*train-0, train-1")

    def test_every_prompt_too_long(self, workspace, tiny_llava_folder):
        changed = self.change(workspace, tiny_llava_folder, rollout={"max_prompt_tokens": 3})
        self.refused(changed, DataError, "No prompt is short enough")

    def test_no_positions_left(self, workspace, tiny_llava_folder):
        changed = self.change(workspace, tiny_llava_folder, rollout={"max_new_tokens": 510})
        self.refused(changed, UserError, r"rollout.max_new_tokens leaves no room(.|\n)*512 positions")

    def test_image_gone(self, workspace):
        prompt = read_records(workspace.prompts / "prompts.parquet", Prompt)[0]
        (workspace.prompts / prompt.image_file).unlink()
        self.refused(workspace, DataError, "image cannot be read")

    def test_another_process_writes(self, workspace):
        with workspace.lock("rollouts"):
            self.refused(workspace, Busy, "Another process is writing rollouts")
