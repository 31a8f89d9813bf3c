import asyncio
import base64
import io
import itertools
import json
import re
from pathlib import Path
from typing import Any

import faults
import pytest
import servers
from PIL import Image
from servers import ChatServer, chat_server, completion
from starlette.responses import JSONResponse, Response

from opadpo.errors import EndpointError, StepFailed
from opadpo.hashing import file_digest
from opadpo.llm.client import ChatClient
from opadpo.llm.requests import Answer, ChatRequest, Failure, Message, Picture, Sample
from opadpo.llm.store import RequestStore
from opadpo.recipe.endpoints import EndpointSection


@pytest.fixture
def server():
    with chat_server() as running:
        running.behave = lambda *_: "hello"
        yield running


def ask(url: str, *, count: int = 1, retries: int = 0, timeout: float = 20, request: Any = None, **endpoint: Any):
    """Outcomes of the same request asked `count` times, one after the other."""
    section = EndpointSection(
        base_url=url, model="m", timeout=timeout, **{"api_key_env": "TEST_KEY", "api_key_required": False, **endpoint}
    )
    request = request or ChatRequest("m", (Message("user", "hi"),), schema={"type": "object"}, temperature=0.0)

    async def work() -> list[Answer | Failure]:
        async with ChatClient(section, max_retries=retries) as client:
            return [await client.ask(request) for _ in range(count)]

    return asyncio.run(work())


def one_failure(server: ChatServer, **options: Any) -> Failure:
    (outcome,) = ask(server.url, **options)
    assert isinstance(outcome, Failure)
    return outcome


def test_an_answer_comes_with_the_model_that_the_server_reports_and_its_usage(server: ChatServer) -> None:
    (answer,) = ask(server.url)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.model, answer.finish_reason) == ("hello", "test-model-2026", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.requests) == (100, 10, 1)
    schema = server.bodies[0]["response_format"]["json_schema"]
    assert schema == {"name": "answer", "strict": True, "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("behave", "kind", "words"),
    [
        (lambda _, body: faults.html(body), "malformed_reply", "not JSON|no chat completion"),
        (lambda _, body: faults.torn_json(body), "malformed_reply", "not JSON"),
        (lambda *_: JSONResponse({"error": {"message": "overloaded"}}), "malformed_reply", "overloaded"),
        (lambda *_: JSONResponse([1, 2]), "malformed_reply", "no chat completion"),
        (lambda *_: Response("[" * 100_000), "malformed_reply", "not JSON"),
        (lambda *_: escaped({"error": {"message": "half \ud83d"}}, 400), "bad_request", "half \ufffd"),
        (lambda *_: JSONResponse({"choices": "none"}), "malformed_reply", "no chat completion"),
        (lambda *_: completion(None), "malformed_reply", "empty"),
        (lambda *_: completion(None, refusal="I cannot help"), "refusal", "I cannot help"),
        (lambda *_: completion("{", "length"), "length", "cut at 10 tokens"),
        (lambda *_: completion("", "content_filter"), "content_filter", "filter"),
        (lambda *_: servers.error(400, "content_filter", "flagged"), "content_filter", "flagged"),
        (lambda *_: servers.error(400, None, "context too long"), "bad_request", "context too long"),
        (lambda *_: servers.error(429), "rate_limit", "429"),
        (lambda *_: servers.error(500), "server_error", "500"),
        (lambda *_: Response("<html>down</html>", 503), "server_error", "503"),
    ],
)
def test_what_goes_wrong_with_one_row_is_a_failure_with_its_reason(
    server: ChatServer, behave: servers.Behaviour, kind: str, words: str
) -> None:
    server.behave = behave
    failure = one_failure(server)
    assert failure.kind == kind
    assert re.search(words, failure.reason)
    assert failure.usage.requests == 1


def escaped(reply: dict[str, Any], status: int = 200) -> Response:
    """A reply with everything but ASCII as escapes, which alone can hold half a surrogate pair."""
    return Response(json.dumps(reply), status, media_type="application/json")


@pytest.mark.slow
def test_an_answer_that_no_file_takes_as_it_is_can_be_kept(server: ChatServer, tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "half \ud83d, whole \U0001f600, NUL \0, ü"}
    usage = {"prompt_tokens": 10**30, "completion_tokens": 7, "total_tokens": 7}
    choices = [{"index": 0, "finish_reason": "stop \udc00", "message": message, "token_ids": [1, 2**70]}]
    server.behave = lambda *_: escaped({"choices": choices, "usage": usage, "model": "m\ud800"})
    asked = ChatRequest("m", (Message("user", "hi"),), sample=Sample(0, 1.0, 0))
    (answer,) = ask(server.url, request=asked)
    with RequestStore.open(tmp_path / "r.db") as store:
        store.put([("k", answer)])
        kept = store.get("k")
    assert kept == answer
    assert isinstance(kept, Answer)
    assert (kept.text, kept.model) == ("half \ufffd, whole \U0001f600, NUL \ufffd, ü", "m\ufffd")
    assert (kept.token_ids, kept.usage.prompt_tokens, kept.usage.completion_tokens) == (None, 0, 7)


@pytest.mark.parametrize("answered", [True, False])
def test_where_nothing_is_ever_answered_asking_stops(server: ChatServer, answered: bool) -> None:
    replies = itertools.count()
    server.behave = lambda *_: "fine" if answered and next(replies) == 31 else servers.error(400, None, "too long")
    if answered:
        assert len(ask(server.url, count=70)) == 70
        return
    with pytest.raises(StepFailed, match=r"None of the first 32 requests was answered\n.*32 times .*too long"):
        ask(server.url, count=70)
    assert len(server.bodies) == 32


@pytest.mark.slow
def test_a_server_that_hangs_is_a_failure_after_the_time_out(server: ChatServer) -> None:
    async def hang(*_: Any) -> str:
        await asyncio.sleep(3)
        return "late"

    server.behave = lambda *_: hang()
    failure = one_failure(server, timeout=1)
    assert (failure.kind, failure.retryable, failure.reason) == ("timeout", True, "no reply within 1 s")


@pytest.mark.slow
def test_passing_errors_are_tried_again_and_every_attempt_is_counted(server: ChatServer) -> None:
    replies = iter([servers.error(429, headers={"retry-after-ms": "10"}), servers.error(500), "fine"])
    server.behave = lambda *_: next(replies)
    (answer,) = ask(server.url, retries=2)
    assert isinstance(answer, Answer)
    assert answer.usage.requests == len(server.bodies) == 3


@pytest.mark.slow
def test_settings_that_a_server_does_not_know_are_left_out_from_then_on(server: ChatServer) -> None:
    def strict(_server: ChatServer, body: dict[str, Any]) -> Any:
        for name in ("response_format", "max_tokens", "temperature"):
            if name in body:
                return servers.error(400, "unsupported_parameter", f"Unsupported parameter: '{name}'")
        return "fine"

    server.behave = strict
    outcomes = ask(server.url, count=2)
    assert all(isinstance(o, Answer) for o in outcomes)
    assert [o.usage.requests for o in outcomes] == [4, 1]
    assert server.bodies[-1]["max_completion_tokens"] == 4096


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (lambda *_: servers.error(401, "invalid_api_key", "bad key sk-secret"), r"refuses the key.*TEST_KEY"),
        (lambda *_: servers.error(403), r"refuses the key"),
        (lambda *_: servers.error(429, "insufficient_quota", "quota"), r"insufficient_quota.*add credit"),
        (lambda *_: servers.error(402, None, "top up"), r"no credit left \(402\).*top up.*add credit"),
        (lambda *_: servers.error(404, "model_not_found", "no such model"), r"model m at .*no such model"),
    ],
)
def test_what_no_request_can_survive_stops_at_once_and_never_shows_the_key(
    server: ChatServer, behave: servers.Behaviour, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    server.behave = behave
    with pytest.raises(EndpointError, match=rf"(?s){words}") as caught:
        ask(server.url, retries=4)
    assert "sk-secret" not in str(caught.value)
    assert len(server.bodies) == 1
    assert server.keys == {"Bearer sk-secret"}


@pytest.mark.slow
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_an_address_where_nobody_answers_is_an_error_before_anything_is_asked(url: str) -> None:
    with pytest.raises(EndpointError, match=r"(?s)cannot be reached.*base_url"):
        ask(url)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http:///v1",
        "http://host:99999/v1",
        "http://host:abc/v1",
        "http://[::1",
        "http://a b/v1",
    ],
)
def test_an_address_that_is_no_url_is_an_error(url: str) -> None:
    with pytest.raises(EndpointError, match="no URL"):
        ask(url)


@pytest.mark.slow
def test_a_missing_key_is_an_error_before_any_call(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(EndpointError, match=r"(?s)TEST_KEY is not set.*export TEST_KEY"):
        ask(server.url, api_key_required=True)
    assert server.bodies == []
    assert server.keys == set()


def test_a_server_that_goes_away_stops_the_step_after_some_rows() -> None:
    with chat_server() as server:
        server.behave = lambda *_: "fine"
        url = server.url

        async def work() -> list[Any]:
            section = EndpointSection(base_url=url, model="m", api_key_required=False, timeout=5)
            async with ChatClient(section, max_retries=0) as client:
                request = ChatRequest("m", (Message("user", "hi"),))
                outcomes: list[Any] = [await client.ask(request)]
                await asyncio.to_thread(server.stop)
                for _ in range(15):
                    outcomes.append(await client.ask(request))
                with pytest.raises(StepFailed, match="stopped answering"):
                    await client.ask(request)
                return outcomes

        outcomes = asyncio.run(work())
    assert isinstance(outcomes[0], Answer)
    assert {o.kind for o in outcomes[1:]} == {"connection"}


def picture(path: Path, size: tuple[int, int], max_side: int) -> Picture:
    Image.effect_noise(size, 50).convert("RGB").save(path)
    return Picture(path, file_digest(path), max_side)


def test_an_image_that_fits_goes_out_byte_for_byte(tmp_path: Path, server: ChatServer) -> None:
    shown = picture(tmp_path / "a.png", (64, 64), 64)
    ask(server.url, request=ChatRequest("m", (Message("user", "look", shown),)))
    image, text = server.bodies[0]["messages"][0]["content"]
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == shown.path.read_bytes()
    assert text == {"type": "text", "text": "look"}


@pytest.mark.parametrize(("max_side", "expected"), [(400, ("JPEG", (400, 200))), (100, ("PNG", (100, 50)))])
def test_a_large_image_is_scaled_down(tmp_path: Path, max_side: int, expected: tuple[str, tuple[int, int]]) -> None:
    uri = picture(tmp_path / "a.jpg", (800, 400), max_side).data_uri()
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        assert (image.format, image.size) == expected


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"0" * 50])
def test_an_image_that_is_missing_or_broken_is_a_failure_and_no_request(
    tmp_path: Path, server: ChatServer, content: bytes | None
) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    failure = one_failure(server, request=ChatRequest("m", (Message("user", "look", Picture(path, "0", 64)),)))
    assert failure.kind == "image"
    assert failure.usage.requests == 0
    assert server.bodies == []


def test_the_key_of_a_request_follows_its_content(tmp_path: Path) -> None:
    def request(text: str = "a", side: int = 64, **fields: Any) -> ChatRequest:
        return ChatRequest("m", (Message("user", text, Picture(tmp_path / "x", "0", side)),), **fields)

    assert request().key == request().key
    keys = {r.key for r in (request(), request("b"), request(side=32), request(temperature=0.0))}
    assert len(keys) == 4
    # A longer answer may be allowed later without asking again; a sample is cut by design.
    assert request(max_tokens=1).key == request().key
    sample = Sample(0, 1.0, 0)
    assert request(max_tokens=1, sample=sample).key != request(sample=sample).key
