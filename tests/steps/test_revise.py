import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
from servers import ChatServer, answer, chat_server, verdict

from opadpo.cli import main
from opadpo.errors import Busy, EndpointError, MissingArtefact, StepFailed, WorkspaceError
from opadpo.hashing import bytes_digest
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Rollout, Sampling
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.steps.revise import revise
from opadpo.tables import read_records, write_records
from opadpo.toy.captions import QUESTION, mentions, own_caption, reference_caption
from opadpo.toy.world import png_bytes, render, sample_scene
from opadpo.workspace import Workspace

SAMPLING = Sampling(temperature=1, top_k=0, top_p=1, max_new_tokens=9)


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


def make(root: Path, responses: list[str | None], *overrides: str) -> tuple[Workspace, list[set[str]]]:
    """A workspace with toy prompts and these responses (None: a caption with the language prior); and the truth."""
    workspace = Workspace.create(root, preset_text("toy"), list(overrides))
    rng = np.random.default_rng(0)
    prompts, rollouts, truths = [], [], []
    for index, response in enumerate(responses):
        scene = sample_scene(rng)
        image = png_bytes(render(scene))
        name = f"images/{index}.png"
        (workspace.root / "images").mkdir(exist_ok=True)
        (workspace.root / name).write_bytes(image)
        prompt = Prompt.create(
            image_id=bytes_digest(image),
            image_file=name,
            question=QUESTION,
            reference=reference_caption(scene, rng),
            source="toy",
            split="train",
            subset="train-0",
        )
        prompts.append(prompt)
        rollouts.append(
            Rollout.create(
                prompt_id=prompt.prompt_id,
                response=own_caption(scene, rng) if response is None else response,
                response_token_ids=[index],
                model="toy@1",
                adapter="base",
                adapter_hash="",
                template="toy",
                image_aspect="pad",
                sampling=SAMPLING,
                finish_reason="stop",
                sample_index=0,
                seed=0,
            )
        )
        truths.append({thing["noun"] for thing in scene.truth()["objects"]})
    with workspace.writing(plans.prompts(workspace)) as writer:
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        os.rename(workspace.root / "images", writer.folder / "images")
        writer.finish({})
    with workspace.writing(plans.rollouts(workspace)) as writer:
        write_records(writer.folder / "part-00000.parquet", rollouts, Rollout)
        writer.finish({})
    return workspace, truths


def made(server: ChatServer, root: Path, responses: list[str | None], *overrides: str) -> Workspace:
    settings = [f"revise.endpoint.base_url={server.url}", "revise.max_retries=0", *overrides]
    return make(root, responses, *settings)[0]


def run(workspace: Workspace, *overrides: str, **options: Any) -> StepResult:
    return revise(Workspace.open(workspace.root, list(overrides)), progress=SilentProgress(), **options)


def texts(workspace: Workspace) -> list[str]:
    with ReviewStore.open(workspace.reviews_db) as store:
        return [revision.text for revision in store.iter_current()]


@pytest.mark.slow
def test_the_toy_expert_takes_out_what_is_not_in_the_picture(tmp_path: Path) -> None:
    workspace, truths = make(tmp_path / "w", [None] * 24)
    result = run(workspace)
    counts = result.counts
    assert result.status == "done"
    assert (counts["rollouts"], counts["revised"], counts["failed"], result.warnings) == (24, 24, 0, [])
    assert counts["kept"] == counts["score_4"] > 0
    assert counts["edited"] + counts["deleted"] == counts["score_1"] + counts["score_2"] + counts["score_3"] > 0
    assert counts["requests"] == 24
    assert counts["prompt_tokens"] > 0
    with ReviewStore.open(workspace.reviews_db) as store:
        revisions = list(store.iter_current())
    rollouts = {r.rollout_id: i for i, r in enumerate(read_records(workspace.rollouts, Rollout))}
    for revision in revisions:
        assert {mention.noun for mention in mentions(revision.text)} <= truths[rollouts[revision.rollout_id]]
        assert revision.author == "toy-expert"
    assert run(workspace).status == "up_to_date"


@pytest.mark.slow
def test_failures_are_listed_with_their_reasons_and_asked_again_on_demand(server: ChatServer, tmp_path: Path) -> None:
    def moody(_server: ChatServer, body: dict[str, Any]) -> Any:
        said = " ".join(servers.numbered(body))
        if "refuse" in said:
            return servers.completion(None, refusal="no")
        if "crash" in said:
            return servers.error(500)
        if "wrong" in said:
            return answer(verdict(7, "x"))
        return servers.keep_all(_server, body)

    server.behave = moody
    responses: list[str | None] = ["All is fine.", "You refuse.", "You crash.", "You are wrong.", "", "Also fine."]
    workspace = made(server, tmp_path / "w", responses)
    result = run(workspace)
    assert result.dropped == {"empty_response": 1, "refusal": 1, "server_error": 1, "unusable_answer": 1}
    assert (result.counts["revised"], result.counts["failed"]) == (2, 4)
    assert "--retry failed" in result.warnings[0]
    assert sorted(texts(workspace)) == ["All is fine.", "Also fine."]

    asked = len(server.bodies)
    again = run(workspace)
    assert (again.status, again.dropped, len(server.bodies)) == ("up_to_date", result.dropped, asked)
    server.behave = servers.keep_all
    retried = run(workspace, retry_failed=True)
    assert retried.dropped == {"empty_response": 1}
    assert retried.counts["revised"] == 5
    assert len(server.bodies) == asked + 3
    assert sorted(texts(workspace)) == sorted(filter(None, responses))


@pytest.mark.slow
def test_what_was_cut_is_asked_again_with_more_room_and_nothing_else(server: ChatServer, tmp_path: Path) -> None:
    def narrow(running: ChatServer, body: dict[str, Any]) -> Any:
        cut = body["max_tokens"] < 5000 and "long" in servers.user_text(body)
        return servers.completion("{", "length") if cut else servers.keep_all(running, body)

    server.behave = narrow
    workspace = made(server, tmp_path / "w", ["Short.", "A long one.", "Brief.", ""])
    result = run(workspace)
    assert result.dropped == {"length": 1, "empty_response": 1}
    assert "cut at 10 tokens; raise max_tokens" in result.warnings[0]
    wider = "revise.max_tokens=6000"
    assert run(workspace, wider).status == "up_to_date"
    result = run(workspace, wider, retry_failed=True)
    assert result.dropped == {"empty_response": 1}
    assert "--retry" not in result.warnings[0]
    assert len(server.bodies) == 3 + 1


@pytest.mark.slow
def test_a_run_without_a_single_revision_is_an_error(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda *_: servers.error(400, None, "context too long")
    workspace = made(server, tmp_path / "w", ["One.", "Two.", ""])
    for options in ({}, {"retry_failed": True}):
        with pytest.raises(StepFailed, match=r"(?s)No response.*bad_request 2, empty_response 1.*context too long"):
            run(workspace, **options)
    server.behave = servers.keep_all
    assert run(workspace, retry_failed=True).counts["revised"] == 2
    assert len(server.bodies) == 2 + 2 + 2


@pytest.mark.slow
def test_a_missing_image_fails_its_row_and_no_other(server: ChatServer, tmp_path: Path) -> None:
    workspace = made(server, tmp_path / "w", ["One.", "Two.", "Three."])
    image = workspace.prompts / "images" / "1.png"
    data = image.read_bytes()
    image.unlink()
    result = run(workspace)
    assert result.dropped == {"image": 1}
    assert "1.png" in result.warnings[0]
    image.write_bytes(data)
    assert run(workspace, retry_failed=True).dropped == {}
    assert len(server.bodies) == 3


@pytest.mark.slow
def test_a_changed_setting_that_changes_no_request_asks_nothing(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda *_: answer(
        verdict(1, "A blue cat sits.", action="rewrite", score=2, error_type="image_recognition_error")
    )
    workspace = made(server, tmp_path / "w", ["A red cat sits."])
    assert run(workspace).counts["not_minimal"] == 0
    strict = Workspace.open(workspace.root, ["revise.minimal_share=0.1"])
    result = revise(strict, progress=SilentProgress())
    assert (result.status, result.counts["not_minimal"], len(server.bodies)) == ("done", 1, 1)
    with ReviewStore.open(workspace.reviews_db) as store:
        assert [r.sentences[0].not_minimal for r in store.history(next(store.iter_current()).rollout_id)] == [
            False,
            True,
        ]


@pytest.mark.slow
def test_no_more_requests_at_once_than_the_recipe_says(server: ChatServer, tmp_path: Path) -> None:
    async def together(running: ChatServer, body: dict[str, Any]) -> str:
        while running.most_at_once < 3:  # the first answers wait for the third question
            await asyncio.sleep(0.01)
        return servers.keep_all(running, body)

    server.behave, server.delay = together, 0.02
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(20)], "revise.concurrency=3")
    run(workspace)
    assert server.most_at_once == 3


@pytest.mark.slow
def test_it_runs_inside_a_running_event_loop_as_in_a_notebook(server: ChatServer, tmp_path: Path) -> None:
    workspace = made(server, tmp_path / "w", ["One."])

    async def cell() -> StepResult:
        return run(workspace)

    assert asyncio.run(cell()).counts["revised"] == 1


@pytest.mark.slow
def test_a_hard_stop_keeps_what_was_answered_and_the_next_run_goes_on(server: ChatServer, tmp_path: Path) -> None:
    def poor(running: ChatServer, body: dict[str, Any]) -> Any:
        empty = running.asked.total() > 5
        return servers.error(429, "insufficient_quota") if empty else servers.keep_all(running, body)

    server.behave = poor
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(12)], "revise.concurrency=2")
    with pytest.raises(EndpointError, match="insufficient_quota"):
        run(workspace)
    assert workspace.manifest("expert") is None
    assert len(texts(workspace)) == 5
    server.bodies.clear()
    server.behave = servers.keep_all
    assert run(workspace).counts["revised"] == 12
    assert len(server.bodies) == 7


@pytest.mark.slow
def test_without_a_key_nothing_is_asked_and_nothing_is_started(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    workspace = made(server, tmp_path / "w", ["One."], "revise.endpoint.api_key_required=true")
    with pytest.raises(EndpointError, match="OPENAI_API_KEY is not set"):
        run(workspace)
    assert server.bodies == []


@pytest.mark.slow
@pytest.mark.parametrize("key", ["schlüssel", "one\ntwo"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    workspace = made(server, tmp_path / "w", ["One."])
    with pytest.raises(EndpointError, match="OPENAI_API_KEY") as caught:
        run(workspace)
    assert key not in str(caught.value)


@pytest.mark.slow
def test_without_its_database_the_revisions_are_made_again_from_the_answers(server: ChatServer, tmp_path: Path) -> None:
    workspace = made(server, tmp_path / "w", ["One.", "Two."])
    run(workspace)
    before = texts(workspace)
    for file in workspace.root.glob("reviews.db*"):
        file.unlink()
    server.bodies.clear()
    assert run(workspace).status == "done"
    assert sorted(texts(workspace)) == sorted(before)
    assert server.bodies == []


def test_a_server_command_that_fails_is_one_clear_message(tmp_path: Path) -> None:
    command = 'revise.endpoint.server_command=["{python}", "-c", "raise SystemExit(3)"]'
    workspace, _ = make(tmp_path / "w", ["One."], command)
    with pytest.raises(EndpointError, match=r"(?s)ended with status 3.*server\.log"):
        run(workspace)


@pytest.mark.slow
def test_what_has_to_be_there_first(server: ChatServer, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", preset_text("toy"))
    with pytest.raises(MissingArtefact, match="opadpo prepare"):
        run(workspace)
    workspace = made(server, tmp_path / "v", ["One."])
    write_records(workspace.prompts / "prompts.parquet", [], Prompt)
    with pytest.raises(WorkspaceError, match=r"(?s)prompt is not there.*opadpo rollout"):
        run(workspace)


@pytest.mark.slow
def test_a_second_run_at_the_same_time_is_refused(server: ChatServer, tmp_path: Path) -> None:
    workspace = made(server, tmp_path / "w", ["One."])
    with workspace.lock("expert"), pytest.raises(Busy, match="Another process"):
        run(workspace)


PRICED = [
    "revise.prices={toy-expert: {input: 1000, output: 1000}, test-model: {input: 1000, output: 1000}}",
    "revise.ask_above_usd=0.5",
]


@pytest.mark.slow
def test_a_script_has_to_say_yes_to_a_price(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(4)], *PRICED)
    assert main(["revise", str(workspace.root)]) == 2
    said = capsys.readouterr().err
    assert "estimate: 4 requests" in said
    assert "--yes" in said
    assert server.paths == []
    assert main(["revise", str(workspace.root), "--yes", "--json"]) == 0
    spent = json.loads(capsys.readouterr().out)["figures"]["spent_in_all"]
    assert spent["cost_usd"] == pytest.approx(4 * 0.11)
    with ReviewStore.open(workspace.reviews_db) as store:
        assert {round(revision.usage.cost_usd, 6) for revision in store.iter_current()} == {0.11}


@pytest.mark.slow
def test_a_budget_stops_the_step_and_a_larger_one_finishes_it(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(9)], *PRICED, "revise.max_tokens=100")
    words = ["revise", str(workspace.root), "--yes", "--set"]
    # The instructions alone have more than a thousand tokens, which cost a tenth of a cent each here.
    assert main([*words, "revise.max_cost_usd=1"]) == 1
    assert "The budget is used up" in capsys.readouterr().err
    assert server.bodies == []
    assert main([*words, "revise.max_cost_usd=50"]) == 0
    assert len(texts(workspace)) == 9


@pytest.mark.slow
def test_the_batch_service_gives_the_same_revisions(server: ChatServer, tmp_path: Path) -> None:
    def forgetful(running: ChatServer, body: dict[str, Any]) -> str:
        first = len(body["messages"]) == 2
        return answer() if first and "2" in servers.user_text(body) else servers.keep_all(running, body)

    server.behave = forgetful
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(5)], "revise.batch.poll_seconds=0.01")
    assert main(["revise", str(workspace.root), "--batch"]) == 0
    assert sorted(texts(workspace)) == [f"Sentence {i}." for i in range(5)]
    # One directly, the others in a batch, and what one of them was asked back in a second one.
    assert [len(server.bodies), len(server.batches.lines), len(server.batches.batches)] == [1, 5, 2]
    assert server.wrong == []


def committed(workspace: Workspace) -> int:
    if not workspace.requests_db.exists():
        return 0
    with sqlite3.connect(workspace.requests_db) as connection:
        try:
            return connection.execute("SELECT count(*) FROM requests").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


@pytest.mark.slow
def test_killed_again_and_again_it_asks_no_committed_answer_twice(server: ChatServer, tmp_path: Path) -> None:
    server.delay = 0.02
    rows = 60
    workspace = made(server, tmp_path / "w", [f"Sentence {i}." for i in range(rows)], "revise.concurrency=4")
    script = (
        "import sys; from opadpo.workspace import Workspace; from opadpo.progress import SilentProgress;"
        " from opadpo.steps.revise import revise; revise(Workspace.open(sys.argv[1]), progress=SilentProgress())"
    )
    for share in (0.25, 0.6):
        before, asked = committed(workspace), len(server.bodies)
        process = subprocess.Popen([sys.executable, "-c", script, str(workspace.root)])
        server.kill(process.pid, at=round(share * rows))
        assert process.wait() == -signal.SIGKILL
        server.settle()
        assert len(server.bodies) - asked <= committed(workspace) - before + 4
    before, asked = committed(workspace), len(server.bodies)
    assert 0 < before < rows
    result = run(workspace)
    assert result.counts["revised"] == rows
    assert len(server.bodies) - asked == rows - before
    assert len(texts(workspace)) == rows
    with ReviewStore.open(workspace.reviews_db) as store:
        assert store.counts()["revisions"] == rows
