"""Figures of captions, and where they come from."""

import json

import pytest
import tiny_workspace

from opadpo import __version__
from opadpo.errors import MissingArtefact, UserError, WorkspaceError
from opadpo.evaluation.result import read_evaluation
from opadpo.progress import SilentProgress
from opadpo.records import Caption, Prompt, Sampling
from opadpo.steps import plans
from opadpo.steps.evaluate import evaluate
from opadpo.tables import read_records, write_records

HASH = "5" * 64


def run(workspace, models=None, benchmarks=None):
    return evaluate(workspace, models, benchmarks, progress=SilentProgress())


def heldout(workspace) -> list[Prompt]:
    return [p for p in read_records(workspace.prompts / "prompts.parquet", Prompt) if p.split == "heldout"]


def truthful(prompt):
    return " ".join(f"There is a {thing['noun']} at the top left." for thing in prompt.extra["truth"]["objects"])


def give_captions(workspace, model, say, prompts=None):
    """Captions that `say(prompt)` makes."""
    rows = [
        Caption(
            prompt_id=prompt.prompt_id,
            prompt_set="heldout",
            response=say(prompt),
            response_token_ids=[5, 2],
            model="tiny@1",
            adapter=model,
            adapter_hash="" if model == "base" else HASH,
            template="toy",
            image_aspect="pad",
            sampling=Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=12),
            finish_reason="stop",
        )
        for prompt in (prompts or heldout(workspace))
    ]
    with workspace.writing(plans.captions(workspace, model, "heldout")) as writer:
        write_records(writer.folder / "heldout.parquet", rows, Caption)
        writer.finish({"captions": len(rows)}, content=json.dumps([row.response for row in rows]))


@pytest.fixture
def workspace(tiny_llava_folder, tmp_path):
    made = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=2, heldout=8)
    give_captions(made, "base", lambda prompt: f"{truthful(prompt)} There is a {absent(prompt)} at the top left.")
    give_captions(made, "good", truthful)
    give_captions(made, "silent", lambda prompt: "")
    return made


def absent(prompt):
    there = {thing["noun"] for thing in prompt.extra["truth"]["objects"]}
    return next(noun for noun in ("table", "tree", "house", "boat", "lamp") if noun not in there)


def test_figures_of_every_model_with_captions(workspace):
    result = run(workspace)
    assert result.status == "done"
    assert list(result.figures) == ["base", "good", "silent"]
    objects = sum(len(p.extra["truth"]["objects"]) for p in heldout(workspace))
    base = result.figures["base"]["toy"]
    assert base == pytest.approx({"chair_i": 100 * 8 / (objects + 8), "chair_s": 100.0, "coverage": 100.0})
    assert result.figures["good"]["toy"] == {"chair_i": 0.0, "chair_s": 0.0, "coverage": 100.0}
    assert result.figures["silent"]["toy"] == {"chair_i": 0.0, "chair_s": 0.0, "coverage": 0.0}


def test_file_and_provenance(workspace):
    run(workspace, ["good"], ["toy"])
    path = workspace.evaluation("good", "toy")
    raw = json.loads(path.read_text())
    assert list(raw) == ["benchmark", "metrics", "items", "provenance"]
    found = read_evaluation(path)
    assert found.benchmark == "toy"
    assert [item["prompt_id"] for item in found.items] == [p.prompt_id for p in heldout(workspace)]
    assert found.items[0]["missed"] == []
    origin = found.provenance
    assert (origin.model, origin.base, origin.adapter_hash, origin.n) == ("good", "tiny@1", HASH, 8)
    assert origin.decoding.temperature == 0
    assert (origin.version, origin.prompt_set) == (__version__, "heldout")
    assert origin.captions == workspace.fingerprint("captions/good/heldout.parquet")
    assert not workspace.evaluation("base", "toy").exists()


def test_only_changed_captions_are_scored_again(workspace):
    run(workspace)
    stamp = workspace.evaluation("base", "toy").stat().st_mtime_ns
    assert run(workspace).status == "up_to_date"
    give_captions(workspace, "silent", truthful)
    again = run(workspace)
    assert again.counts["made"] == 1
    assert again.figures["silent"]["toy"]["coverage"] == 100.0
    assert workspace.evaluation("base", "toy").stat().st_mtime_ns == stamp


def test_stale_captions_are_scored_with_a_warning(workspace, tiny_llava_folder):
    longer = tiny_workspace.change_recipe(workspace, tiny_llava_folder, caption={"max_new_tokens": 20})
    assert any("captions of base are stale" in text for text in run(longer, ["base"]).warnings)
    assert run(workspace, ["base"]).warnings == []


class TestBadInput:
    def refused(self, workspace, error, message, *arguments):
        with pytest.raises(error, match=message) as caught:
            run(workspace, *arguments)
        assert caught.value.exit_status == 2
        assert not (workspace.root / "evaluations").exists()

    def test_no_captions_at_all(self, tiny_llava_folder, tmp_path):
        empty = tiny_workspace.make(tmp_path / "empty", tiny_llava_folder, train=1, heldout=1)
        self.refused(empty, MissingArtefact, r"no captions to score(.|\n)*opadpo caption")

    def test_a_model_without_captions(self, workspace):
        message = r"captions/opadpo/heldout.parquet is not there(.|\n)*--model opadpo"
        self.refused(workspace, MissingArtefact, message, ["good", "opadpo"])

    def test_unknown_benchmark(self, workspace):
        self.refused(workspace, UserError, r"seen: amber(.|\n)*toy", None, ["amber"])

    def test_prompts_that_are_not_of_the_toy_world(self, workspace):
        file = workspace.prompts / "prompts.parquet"
        write_records(file, [row.model_copy(update={"extra": {}}) for row in read_records(file, Prompt)], Prompt)
        self.refused(workspace, UserError, "needs prompts of the toy world")

    def test_captions_of_other_prompts(self, workspace):
        file = workspace.prompts / "prompts.parquet"
        known = {row.prompt_id for row in heldout(workspace)[:3]}
        changed = [
            row if row.prompt_id in known else row.model_copy(update={"prompt_id": f"p-{number}"})
            for number, row in enumerate(read_records(file, Prompt))
        ]
        write_records(file, changed, Prompt)
        self.refused(workspace, WorkspaceError, r"not of the workspace's prompts(.|\n)*5 of 8 rows")


def test_a_damaged_evaluation_is_said(workspace):
    run(workspace, ["good"])
    path = workspace.evaluation("good", "toy")
    path.write_text("{}")
    with pytest.raises(WorkspaceError, match="damaged"):
        read_evaluation(path)
    with pytest.raises(MissingArtefact, match="no such evaluation"):
        read_evaluation(workspace.evaluation("none", "toy"))
