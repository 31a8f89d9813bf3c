"""Rollouts by a server: what is asked, what becomes of every kind of answer, what is told, and a real peer."""

import base64
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import servers
import tiny_workspace
from PIL import Image
from servers import ChatServer, chat_server
from starlette.responses import HTMLResponse, JSONResponse, Response

from opadpo.errors import RecipeError, StepFailed
from opadpo.llm.server import running_server
from opadpo.models.base import read_pin, toy_folder
from opadpo.models.loading import load_processing
from opadpo.progress import SilentProgress
from opadpo.recipe import parse_recipe
from opadpo.records import Prompt, Rollout
from opadpo.steps import plans
from opadpo.steps.result import StepResult
from opadpo.steps.rollout import rollout
from opadpo.steps.train import _off_policy_warnings
from opadpo.tables import read_records
from opadpo.workspace import Workspace

VLLM = frozenset({"top_k", "repetition_penalty", "return_token_ids"})
SAID = "There is a dog at the top left. A bird."


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        running.behave, running.extensions = said(), VLLM
        yield running


def said(text: str = SAID, finish: str = "stop", *, model: str = "", ids: list[int] | None = None, prompt: int = 0):
    """A server that always says this."""

    def behave(_server: ChatServer, body: dict[str, Any]) -> Response:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": finish,
        }
        if ids is not None and body.get("return_token_ids"):
            choice["token_ids"] = ids
        usage = {"prompt_tokens": prompt, "completion_tokens": 3, "total_tokens": prompt + 3}
        return JSONResponse(
            {
                "id": "c", "object": "chat.completion", "created": 0, "model": model or body["model"],
                "choices": [choice], "usage": usage,
            }
        )  # fmt: skip

    return behave


def make(root: Path, folder: Path, url: str, *, train: int = 6, **sections: Any) -> Workspace:
    endpoint = {"base_url": url, "model": str(folder), "api_key_required": False}
    section = {"engine": "server", "server": {"endpoint": endpoint, "max_retries": 0}, **sections.pop("rollout", {})}
    return tiny_workspace.make(root, folder, train=train, heldout=1, rollout=section, **sections)


def run(workspace: Workspace, **options: Any) -> StepResult:
    return rollout(Workspace.open(workspace.root), progress=SilentProgress(), **options)


def rows_of(workspace: Workspace) -> list[Rollout]:
    return read_records(workspace.rollouts, Rollout)


@pytest.fixture
def workspace(server: ChatServer, tiny_llava_folder: Path, tmp_path: Path) -> Workspace:
    return make(tmp_path / "ws", tiny_llava_folder, server.url)


@pytest.fixture(scope="module")
def processing(tiny_llava_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    workspace = tiny_workspace.make(tmp_path_factory.mktemp("p") / "ws", tiny_llava_folder, train=1, heldout=1)
    return load_processing(read_pin(workspace), workspace.recipe)


def test_every_row_is_asked_with_its_image_seed_and_the_recipe_s_sampling(
    server: ChatServer, workspace: Workspace
) -> None:
    result = run(workspace)
    prompts = {p.question: p for p in read_records(workspace.prompts / "prompts.parquet", Prompt) if p.split == "train"}
    rows = rows_of(workspace)
    assert (result.status, result.counts["rollouts"], result.counts["failed"]) == ("done", 6, 0)
    assert {b["seed"] for b in server.bodies} == {row.seed % 2**31 for row in rows}
    for body in server.bodies:
        assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (1.0, 0.95, 30, 12)
        assert (body["return_token_ids"], body["repetition_penalty"]) == (True, 1.0)
        assert "response_format" not in body
        image, question = body["messages"][0]["content"]
        assert question["text"] in prompts
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
    row = rows[0]
    assert row.response == SAID
    assert (row.adapter, row.template, row.image_aspect, row.finish_reason) == ("base", "toy", "pad", "stop")
    assert row.sampling == workspace.recipe.rollout.sampling
    assert row.model == read_pin(workspace).name


@pytest.mark.slow
def test_pictures_are_padded_as_the_recipe_says_since_servers_crop(
    server: ChatServer, workspace: Workspace, processing: Any
) -> None:
    for path in workspace.prompts.rglob("*.png"):
        Image.new("RGB", (80, 30), (250, 10, 10)).save(path)
    run(workspace)
    url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.size == (80, 80)
    square = processing.encode("A?", sent, "square").model_inputs["pixel_values"]
    ours = processing.encode("A?", Image.new("RGB", (80, 30), (250, 10, 10)), "pad").model_inputs["pixel_values"]
    np.testing.assert_array_equal(square, ours)


@pytest.mark.slow
def test_token_ids_are_the_server_s_where_it_tells_them(
    server: ChatServer, workspace: Workspace, processing: Any
) -> None:
    canonical = processing.family.encode_response(processing, SAID).input_ids
    letters = [f"\u0120{word}"[i] for word in SAID.split() for i in range(len(word) + 1)]
    spelled = processing.tokenizer.convert_tokens_to_ids(letters)
    assert len(spelled) > len(canonical)
    server.behave = said(f" {SAID}", ids=spelled)
    result = run(workspace)
    rows = rows_of(workspace)
    assert all(row.token_ids_exact for row in rows)
    assert rows[0].response_token_ids == [*spelled, processing.tokenizer.eos_token_id]
    assert rows[0].response == SAID
    assert not any("tokenized again" in warning for warning in result.warnings)


@pytest.mark.slow
def test_without_them_the_text_is_tokenized_and_training_is_told(
    server: ChatServer, workspace: Workspace, processing: Any
) -> None:
    server.behave = said(f" {SAID}\n", "length")
    result = run(workspace)
    rows = rows_of(workspace)
    assert not any(row.token_ids_exact for row in rows)
    assert {row.finish_reason for row in rows} == {"length"}
    assert processing.family.decode(processing, rows[0].response_token_ids) == rows[0].response == SAID
    assert result.counts["token_ids_exact"] == 0
    assert "token ids of 6 of 6 responses" in result.warnings[0]
    what = plans.variant("opadpo", None, None)[1]
    told = _off_policy_warnings(workspace, what, read_pin(workspace))
    assert len(told) == 1
    assert told[0].startswith("The token ids of 6 of 6 generated responses are not those that were sampled")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (said(ids=[5, 6, 7]), "token ids that the server tells do not spell its text"),
        (said(finish="tool_calls"), "the server stopped because of tool_calls"),
        (said("", ids=[3]), "image token in the response"),
        (lambda *_: servers.error(500), "500"),
        (lambda *_: HTMLResponse("<html>Bad gateway</html>"), "not JSON"),
    ],
    ids=["other tokenizer", "tool call", "image token", "500", "html"],
)
def test_what_is_no_response_of_the_base_is_left_out_with_the_reason_and_asked_again_on_demand(
    server: ChatServer, workspace: Workspace, behave: Any, reason: str
) -> None:
    good = said()
    server.behave = lambda s, body: (good if "dog" in servers.user_text(body) else behave)(s, body)
    result = run(workspace)
    assert (result.counts["rollouts"], result.counts["failed"]) == (2, 4)
    assert result.dropped == {"no response of the server": 4}
    assert reason in result.warnings[-1]
    assert "--retry failed" in result.warnings[-1]
    dropped = [json.loads(line) for line in (workspace.rollouts / "dropped.jsonl").read_text().splitlines()]
    assert all(reason in row["detail"] for row in dropped)
    server.bodies.clear()
    assert run(workspace).status == "up_to_date"
    assert server.bodies == []
    server.behave = said()
    again = run(workspace, retry_failed=True)
    assert (again.counts["rollouts"], again.counts["failed"], len(server.bodies)) == (6, 0, 4)


@pytest.mark.slow
def test_a_server_that_gives_nothing_usable_is_an_error(server: ChatServer, workspace: Workspace) -> None:
    server.behave = said(finish="tool_calls")
    with pytest.raises(StepFailed, match=r"(?s)no usable response.*6 rows, the first: the server stopped"):
        run(workspace)
    assert not workspace.rollouts.exists()


@pytest.mark.slow
def test_an_empty_response_is_a_response(server: ChatServer, workspace: Workspace, processing: Any) -> None:
    server.behave = said("")
    run(workspace)
    assert {row.response for row in rows_of(workspace)} == {""}
    assert rows_of(workspace)[0].response_token_ids == [processing.tokenizer.eos_token_id]


@pytest.mark.slow
def test_another_model_and_another_prompt_are_told(server: ChatServer, workspace: Workspace) -> None:
    server.behave = said(model="someone/else", prompt=7)
    result = run(workspace)
    assert {row.model for row in rows_of(workspace)} == {"someone/else"}
    assert any("calls its model someone/else" in warning for warning in result.warnings)
    prompts = next(warning for warning in result.warnings if "prompts are not the recipe's" in warning)
    assert "in 6 of 6 rows" in prompts
    assert "7 tokens at the server" in prompts
    what = plans.variant("opadpo", None, None)[1]
    assert "someone/else sampled them" in _off_policy_warnings(workspace, what, read_pin(workspace))[0]


@pytest.mark.slow
def test_settings_that_a_server_does_not_know_are_left_out_and_told(server: ChatServer, workspace: Workspace) -> None:
    server.extensions = frozenset()
    result = run(workspace)
    assert result.counts["rollouts"] == 6
    assert any("does not know repetition_penalty, top_k:" in warning for warning in result.warnings)


@pytest.mark.slow
def test_no_limit_of_top_k_is_said_so_and_several_servers_share_the_work(
    server: ChatServer, tiny_llava_folder: Path, tmp_path: Path
) -> None:
    with chat_server() as other:
        other.behave, other.extensions = said(), VLLM
        section: dict[str, Any] = {"top_k": 0, "samples_per_prompt": 2}
        workspace = make(tmp_path / "ws", tiny_llava_folder, server.url, rollout=section)
        second = json.dumps(
            [{"base_url": other.url, "model": str(tiny_llava_folder), "api_key_required": False, "concurrency": 1}]
        )
        both = Workspace.open(
            workspace.root,
            [f"rollout.server.more_endpoints={second}", "rollout.server.endpoint.concurrency=1"],
        )
        server.delay = other.delay = 0.1
        result = rollout(both, progress=SilentProgress())
        assert result.counts["rollouts"] == len(server.bodies) + len(other.bodies) == 12
        assert min(len(server.bodies), len(other.bodies)) > 2
        assert {body["top_k"] for body in server.bodies} == {-1}
        assert len({body["seed"] for body in [*server.bodies, *other.bodies]}) == 12


@pytest.mark.slow
def test_a_changed_setting_asks_anew_and_the_old_one_finds_its_answers(
    server: ChatServer, workspace: Workspace
) -> None:
    run(workspace)
    hot = Workspace.open(workspace.root, ["rollout.temperature=0.5"])
    rollout(hot, progress=SilentProgress())
    assert len(server.bodies) == 12
    run(workspace)
    assert len(server.bodies) == 12
    local = Workspace.open(workspace.root, ["rollout.engine=local"])
    assert local.state(plans.rollouts(local)) == "stale"


def test_a_server_without_an_address_is_a_mistake_in_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"rollout\.server\.endpoint\.base_url: seen null"):
        parse_recipe("rollout: {engine: server}")


RUN = (
    "import sys; from opadpo.workspace import Workspace; from opadpo.progress import SilentProgress;"
    " from opadpo.steps.rollout import rollout; rollout(Workspace.open(sys.argv[1]), progress=SilentProgress())"
)


@pytest.mark.slow
def test_killed_it_asks_nothing_twice_that_was_answered(
    server: ChatServer, tiny_llava_folder: Path, tmp_path: Path
) -> None:
    server.delay = 0.02
    workspace = make(tmp_path / "ws", tiny_llava_folder, server.url, train=40)
    process = subprocess.Popen([sys.executable, "-c", RUN, str(workspace.root)])
    server.kill(process.pid, at=24)
    assert process.wait() == -signal.SIGKILL
    server.settle()
    in_flight = workspace.recipe.rollout.server.concurrency
    assert workspace.state(plans.rollouts(workspace)) == "partial"
    assert run(workspace).counts["rollouts"] == 40
    assert 40 <= len(server.bodies) <= 40 + in_flight


@pytest.mark.slow
def test_transformers_serve_answers_over_http_as_the_local_engine_does(tmp_path: Path) -> None:
    """An independent implementation of protocol, template, image processing and greedy decoding."""
    folder = toy_folder()
    (tmp_path / "hub").mkdir()
    command = [
        "/usr/bin/env", "HF_HUB_OFFLINE=1", f"HF_HUB_CACHE={tmp_path / 'hub'}", "CUDA_VISIBLE_DEVICES=",
        "{python}", "-m", "transformers.cli.transformers", "serve", str(folder), "--host", "127.0.0.1",
        "--port", "{port}", "--device", "cpu",
    ]  # fmt: skip
    sections = {"temperature": 0, "max_new_tokens": 30}
    local = tiny_workspace.make(tmp_path / "local", folder, train=6, heldout=1, rollout=sections)
    run(local)
    with running_server(command, tmp_path / "server.log") as url:
        workspace = make(tmp_path / "ws", folder, url, rollout=sections)
        result = run(workspace)
        hot = make(tmp_path / "hot", folder, url, train=3, rollout={"samples_per_prompt": 3, "max_new_tokens": 30})
        sampled = run(hot)
    ours, theirs = rows_of(local), rows_of(workspace)
    assert [row.response for row in theirs] == [row.response for row in ours]
    assert [row.response_token_ids for row in theirs] == [row.response_token_ids for row in ours]
    assert [row.finish_reason for row in theirs] == [row.finish_reason for row in ours]
    assert {row.model for row in theirs} == {read_pin(workspace).name}
    assert [warning[:32] for warning in result.warnings if "cut at" not in warning] == [
        "The server did not tell the samp"
    ]
    assert sampled.counts["rollouts"] == 9
    # It samples: not one text over and over.
    assert len({row.response for row in rows_of(hot)}) > 3
