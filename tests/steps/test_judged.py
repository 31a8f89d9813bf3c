"""Benchmarks with a judge: a real server that judges, fails, and is asked nothing twice."""

import asyncio
import json
import re

import pytest
import tiny_workspace
from given_captions import give_captions
from PIL import Image
from servers import chat_server, completion, error, user_text
from starlette.responses import JSONResponse

from opadpo.errors import Busy, CostRefused, DataError, EndpointError, StepFailed
from opadpo.evaluation.result import read_evaluation
from opadpo.progress import SilentProgress
from opadpo.steps.evaluate import evaluate
from opadpo.steps.report import report
from opadpo.steps.sets import make_set
from opadpo.workspace import Workspace

COLOURS = ["red", "green", "blue", "white"]
ANSWERS = {"base": "It is a cat.", "good": "It is a dog."}


def rate(server, body):
    """4 for a dog, 1 for a cat, told in the way that is asked for."""
    text = user_text(body)
    right = "dog" in text.rpartition("Answer to grade:")[2]
    return json.dumps({"reason": f"it is {'right' if right else 'wrong'}", "rating": 4 if right else 1})


@pytest.fixture
def server():
    with chat_server() as running:
        running.behave = rate
        yield running


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    rows = [
        {
            "question_type": "attribute" if number % 2 else "counting",
            "image_src": f"https://somewhere/else/{number}.jpg",
            "image_content": ["Dog"],
            "question": f"What is {colour}?",
            "gt_answer": "A dog.",
        }
        for number, colour in enumerate(COLOURS)
    ]
    (folder / "response_template.json").write_text(json.dumps(rows))
    questions, contexts, answers = [], [], []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (20, 20), colour).save(folder / f"{number}.jpg")
        category = ("conv", "detail", "complex")[number % 3]
        question = {"question_id": number, "image": f"{number}.jpg", "category": category, "text": f"What is {colour}?"}
        questions.append(question)
        contexts.append({"id": str(number), "image": f"{number}.jpg", "caption": f"A {colour} dog."})
        answers.append({"question_id": number, "text": "A dog."})
    for name, lines in (("questions", questions), ("context", contexts), ("answers_gpt4", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rule = {"role": "Assistant", "prompt": "Score both."}
    (folder / "rule.json").write_text(
        json.dumps({f"llava_bench_{name}": rule for name in ("conv", "detail", "complex")})
    )
    return folder


@pytest.fixture
def workspace(tiny_llava_folder, tmp_path, files, server):
    endpoint = {"base_url": server.url, "model": "judge", "api_key_required": False}
    made = tiny_workspace.make(
        tmp_path / "ws",
        tiny_llava_folder,
        train=1,
        heldout=2,
        evaluate={
            "benchmarks": ["mmhal", "llava-bench"],
            "files": {name: {"path": str(files), "images": str(files)} for name in ("mmhal", "llava_bench")},
            "judge": {"endpoint": endpoint, "max_retries": 0},
            "resamples": 100,
        },
    )
    for name in ("mmhal", "llava-bench"):
        make_set(made, name, progress=SilentProgress())
        for model, text in ANSWERS.items():
            give_captions(made, model, lambda prompt, text=text: text, prompt_set=name)
    return made


def run(workspace, *names, models=None, **options):
    return evaluate(workspace, models, names or None, progress=SilentProgress(), **options)


def test_figures_by_a_judge(workspace, server):
    result = run(workspace, "mmhal")
    assert result.figures["base"]["mmhal"]["hallucination"] == 100.0
    assert result.figures["good"]["mmhal"]["score"] == 4.0
    assert result.figures["good"]["mmhal"]["counting/score"] == 4.0
    found = read_evaluation(workspace.evaluation("good", "mmhal"))
    assert [item["rating"] for item in found.items] == [4, 4, 4, 4]
    assert found.items[0]["reason"] == "it is right"
    assert found.provenance.settings["judge"] == "test-model-2026", "as the server names it"
    assert (found.provenance.n, found.provenance.failed) == (4, 0)
    (difference,) = [s.difference for s in result.scores if (s.model, s.metric) == ("good", "hallucination")]
    assert difference is not None
    assert difference.value == -100.0
    assert server.asked.total() == 8
    assert not server.wrong
    assert "image_url" not in json.dumps(server.bodies), "the judge is told, not shown"


@pytest.mark.slow
def test_scores_beside_a_reference(workspace, server):
    server.behave = lambda _, body: (
        "8 6\nwell" if "a dog" in user_text(body).rpartition("Assistant 2]\n")[0] else "10 1"
    )
    figures = run(workspace, "llava-bench").figures
    assert figures["good"]["llava-bench"]["relative"] == pytest.approx(75.0)
    assert figures["base"]["llava-bench"]["relative"] == pytest.approx(10.0)
    report(workspace, progress=SilentProgress())
    page = (workspace.root / "report" / "report.html").read_text()
    assert "LLaVA-Bench in the wild" in page
    assert "tradeoff" not in page


@pytest.mark.slow
def test_nothing_is_asked_twice(workspace, server):
    run(workspace, "mmhal")
    asked = server.asked.total()
    workspace.evaluation("good", "mmhal").unlink()
    (workspace.evaluation("good", "mmhal").parent / ".mmhal.json.manifest.json").unlink()
    assert run(workspace, "mmhal").counts["made"] == 1
    assert server.asked.total() == asked


@pytest.mark.slow
def test_what_the_judge_does_not_say_is_in_no_figure(workspace, server):
    def moody(_, body):
        text = user_text(body)
        if "red" in text:
            return error(500, "server_error", "out of order")
        return "I would rather not." if "green" in text else rate(server, body)

    server.behave = moody
    result = run(workspace, "mmhal", models=["good"])
    found = read_evaluation(workspace.evaluation("good", "mmhal"))
    assert (found.provenance.n, found.provenance.failed) == (2, 2)
    assert found.metrics["score"] == 4.0
    assert sum(found.provenance.failures.values()) == 2
    (told,) = [text for text in result.warnings if "2 items of good could not be judged" in text]
    assert "1 × no judgement in the judge's answer" in told
    assert "500" in told, "each with its reason"
    repeated = [body for body in server.bodies if len(body["messages"]) > 2]
    assert len(repeated) == 1, "an answer that cannot be read is sent back once"
    assert re.search(r"whole number from 0 to 6", repeated[0]["messages"][-1]["content"])
    server.behave = rate
    assert run(workspace, "mmhal", models=["good"]).status == "up_to_date"
    assert run(workspace, "mmhal", models=["good"], retry_failed=True).counts["made"] == 1
    found = read_evaluation(workspace.evaluation("good", "mmhal"))
    assert (found.provenance.n, found.provenance.failed) == (4, 0)


@pytest.mark.slow
def test_no_judgement_at_all_makes_no_figure(workspace, server):
    server.behave = lambda *_: "No."
    with pytest.raises(
        StepFailed, match=r"(?s)Nothing of MMHal-Bench could be judged.*4 × no judgement in the judge's answer"
    ):
        run(workspace, "mmhal", models=["base"])
    assert not workspace.evaluation("base", "mmhal").exists()


@pytest.mark.slow
def test_two_judges_make_no_figure(workspace, server):
    def either(_, body):
        answer = json.loads(bytes(completion(rate(server, body)).body))
        return JSONResponse({**answer, "model": "judge-1" if "red" in user_text(body) else "judge-2"})

    server.behave = either
    with pytest.raises(DataError, match=r"(?s)Different models have judged.*judge-1, judge-2"):
        run(workspace, "mmhal", models=["base"])


@pytest.mark.slow
def test_models_that_two_judges_have_judged_are_told_but_not_compared(workspace, server):
    """A server's alias moves on to another version while a project goes on."""
    version = "judge-1"

    def moved_on(_, body):
        return JSONResponse({**json.loads(bytes(completion(rate(server, body)).body)), "model": version})

    server.behave = moved_on
    run(workspace, "mmhal", models=["base"])
    version = "judge-2"
    result = run(workspace, "mmhal")
    assert {score.model for score in result.scores} == {"base", "good"}
    assert all(score.difference is None for score in result.scores)
    (told,) = [text for text in result.warnings if "not compared" in text]
    assert "judges differ (good: judge judge-2; base: judge judge-1)" in told
    assert "one exact version of the model in evaluate.judge.endpoint.model" in told
    report(workspace, progress=SilentProgress())
    assert "MMHal-Bench" in (workspace.root / "report" / "report.html").read_text()


@pytest.mark.slow
def test_a_judge_costs_what_somebody_agreed_to(workspace, server, tiny_llava_folder):
    values = workspace.recipe.evaluate.model_dump(mode="json", exclude_defaults=True)
    values["judge"] |= {"prices": {"judge": {"input": 1e6, "output": 1e6}}, "ask_above_usd": 1}
    dear = tiny_workspace.change_recipe(workspace, tiny_llava_folder, evaluate=values)
    with pytest.raises(CostRefused):
        run(dear, "mmhal", models=["base"])
    assert server.asked.total() == 0
    run(dear, "mmhal", models=["base"], agree=lambda estimate: True)
    assert server.asked.total() == 4


@pytest.mark.slow
def test_a_second_run_does_not_ask_the_judge_at_the_same_time(workspace, server):
    refused = []

    def busy(_, body):
        with pytest.raises(Busy, match="writing judge") as raised:
            run(Workspace.open(workspace.root), "mmhal", models=["base"])
        refused.append(raised.value)
        return rate(server, body)

    def meanwhile(server, body):
        return asyncio.to_thread(busy, server, body)

    server.behave = meanwhile
    run(workspace, "mmhal", models=["base"])
    assert len(refused) == 4
    assert server.asked.total() == 4, "each answer is judged once"


@pytest.mark.slow
def test_a_judge_that_is_not_there(workspace, tiny_llava_folder):
    values = workspace.recipe.evaluate.model_dump(mode="json", exclude_defaults=True)
    values["judge"]["endpoint"]["base_url"] = "http://127.0.0.1:9/v1"
    away = tiny_workspace.change_recipe(workspace, tiny_llava_folder, evaluate=values)
    with pytest.raises((EndpointError, StepFailed)):
        run(away, "mmhal", models=["base"])
    assert not away.evaluation("base", "mmhal").exists()
