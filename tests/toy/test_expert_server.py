import base64
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from opadpo.errors import PortInUse
from opadpo.toy.captions import own_caption
from opadpo.toy.expert import judge
from opadpo.toy.expert_server import MODEL, serve
from opadpo.toy.world import Scene, png_bytes, render, sample_scene


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with serve() as url:
        yield url


def data_uri(scene: Scene) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(render(scene))).decode()


def user_text(sentences: dict[int, str]) -> str:
    lines = "\n".join(f"[{index}] {sentence}" for index, sentence in sentences.items())
    return f"<question>Describe the image.</question>\n<reference>Unused.</reference>\n<response>\n{lines}\n</response>"


def body(scene: Scene, sentences: dict[int, str]) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": user_text(sentences)},
        {"type": "image_url", "image_url": {"url": data_uri(scene)}},
    ]
    return {"model": MODEL, "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": parts}]}


def scene_and_sentences(seed: int) -> tuple[Scene, dict[int, str]]:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    pieces = own_caption(scene, rng).removesuffix(".").split(". ")
    return scene, {index: f"{piece}." for index, piece in enumerate(pieces, start=1)}


@pytest.mark.slow
def test_the_openai_client_gets_the_judgement_of_what_the_picture_shows(base_url: str):
    client = openai.OpenAI(base_url=base_url, api_key="anything", max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    for seed in range(10):
        scene, sentences = scene_and_sentences(seed)
        request = body(scene, sentences)
        completion = client.chat.completions.create(
            **request,
            response_format={"type": "json_schema", "json_schema": {"name": "revision", "schema": {"type": "object"}}},
        )
        answer = json.loads(completion.choices[0].message.content or "")
        assert answer == judge(sentences, scene.truth()).model_dump(mode="json")
        assert completion.choices[0].finish_reason == "stop"
        assert completion.id.startswith("chatcmpl-")
        assert completion.usage is not None
        usage = completion.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_same_sentences_are_judged_differently_under_another_picture(base_url: str):
    scene, sentences = scene_and_sentences(1)
    other = scene_and_sentences(2)[0]
    answers = [
        httpx.post(f"{base_url}/chat/completions", json=body(picture, sentences)).json()["choices"][0]["message"]
        for picture in (scene, other)
    ]
    assert answers[0] != answers[1]


def without_image(request: dict[str, Any]) -> None:
    request["messages"][1]["content"].pop()


def remote_image(request: dict[str, Any]) -> None:
    request["messages"][1]["content"][1]["image_url"]["url"] = "https://example.org/cat.png"


def broken_image(request: dict[str, Any]) -> None:
    request["messages"][1]["content"][1]["image_url"]["url"] = "data:image/png;base64,aGVsbG8="


def no_block(request: dict[str, Any]) -> None:
    request["messages"][1]["content"][0]["text"] = "What is this?"


def no_sentences(request: dict[str, Any]) -> None:
    request["messages"][1]["content"][0]["text"] = "<response>\nThere is a cup.\n</response>"


def number_twice(request: dict[str, Any]) -> None:
    request["messages"][1]["content"][0]["text"] = "<response>\n[1] A.\n[1] B.\n</response>"


def no_messages(request: dict[str, Any]) -> None:
    del request["messages"]


def streaming(request: dict[str, Any]) -> None:
    request["stream"] = True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (without_image, "invalid_image"),
        (remote_image, "invalid_image_url"),
        (broken_image, "invalid_image"),
        (no_block, "no_response_block"),
        (no_sentences, "no_sentences"),
        (number_twice, "no_sentences"),
        (no_messages, "invalid_request"),
        (streaming, "unsupported_parameter"),
    ],
)
def test_malformed_requests_are_refused_in_the_openai_form(base_url: str, spoil: Any, code: str):
    request = body(*scene_and_sentences(0))
    spoil(request)
    client = openai.OpenAI(base_url=base_url, api_key="anything", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=request, cast_to=object)
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert caught.value.message


@pytest.mark.slow
def test_unknown_model_address_method_and_body(base_url: str):
    request = body(*scene_and_sentences(0)) | {"model": "gpt-4o"}
    reply = httpx.post(f"{base_url}/chat/completions", json=request)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "gpt-4o" in reply.json()["error"]["message"]
    assert httpx.get(f"{base_url}/models/gpt-4o").json()["error"]["code"] == "model_not_found"
    assert httpx.get(f"{base_url}/nothing").json()["error"]["code"] == "not_found"
    assert httpx.get(f"{base_url}/chat/completions").status_code == 405
    for content in (b"not json", b"[]", b"\xff"):
        assert httpx.post(f"{base_url}/chat/completions", content=content).status_code == 400


@pytest.mark.slow
def test_port_in_use_is_said_plainly():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)), serve(port=port):
            pass
        run = subprocess.run(
            [sys.executable, "-m", "opadpo.toy.expert_server", "--port", str(port)], capture_output=True, text=True
        )
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr


@pytest.mark.slow
def test_as_a_process_it_announces_its_port_and_ends_on_a_signal(tmp_path: Path):
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "opadpo.toy.expert_server", "--port-file", str(port_file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while not port_file.exists():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.02)
            url = f"http://127.0.0.1:{int(port_file.read_text())}/v1"
            # The socket listens before the port is announced, so that this never meets a closed door.
            reply = httpx.post(f"{url}/chat/completions", json=body(*scene_and_sentences(0)), timeout=30)
            assert reply.status_code == 200
        finally:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
