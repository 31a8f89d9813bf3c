"""Questions and images of a benchmark as a set of prompts."""

import json

import pytest
import small_benchmarks
import tiny_workspace

from opadpo.errors import DataError, MissingArtefact, UserError
from opadpo.images import open_rgb
from opadpo.progress import SilentProgress
from opadpo.steps import plans
from opadpo.steps.sets import files_of_set, folder_of_set, make_set, prompts_of_set
from opadpo.steps.status import status


@pytest.fixture
def files(tmp_path, monkeypatch):
    return small_benchmarks.make(tmp_path / "published", monkeypatch)


@pytest.fixture
def workspace(tiny_llava_folder, tmp_path, files):
    return tiny_workspace.make(tmp_path / "ws", tiny_llava_folder, train=1, heldout=2, evaluate={"files": files})


def change(workspace, folder, files, **settings):
    return tiny_workspace.change_recipe(workspace, folder, evaluate={"files": files, **settings})


def make(workspace, name, **options):
    return make_set(workspace, name, progress=SilentProgress(), **options)


def test_descriptions_of_amber(workspace):
    assert make(workspace, "amber") == ["benchmarks/amber"]
    prompts = prompts_of_set(workspace, "amber")
    assert [p.extra["image"] for p in prompts] == list(small_benchmarks.AMBER_IMAGES)
    assert {p.question for p in prompts} == {"Describe this image."}
    assert {(p.source, p.split, p.subset) for p in prompts} == {("amber", "heldout", "amber")}
    (known,) = prompts[1].extra["amber"]
    assert (known["id"], known["truth"], known["hallu"]) == (2, ["table", "cup", "cup"], ["spoon"])
    assert open_rgb(folder_of_set(workspace, "amber") / prompts[0].image_file).size == (40, 30)
    assert len(files_of_set(workspace, "amber")) == 4
    assert make(workspace, "amber") == []


def test_a_question_that_is_asked_often_is_one_prompt(workspace):
    make(workspace, "pope")
    prompts = prompts_of_set(workspace, "pope")
    assert len(prompts) == 4
    asked = {p.question: [(k["category"], k["label"]) for k in p.extra["pope"]] for p in prompts}
    dog = "Is there a dog in the image?"
    assert asked[dog] == [("random", "yes"), ("popular", "yes"), ("adversarial", "yes")]
    assert asked["Is there a cat in the image?"] == [("adversarial", "no")]
    manifest = workspace.manifest("benchmarks/pope")
    assert manifest.counts == {"prompts": 4, "questions": 6, "images": 2}
    make(workspace, "amber-discriminative")
    assert [len(p.extra["amber"]) for p in prompts_of_set(workspace, "amber-discriminative")] == [1, 2, 1]


def test_coco_images_are_a_fixed_choice_with_what_is_in_them(workspace, tiny_llava_folder, files):
    make(workspace, "chair")
    both = prompts_of_set(workspace, "chair")
    assert {p.extra["chair"][0]["id"]: p.extra["chair"][0]["truth"] for p in both} == {
        7: ["dog", "frisbee"],
        42: ["pizza"],
    }
    one = change(workspace, tiny_llava_folder, files, chair_images=1, chair_question="What is there?")
    assert make(one, "chair") == ["benchmarks/chair"]
    (prompt,) = prompts_of_set(one, "chair")
    assert prompt.question == "What is there?"
    assert prompt.image_id in {p.image_id for p in both}


def test_object_halbench_asks_its_own_questions(workspace, tmp_path):
    make(workspace, "objhal")
    first, second = prompts_of_set(workspace, "objhal")
    assert (first.question, first.extra["image"]) == ("What do you see?", small_benchmarks.COCO_IMAGES[1])
    assert second.extra["chair"] == [{"id": 2, "truth": ["dog", "frisbee"], "position": 1}]
    questions = tmp_path / "published" / "chair" / "obj_halbench_300_with_image.jsonl"
    questions.write_text('{"image_id": 5, "question": "And this?"}')
    with pytest.raises(DataError, match=r"does not hold: \[5\]"):
        make(workspace, "objhal")


def test_settings_and_files_make_a_set_stale(workspace, tiny_llava_folder, files, tmp_path):
    for name in ("pope", "chair", "amber"):
        make(workspace, name)
    told = change(workspace, tiny_llava_folder, files, yes_no_instruction="Answer yes or no.")
    state = {name: told.state(plans.benchmark_set(told, name)) for name in ("pope", "chair", "amber")}
    assert state == {"pope": "stale", "chair": "done", "amber": "done"}
    make(told, "pope")
    assert all(p.question.endswith("image?\nAnswer yes or no.") for p in prompts_of_set(told, "pope"))
    coco = tmp_path / "published" / "chair" / "captions_val2014.json"
    text = coco.read_text()
    coco.write_text(text.replace("frisbee", "kite"))
    assert workspace.state(plans.benchmark_set(workspace, "chair")) == "stale"
    coco.unlink()
    assert workspace.state(plans.benchmark_set(workspace, "chair")) == "done"


def test_the_status_lists_what_the_recipe_s_benchmarks_need(workspace, tiny_llava_folder, files):
    wanted = change(workspace, tiny_llava_folder, files, benchmarks=["amber"])
    found = status(wanted)
    assert found["benchmarks/amber"].state == "missing"
    assert found["benchmarks/amber"].command == f"opadpo caption {wanted.root} --model base --set amber"
    assert found["captions/base/amber.parquet"].command == f"opadpo caption {wanted.root} --model base --set amber"
    assert found["evaluations/base/amber.json"].command == (
        f"opadpo evaluate {wanted.root} --model base --benchmark amber"
    )
    make(wanted, "amber")
    assert status(wanted)["benchmarks/amber"].state == "done"
    with pytest.raises(KeyError):
        found["evaluations/base/toy.json"]


class TestBadInput:
    def refused(self, workspace, name, error, message):
        with pytest.raises(error, match=message) as caught:
            make(workspace, name)
        assert caught.value.exit_status == 2
        assert not folder_of_set(workspace, name).exists()

    def test_broken_and_missing_images(self, workspace, tmp_path):
        image = tmp_path / "published" / "amber_images" / "AMBER_2.jpg"
        whole = image.read_bytes()
        image.write_bytes(whole[:200])
        self.refused(workspace, "amber", DataError, r"1 of 3; the first(.|\n)*AMBER_2\.jpg: is not a readable image")
        image.unlink()
        self.refused(workspace, "amber", MissingArtefact, r"1 of 3 are not in(.|\n)*evaluate\.files\.amber\.images")
        image.write_bytes(whole)
        assert make(workspace, "amber") == ["benchmarks/amber"]

    def test_another_version_of_the_files(self, workspace, tmp_path):
        path = tmp_path / "published" / "pope" / "coco_pope_popular.json"
        path.write_text(path.read_text() + "\n")
        self.refused(workspace, "pope", DataError, "not the published one")

    @pytest.mark.parametrize(
        ("change", "told"),
        [(lambda rows: [*rows, rows[0]], "come twice"), (lambda rows: [{**rows[0], "id": 99}], r"\[99\] have no")],
    )
    def test_questions_that_do_not_fit_their_annotations(self, workspace, tmp_path, monkeypatch, change, told):
        folder = tmp_path / "published" / "amber"
        path = folder / "query" / "query_generative.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        from opadpo.evaluation.files import RELEASES

        monkeypatch.setitem(RELEASES, "amber", small_benchmarks.published(RELEASES["amber"], folder))
        self.refused(workspace, "amber", DataError, told)

    def test_truncated_annotations_of_coco(self, workspace, tmp_path):
        path = tmp_path / "published" / "chair" / "instances_val2014.json"
        path.write_text(path.read_text()[:-40])
        self.refused(workspace, "chair", DataError, "COCO's annotations cannot be read")

    def test_a_set_that_is_not_there(self, workspace):
        with pytest.raises(MissingArtefact, match=r"opadpo caption \S+ --model base --set amber"):
            prompts_of_set(workspace, "amber")
        with pytest.raises(UserError, match=r"seen: nothing(.|\n)*heldout, train.*amber, amber-discriminative"):
            prompts_of_set(workspace, "nothing")
