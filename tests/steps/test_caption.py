"""Captions of the base and of adapters on one loaded base."""

import shutil

import pytest
import small_benchmarks
import tiny_workspace
from random_adapter import add_adapter

from opadpo.cli.layout import summary
from opadpo.errors import MissingArtefact, ModelError, UserError
from opadpo.models.adapters import adapter_digest
from opadpo.progress import SilentProgress
from opadpo.records import Caption, Prompt
from opadpo.steps import plans, speakers
from opadpo.steps.caption import caption
from opadpo.tables import read_records
from opadpo.workspace import Workspace


def run(workspace, models, **options):
    return caption(workspace, models, progress=SilentProgress(), **options)


def rows_of(workspace, model, prompt_set="heldout") -> list[Caption]:
    return read_records(workspace.captions(model, prompt_set), Caption)


@pytest.fixture(scope="module")
def workspace(tiny_llava_folder, tmp_path_factory):
    made = tiny_workspace.make(tmp_path_factory.mktemp("captions") / "ws", tiny_llava_folder)
    for seed, name in enumerate(("mine", "other")):
        add_adapter(made, name, seed)
    return made


@pytest.fixture(scope="module")
def captioned(workspace):
    result = run(workspace, ["base", "mine", "base", "other"])
    return workspace, result


@pytest.mark.slow
def test_each_model_has_captions_of_the_heldout_prompts(captioned):
    workspace, result = captioned
    assert result.status == "done"
    assert result.counts == {"models": 3, "captions": 18, "reused": 0}
    heldout = [p.prompt_id for p in read_records(workspace.prompts / "prompts.parquet", Prompt) if p.split == "heldout"]
    texts = {}
    for model in ("base", "mine", "other"):
        rows = rows_of(workspace, model)
        assert [row.prompt_id for row in rows] == heldout
        assert {row.prompt_set for row in rows} == {"heldout"}
        assert {row.adapter for row in rows} == {model}
        expected = "" if model == "base" else adapter_digest(workspace.adapter(model))
        assert {row.adapter_hash for row in rows} == {expected}
        assert rows[0].sampling.temperature == 0
        texts[model] = [row.response for row in rows]
    assert texts["base"] != texts["mine"] != texts["other"]
    assert result.outputs == [f"captions/{name}/heldout.parquet" for name in ("base", "mine", "other")]
    folder = workspace.captions("mine", "heldout").parent
    assert sorted(p.name for p in folder.iterdir()) == [".heldout.parquet.manifest.json", "heldout.parquet"]


@pytest.mark.slow
def test_a_model_s_captions_do_not_depend_on_those_before_it(captioned, tiny_llava_folder):
    """Adapters leave no trace on the shared base."""
    workspace, _ = captioned
    before = {name: rows_of(workspace, name) for name in ("base", "other")}
    for name in before:
        workspace.captions(name, "heldout").unlink()
        (workspace.captions(name, "heldout").parent / ".heldout.parquet.manifest.json").unlink()
    run(workspace, ["mine", "other", "base"])
    assert {name: rows_of(workspace, name) for name in before} == before


@pytest.mark.slow
def test_several_processes_give_the_same_captions_of_every_model(captioned, tmp_path):
    workspace, _ = captioned
    shutil.copytree(workspace.root, tmp_path / "two", ignore=shutil.ignore_patterns("captions"))
    two = Workspace.open(tmp_path / "two", ["model.processes=2"])
    assert run(two, ["base", "mine"]).counts == {"models": 2, "captions": 12, "reused": 0}
    for name in ("base", "mine"):
        assert rows_of(two, name) == rows_of(workspace, name)


def test_a_second_run_does_nothing(captioned, monkeypatch):
    workspace, _ = captioned
    monkeypatch.setattr(speakers.Speaker, "respond", None)
    result = run(workspace, ["mine", "base"])
    assert result.status == "up_to_date"
    assert result.counts["captions"] == 12


@pytest.mark.slow
@pytest.mark.parametrize(("shard_rows", "batches"), [(2, [2, 2, 2, 2]), (512, [4, 2, 2])])
def test_stopped_in_the_middle_goes_on(shard_rows, batches, captioned, tiny_llava_folder, tmp_path, monkeypatch):
    from opadpo.steps import caption as module

    monkeypatch.setattr(module, "SHARD_ROWS", shard_rows)
    again = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder)
    original, calls = speakers.Speaker.respond, []

    def respond(self, jobs, sampling):
        calls.append(len(jobs))
        if len(calls) == len(batches) - 1:
            raise KeyboardInterrupt
        return original(self, jobs, sampling)

    monkeypatch.setattr(speakers.Speaker, "respond", respond)
    with pytest.raises(KeyboardInterrupt):
        run(again, ["base"])
    result = run(again, ["base"])
    assert result.counts["reused"] == 4
    assert calls == batches
    assert rows_of(again, "base") == rows_of(captioned[0], "base")


@pytest.mark.slow
def test_a_new_adapter_of_the_same_name_is_captioned_anew(tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder)
    add_adapter(workspace, "mine", 0)
    run(workspace, ["mine"])
    before = rows_of(workspace, "mine")
    add_adapter(workspace, "mine", 7)
    result = run(workspace, ["mine"])
    assert result.counts["reused"] == 0
    assert [row.response for row in rows_of(workspace, "mine")] != [row.response for row in before]


@pytest.mark.slow
def test_sampled_captions_follow_the_seed(tiny_llava_folder, tmp_path):
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, caption={"temperature": 1.0})
    run(workspace, ["base"])
    first = rows_of(workspace, "base")
    reseeded = tiny_workspace.change_recipe(workspace, tiny_llava_folder, caption={"temperature": 1.0}, seed=5)
    assert run(reseeded, ["base"]).counts["reused"] == 0
    assert [row.response for row in rows_of(reseeded, "base")] != [row.response for row in first]


def test_a_subset_can_be_captioned(captioned):
    workspace, _ = captioned
    run(workspace, ["base"], prompt_set="train-1")
    rows = rows_of(workspace, "base", "train-1")
    assert len(rows) == 8
    assert {row.prompt_set for row in rows} == {"train-1"}


@pytest.mark.slow
def test_a_benchmark_s_set_is_made_and_captioned_with_its_own_images(tiny_llava_folder, tmp_path, monkeypatch):
    files = small_benchmarks.make(tmp_path / "published", monkeypatch)
    workspace = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, evaluate={"files": files})
    result = run(workspace, ["base"], prompt_set="pope", offline=True)
    assert result.outputs == ["benchmarks/pope", "captions/base/pope.parquet"]
    assert summary(result, tmp_path).endswith(f"next: opadpo evaluate {tmp_path} --benchmark pope"), "not the recipe's"
    rows = rows_of(workspace, "base", "pope")
    prompts = read_records(workspace.root / "benchmarks" / "pope" / "prompts.parquet", Prompt)
    assert [row.prompt_id for row in rows] == [prompt.prompt_id for prompt in prompts]
    assert {row.prompt_set for row in rows} == {"pope"}
    monkeypatch.setattr(speakers.Speaker, "respond", None)
    assert run(workspace, ["base"], prompt_set="pope").status == "up_to_date"
    again = tiny_workspace.change_recipe(
        workspace, tiny_llava_folder, evaluate={"files": files, "yes_no_instruction": "Yes or no?"}
    )
    assert again.state(plans.benchmark_set(again, "pope")) == "stale"


@pytest.mark.slow
def test_several_processes_caption_a_benchmark_s_set(tiny_llava_folder, tmp_path, monkeypatch):
    files = small_benchmarks.make(tmp_path / "published", monkeypatch)
    one, two = (
        tiny_workspace.make(tmp_path / name, tiny_llava_folder, evaluate={"files": files}) for name in ("one", "two")
    )
    run(one, ["base"], prompt_set="amber")
    run(Workspace.open(two.root, ["model.processes=2"]), ["base"], prompt_set="amber")
    assert rows_of(two, "base", "amber") == rows_of(one, "base", "amber")


class TestBadInput:
    """Nothing is made if one of the models cannot be used."""

    def refused(self, workspace, models, error, message, **options):
        before = sorted(workspace.root.rglob("*.parquet"))
        with pytest.raises(error, match=message) as caught:
            run(workspace, models, **options)
        assert caught.value.exit_status == 2
        assert sorted(workspace.root.rglob("*.parquet")) == before

    @pytest.fixture(scope="class")
    def fresh(self, tiny_llava_folder, tmp_path_factory):
        return tiny_workspace.make(tmp_path_factory.mktemp("captions") / "ws", tiny_llava_folder)

    @pytest.mark.parametrize(
        ("model", "command"),
        [("opa", r"train opa \S+`"), ("dpo", r"train opadpo \S+ --name dpo`"), ("x", r"train opadpo \S+ --name x`")],
    )
    def test_missing_adapter(self, fresh, model, command):
        self.refused(fresh, ["base", model], MissingArtefact, rf"adapters/{model} is not there(.|\n)*{command}")

    def test_bad_name(self, fresh):
        self.refused(fresh, ["../x"], UserError, "not allowed")

    def test_no_model(self, fresh):
        self.refused(fresh, [], UserError, "No model")

    def test_unknown_set(self, fresh):
        self.refused(fresh, ["base"], UserError, r"seen: nothing(.|\n)*heldout, train", prompt_set="nothing")

    def test_adapter_of_another_base(self, fresh):
        import json

        add_adapter(fresh, "strange", 0)
        path = fresh.adapter("strange") / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "0" * 12}))
        self.refused(fresh, ["base", "strange"], ModelError, "another base model")
