"""Figures of captions, and where they come from."""

import json

import pytest
import small_benchmarks
import tiny_workspace
from annotation_files import annotation_files
from given_captions import HASH, give_captions
from PIL import Image

from opadpo import __version__
from opadpo.errors import MissingArtefact, UserError, WorkspaceError
from opadpo.evaluation.result import read_evaluation
from opadpo.progress import SilentProgress
from opadpo.records import Prompt
from opadpo.steps.benchmarks import BENCHMARKS
from opadpo.steps.evaluate import difference, evaluate
from opadpo.steps.sets import make_set, prompts_of_set
from opadpo.tables import read_records, write_records


def run(workspace, models=None, benchmarks=None):
    return evaluate(workspace, models, benchmarks, progress=SilentProgress())


def heldout(workspace) -> list[Prompt]:
    return [p for p in read_records(workspace.prompts / "prompts.parquet", Prompt) if p.split == "heldout"]


def truthful(prompt):
    return " ".join(f"There is a {thing['noun']} at the top left." for thing in prompt.extra["truth"]["objects"])


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
    assert list(raw) == ["benchmark", "metrics", "intervals", "printed", "items", "provenance"]
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


@pytest.mark.slow
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
        self.refused(workspace, UserError, r"seen: nothing(.|\n)*toy", None, ["nothing"])

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

    def test_no_benchmark_is_chosen(self, workspace, tiny_llava_folder):
        none = tiny_workspace.change_recipe(workspace, tiny_llava_folder, evaluate={"benchmarks": []})
        self.refused(none, UserError, r"No benchmark is chosen(.|\n)*--benchmark")

    def test_a_prompt_that_is_answered_twice(self, workspace):
        prompts = heldout(workspace)
        give_captions(workspace, "base", truthful, [*prompts, prompts[0]])
        self.refused(workspace, WorkspaceError, r"answer prompts twice(.|\n)*1 of 9 rows")


def test_a_damaged_evaluation_is_said(workspace):
    run(workspace, ["good"])
    path = workspace.evaluation("good", "toy")
    path.write_text("{}")
    with pytest.raises(WorkspaceError, match="damaged"):
        read_evaluation(path)
    with pytest.raises(MissingArtefact, match="no such evaluation"):
        read_evaluation(workspace.evaluation("none", "toy"))


class TestPublicBenchmarks:
    """Small files in the authors' formats; the figures are worked out by hand."""

    @pytest.fixture
    def filled(self, tiny_llava_folder, tmp_path, monkeypatch):
        files = small_benchmarks.make(tmp_path / "published", monkeypatch)
        settings = {"benchmarks": ["amber", "pope"], "resamples": 200, "files": files}
        made = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=1, heldout=1, evaluate=settings)
        for name in ("amber", "amber-discriminative", "pope", "chair"):
            make_set(made, name, progress=SilentProgress())
        return made

    def caption(self, workspace, model, prompt_set, texts):
        said = dict(zip((p.prompt_id for p in prompts_of_set(workspace, prompt_set)), texts, strict=True))
        give_captions(workspace, model, lambda prompt: said[prompt.prompt_id], prompt_set=prompt_set)

    def test_descriptions_of_amber(self, filled):
        self.caption(filled, "base", "amber", ["A puppy and a CAT on the grass.", "Two cups and spoons.", ""])
        result = run(filled, benchmarks=["amber"])
        assert result.figures["base"]["amber"] == pytest.approx(
            {"chair": 40.0, "cover": 50.0, "hal": 100 * 2 / 3, "cog": 100 * 2 / 3}
        )
        assert result.warnings == ["AMBER, descriptions: 1 of 3 captions of base are empty"]
        found = read_evaluation(filled.evaluation("base", "amber"))
        assert [item["hallucinated"] for item in found.items] == [["cat"], ["spoon"], []]
        assert [item["missed"] for item in found.items] == [[], ["table", "cup"], ["sky"]]
        assert found.items[0]["counts"]["nouns"] == 3
        assert (found.provenance.n, found.provenance.empty, found.provenance.set_size) == (3, 1, 3)
        assert len(found.provenance.files) == 4
        assert found.provenance.settings == {"nouns": "vocabulary", "similarity": "exact"}
        assert found.printed["Cover"] == 50.0
        interval = found.intervals["chair"]
        assert interval.low <= interval.value == found.metrics["chair"] <= interval.high

    def test_yes_no_questions_of_amber(self, filled):
        self.caption(filled, "base", "amber-discriminative", ["no!", "Yes.", "There are cups"])
        metrics = run(filled, benchmarks=["amber-discriminative"]).figures["base"]["amber-discriminative"]
        assert (metrics["accuracy"], metrics["answered"]) == (75.0, 75.0)
        assert (metrics["false_yes"], metrics["true_yes"]) == pytest.approx((0.0, 200 / 3))
        assert metrics["state/accuracy"] == 100.0

    def test_as_released_reads_answers_as_the_authors_do(self, filled, tiny_llava_folder):
        self.caption(filled, "base", "pope", ["NO", "no!", "", "No, sir"])
        clean = run(filled, benchmarks=["pope"]).figures["base"]["pope"]
        assert (clean["accuracy"], clean["answered"], clean["false_yes"]) == pytest.approx((100 / 3, 500 / 6, 0.0))
        evaluation = filled.recipe.evaluate.model_dump(mode="json")
        released = tiny_workspace.change_recipe(filled, tiny_llava_folder, evaluate={**evaluation, "as_released": True})
        quirky = run(released, benchmarks=["pope"])
        assert quirky.counts["made"] == 1
        assert quirky.figures["base"]["pope"]["accuracy"] == pytest.approx(400 / 6)

    def test_pope_has_every_category_and_pairs_models(self, filled):
        self.caption(filled, "base", "pope", ["Yes.", "yes", "Yes", "Yes"])
        self.caption(filled, "good", "pope", ["Yes.", "no", "No", "no"])
        result = run(filled, benchmarks=["pope"])
        base, good = (result.figures[name]["pope"] for name in ("base", "good"))
        assert (base["accuracy"], base["false_yes"], base["recall"]) == (50.0, 100.0, 100.0)
        assert (good["accuracy"], good["random/f1"], good["adversarial/false_yes"]) == (100.0, 100.0, 0.0)
        scores = {(score.model, score.metric): score for score in result.scores}
        assert scores["base", "accuracy"].difference is None
        compared = scores["good", "accuracy"].difference
        assert compared is not None
        assert (compared.value, compared.test, compared.p_value, compared.n) == (50.0, "mcnemar", 0.25, 6)
        unchanged = scores["good", "recall"].difference
        assert unchanged is not None
        assert unchanged.value == 0
        assert (scores["good", "false_yes"].direction, scores["good", "yes_ratio"].direction) == ("lower", None)

    def test_chair_on_coco(self, filled):
        texts = {7: "A puppy, a Frisbee and a pizza.", 42: "Two slices of pizza ✨"}
        prompts = prompts_of_set(filled, "chair")
        self.caption(filled, "base", "chair", [texts[p.extra["chair"][0]["id"]] for p in prompts])
        metrics = run(filled, benchmarks=["chair"]).figures["base"]["chair"]
        assert metrics == pytest.approx({"chair_i": 25.0, "chair_s": 50.0, "recall": 100.0, "length": 6.0})
        make_set(filled, "objhal", progress=SilentProgress())
        self.caption(filled, "base", "objhal", ["Pizza.", "A cat."])
        metrics = run(filled, benchmarks=["objhal"]).figures["base"]["objhal"]
        assert (metrics["chair_i"], metrics["recall"]) == pytest.approx((50.0, 100 / 3))

    def test_what_is_not_there_is_asked_for(self, filled):
        with pytest.raises(MissingArtefact, match=r"opadpo caption \S+ --model base --set amber"):
            run(filled)
        with pytest.raises(MissingArtefact, match=r"opadpo caption \S+ --model opa --set pope"):
            run(filled, ["opa"], ["pope"])

    def test_what_hinders_a_comparison_is_said(self, filled):
        for model in ("base", "opa"):
            self.caption(filled, model, "pope", ["Yes", "no", "No", "no"])
        alone = run(filled, ["opa"], ["pope"])
        assert all(score.difference is None for score in alone.scores)
        assert "opa is not compared with the base, which is not scored; run `opadpo evaluate" in alone.warnings[0]
        assert "--model base --benchmark pope`" in alone.warnings[0]
        assert run(filled, benchmarks=["pope"]).warnings == []
        give_captions(filled, "opa", lambda prompt: "Yes", prompt_set="pope", image_aspect="square", template="other")
        (warning,) = run(filled, benchmarks=["pope"]).warnings
        assert "captions of opa and of the base differ in template, image aspect" in warning

    def test_captions_of_a_part_of_the_set_are_scored_with_a_warning(self, filled):
        prompts = prompts_of_set(filled, "amber")
        self.caption(filled, "base", "amber", ["A dog."] * 3)
        give_captions(filled, "part", lambda prompt: "Grass.", prompts[:2], "amber")
        result = run(filled, benchmarks=["amber"])
        assert result.warnings == ["AMBER, descriptions: part has captions of 2 of 3 prompts"]
        compared = difference(filled, "part", "base", BENCHMARKS["amber"])
        assert compared["cover"].n == 2

    @pytest.mark.slow
    @pytest.mark.annotations
    def test_the_released_files_from_end_to_end(self, tiny_llava_folder, tmp_path):
        files = {key: {"path": str(annotation_files(key)), "images": str(tmp_path / key)} for key in ("amber", "pope")}
        settings = {"files": files, "resamples": 200}
        made = tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=1, heldout=1, evaluate=settings)
        names = [f"AMBER_{number}.jpg" for number in range(1, 1005)]
        rows = [json.loads(line) for path in annotation_files("pope").iterdir() for line in path.open()]
        for key, images in {"amber": names, "pope": sorted({row["image"] for row in rows})}.items():
            (tmp_path / key).mkdir()
            for number, name in enumerate(images):
                Image.new("RGB", (8, 8), (number % 256, number // 256, len(key))).save(tmp_path / key / name, "PNG")
        say = {
            "amber": lambda prompt: ". ".join(prompt.extra["amber"][0]["truth"]),
            "pope": lambda prompt: prompt.extra["pope"][0]["label"].capitalize(),
        }
        for name, text in say.items():
            make_set(made, name, progress=SilentProgress(), offline=True)
            give_captions(made, "base", text, prompt_set=name)
        result = run(made, benchmarks=["amber", "pope"])
        amber, pope = (result.figures["base"][name] for name in ("amber", "pope"))
        assert (amber["chair"], amber["hal"], amber["cog"]) == (0.0, 0.0, 0.0)
        # Where the annotation lists a word twice, naming it covers one of the two, as in the authors' script.
        assert amber["cover"] > 90
        assert {pope[name] for name in ("accuracy", "random/f1", "popular/f1", "adversarial/f1")} == {100.0}
        assert {score.n for score in result.scores} == {1004, 8910}
        assert len(prompts_of_set(made, "pope")) == 5043
