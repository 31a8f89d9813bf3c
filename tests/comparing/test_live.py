"""Questions asked now: a real worker answers them, in order, and dies and comes back."""

import io
import os
import signal
import time

import pytest
import tiny_workspace
from PIL import Image
from random_adapter import add_adapter

from opadpo.comparing.live import MAX_OWN, LiveAsking
from opadpo.errors import Busy, DataError, NotFound, UserError
from opadpo.progress import SilentProgress
from opadpo.records import Caption
from opadpo.steps.caption import caption
from opadpo.steps.sets import folder_of_set, prompts_of_set
from opadpo.tables import read_records

PATIENCE = 90


def picture(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


def answered(live, me, key):
    end = time.monotonic() + PATIENCE
    while (found := live.look(me, key)).state in ("waiting", "answering"):
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def workspace(tiny_llava_folder, tmp_path_factory):
    made = tiny_workspace.make(tmp_path_factory.mktemp("live") / "My project", tiny_llava_folder, train=2, heldout=2)
    add_adapter(made, "mine", 0)
    return made


@pytest.fixture
def live(workspace):
    made = LiveAsking(workspace)
    yield made
    made.close()


@pytest.mark.slow
def test_questions_are_answered_in_their_order(live, workspace):
    """As `opadpo caption` answers them; nobody sees another's, and what is in the queue is told."""
    prompt = prompts_of_set(workspace, "heldout")[0]
    image = (folder_of_set(workspace, "heldout") / prompt.image_file).read_bytes()
    first = live.ask("ana", ["base", "mine", "base"], prompt.question, image)
    second = live.ask("ben", ["mine"], "What is red?", picture())
    assert (first.models, second.before, second.state) == (["base", "mine"], 1, "waiting")
    with pytest.raises(NotFound):
        live.look("ben", first.id)
    with pytest.raises(NotFound):
        live.take_back("ben", first.id)
    done = answered(live, "ana", first.id)
    assert (done.state, done.problems, done.doing) == ("done", [], None)
    caption(workspace, ["base", "mine"], progress=SilentProgress())
    told = {answer.model: answer for answer in done.answers}
    assert list(told) == ["base", "mine"]
    for name, answer in told.items():
        rows = read_records(workspace.captions(name, "heldout"), Caption)
        (row,) = [row for row in rows if row.prompt_id == prompt.prompt_id]
        wanted = (row.response, len(row.response_token_ids), row.finish_reason)
        assert (answer.text, answer.tokens, answer.finish_reason) == wanted
    assert answered(live, "ben", second.id).answers[0].model == "mine"
    worker = live._worker
    assert worker is not None
    # A worker that is killed takes one question with it; the next one gets another worker.
    os.kill(worker.pid, signal.SIGKILL)
    lost = answered(live, "ana", live.ask("ana", ["base"], "Now?", picture()).id)
    assert lost.state in ("failed", "done")
    again = answered(live, "ana", live.ask("ana", ["base"], "And now?", picture()).id)
    assert again.state == "done"
    assert live._worker is not worker
    folder = live._place()
    assert {path.name for path in folder.iterdir()} == {"worker.log"}, "images are kept no longer than they are needed"
    ended = live._worker
    live.close()
    assert ended is not None
    assert ended.poll() is not None
    assert not folder.exists()


@pytest.mark.slow
def test_a_model_that_cannot_answer_does_not_stop_the_others(workspace, tmp_path):
    live = LiveAsking(workspace)
    broken = workspace.adapter("broken")
    broken.mkdir()
    for file in workspace.adapter("mine").iterdir():
        (broken / file.name).write_bytes(file.read_bytes() if file.suffix != ".safetensors" else b"no weights")
    (broken / "manifest.json").write_text(workspace.manifest_path("adapters/mine").read_text())
    try:
        done = answered(live, "ana", live.ask("ana", ["broken", "base"], "What?", picture()).id)
    finally:
        live.close()
    assert done.state == "done"
    assert [answer.model for answer in done.answers] == ["base"]
    assert [problem.model for problem in done.problems] == ["broken"]
    assert done.problems[0].remedy


def test_what_cannot_be_asked(live):
    assert live.models()[0] == "base"
    assert "mine" in live.models()
    assert "nobody" not in live.models()
    for image in (b"", b"not an image", picture()[:-30]):
        with pytest.raises(DataError, match="image cannot be used"):
            live.ask("ana", ["base"], "What?", image)
    with pytest.raises(UserError, match="no question"):
        live.ask("ana", ["base"], "  ", picture())
    with pytest.raises(UserError, match="no model to answer"):
        live.ask("ana", [], "What?", picture())
    with pytest.raises(UserError, match="no such model"):
        live.ask("ana", ["nobody"], "What?", picture())
    with pytest.raises(UserError):
        live.ask("ana", ["../../etc"], "What?", picture())
    assert live._worker is None


def test_nobody_fills_the_queue(live, monkeypatch):
    monkeypatch.setattr(live, "_work", lambda: None)
    keys = [live.ask("ana", ["base"], "What?", picture()).id for _ in range(MAX_OWN)]
    with pytest.raises(Busy, match="Too many questions"):
        live.ask("ana", ["base"], "What?", picture())
    assert live.ask("ben", ["base"], "What?", picture()).before == MAX_OWN
    live.take_back("ana", keys[0])
    assert live.look("ana", keys[1]).before == 0
    live.ask("ana", ["base"], "What?", picture())
    with pytest.raises(NotFound):
        live.look("ana", keys[0])


@pytest.mark.slow
def test_the_worker_goes_when_nobody_asks(workspace):
    live = LiveAsking(workspace, idle_seconds=0.3)
    answered(live, "ana", live.ask("ana", ["base"], "What?", picture()).id)
    end = time.monotonic() + PATIENCE
    while live._thread is not None or live._worker is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
    live.close()
