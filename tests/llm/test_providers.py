"""Keys and providers: where keys come from, how each provider is asked, and that no key is ever shown or kept."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import faults
import keyring
import keyring.backend
import keyring.errors
import pytest
import servers
from asking_texts import ask_all, request, section
from PIL import Image
from servers import ChatServer, chat_server
from starlette.requests import Request
from starlette.responses import JSONResponse

from opadpo.errors import DependencyMissing, EndpointError, StepFailed
from opadpo.hashing import file_digest
from opadpo.llm.client import ChatClient
from opadpo.llm.keys import endpoint_key
from opadpo.llm.requests import Answer, Failure, Picture
from opadpo.recipe.endpoints import AskingSection, EndpointSection

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", SECRET)
    with chat_server() as running:
        running.behave = lambda *_: "hello"
        yield running


def ask(asked: EndpointSection | AskingSection, count: int = 1, **options: Any) -> list[Answer | Failure]:
    async def work() -> list[Answer | Failure]:
        async with ChatClient(asked, **options) as client:
            return list(await asyncio.gather(*(client.ask(request(f"hi {number}")) for number in range(count))))

    return asyncio.run(work())


def azure(server: ChatServer, **more: Any) -> EndpointSection:
    resource = server.url.removesuffix("/v1")
    return EndpointSection(
        **{"provider": "azure", "base_url": resource, "model": "my-deployment", "api_key_env": "TEST_KEY", **more}
    )


# -- Azure -----------------------------------------------------------------------------------------------------


def test_azure_with_a_version_asks_the_deployment(server: ChatServer) -> None:
    (answer,) = ask(azure(server, api_version="2024-10-21"))
    assert isinstance(answer, Answer)
    assert answer.model == "test-model-2026"
    assert server.paths == ["GET /openai/models", "POST /openai/deployments/my-deployment/chat/completions"]
    assert server.headers[0]["api-key"] == SECRET
    assert server.bodies[0]["model"] == "my-deployment"


@pytest.mark.slow
def test_azure_without_a_version_takes_its_newer_form(server: ChatServer) -> None:
    ask(azure(server))
    assert server.paths == ["GET /openai/v1/models", "POST /openai/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"


def test_azure_needs_the_address_of_the_resource(server: ChatServer) -> None:
    with pytest.raises(EndpointError, match=r"(?s)address of the resource.*openai\.azure\.com"):
        ask(azure(server, base_url=None))


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """The identity service of a machine in Azure, on loopback: azure-identity itself asks it for tokens."""

    def token(running: ChatServer, _request: Request) -> JSONResponse:
        running.asked["token"] += 1
        expires = int(time.time()) + 3600
        return JSONResponse({"access_token": "entra-token-1", "expires_on": str(expires), "token_type": "Bearer"})

    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "TEST_KEY"):
        monkeypatch.delenv(name, raising=False)
    with chat_server(extra={"/token": token}) as running:
        monkeypatch.setenv("IDENTITY_ENDPOINT", running.url.replace("/v1", "/token"))
        monkeypatch.setenv("IDENTITY_HEADER", "header")
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("version", [None, "2024-10-21"])
def test_azure_with_entra_signs_in_and_keeps_the_token(
    server: ChatServer, identity: ChatServer, version: str | None
) -> None:
    outcomes = ask(azure(server, entra=True, api_version=version), count=5)
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer entra-token-1"}
    assert identity.asked["token"] == 1


@pytest.mark.slow
def test_an_entra_token_in_an_error_is_not_shown(server: ChatServer, identity: ChatServer) -> None:
    server.behave = lambda *_: servers.error(400, None, "bad request by Bearer entra-token-1")
    (failure,) = ask(azure(server, entra=True))
    assert isinstance(failure, Failure)
    assert failure.reason.endswith("by Bearer ***")


@pytest.mark.slow
def test_signing_in_that_fails_is_one_clear_message(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    with pytest.raises(EndpointError, match=r"(?s)Entra has failed.*az login"):
        ask(azure(server, entra=True))


def test_entra_without_its_package_is_one_clear_message(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(DependencyMissing, match=r"(?s)azure-identity.*opadpo\[azure\]"):
        ask(azure(server, entra=True))


# -- keys ------------------------------------------------------------------------------------------------------


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1.0  # pyright: ignore[reportAssignmentType]  # a class property in the base

    def __init__(self, entries: dict[tuple[str, str], str] | None) -> None:
        self.entries = entries

    def get_password(self, service: str, username: str) -> str | None:
        if self.entries is None:
            raise keyring.errors.KeyringLocked("locked")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        assert self.entries is not None
        self.entries[service, username] = password


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    made = Ring({})
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_key_comes_from_the_environment_or_else_from_the_keyring(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = EndpointSection(api_key_env="RING_KEY")
    keyring.set_password("opadpo", "RING_KEY", "sk-ring")
    assert endpoint_key(endpoint) == "sk-ring"
    monkeypatch.setenv("RING_KEY", "sk-environment")
    assert endpoint_key(endpoint) == "sk-environment"


@pytest.mark.parametrize("entries", [{}, None])
def test_without_a_key_or_with_a_locked_keyring_the_message_says_how_to_set_one(
    ring: Ring, entries: dict[tuple[str, str], str] | None
) -> None:
    ring.entries = entries
    with pytest.raises(EndpointError, match=r"(?s)RING_KEY is not set.*keyring set opadpo RING_KEY"):
        endpoint_key(EndpointSection(api_key_env="RING_KEY"))


def test_the_key_is_nowhere_whatever_a_server_repeats(server: ChatServer, tmp_path: Path) -> None:
    def indiscreet(_server: ChatServer, body: dict[str, Any]) -> Any:
        said = servers.user_text(body)
        if said == "error":
            return servers.error(400, None, f"Incorrect header Authorization: Bearer {SECRET}")
        if said == "fault":
            return servers.error(500, SECRET, f"crash with {SECRET}")
        if said == "odd":
            return JSONResponse({"error": {"message": f"key {SECRET} is odd"}})
        if said == "refusal":
            return servers.completion(None, refusal=f"I will not use {SECRET}")
        return f"Your key is {SECRET}."

    server.behave = indiscreet
    settings = section(server.url, endpoint={"api_key_required": True, "api_key_env": "TEST_KEY"})
    texts = ["error", "fault", "odd", "refusal", "answer"]
    results = ask_all(settings, tmp_path / "r.db", texts, agree=lambda _: True)
    assert SECRET not in str(results)
    assert "***" in str(results["error"])
    assert isinstance(results["answer"], Answer)
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(EndpointError, match="holds a password") as caught:
        ask(EndpointSection(base_url=f"https://me:{SECRET}@host/v1", api_key_required=False))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", ["http://host/v1?api-key=SECRET", "http://host/v1#SECRET", "http://:99?SECRET"])
def test_what_comes_after_the_path_of_an_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(EndpointError, match=r"goes on after a [?#]|is no URL") as caught:
        ask(EndpointSection(base_url=address.replace("SECRET", SECRET), api_key_required=False))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("key", ["sk-proj-abcdef", "0123456789abcdef", "aKeyWithoutSigns"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_shown(key: str, needed: bool) -> None:
    with pytest.raises(EndpointError, match="name of a variable, not the key") as caught:
        ask(EndpointSection(base_url="http://host/v1", api_key_env=key, api_key_required=needed))
    assert key not in str(caught.value)


# -- pauses ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "least"),
    [
        ({"retry-after": "0.4"}, 0.4),
        ({"retry-after-ms": "400"}, 0.4),
        ({"retry-after": "DATE"}, 0.9),
    ],
)
def test_a_pause_that_the_server_asks_for_holds_for_all(
    server: ChatServer, header: dict[str, str], least: float
) -> None:
    times: list[float] = []

    def busy_once(_server: ChatServer, _body: dict[str, Any]) -> Any:
        times.append(time.monotonic())
        if len(times) == 1:
            # A date has whole seconds.
            until = formatdate(time.time() + 2, usegmt=True)
            return servers.error(
                429, "rate_limit_exceeded", "slow", {k: v.replace("DATE", until) for k, v in header.items()}
            )
        return "fine"

    server.behave = busy_once
    one_by_one = section(server.url, concurrency=1, endpoint={"concurrency": 1}, max_retries=4)
    outcomes = ask(one_by_one, count=3)
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    assert times[1] - times[0] >= least
    assert len(times) == 4


def test_a_pause_that_is_too_long_stops_with_the_time(server: ChatServer) -> None:
    server.behave = lambda *_: servers.error(429, None, "daily limit", {"retry-after": "7200"})
    with pytest.raises(StepFailed, match=r"(?s)long pause.*7200 s"):
        ask(section(server.url, max_retries=4))


# -- sending ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_is_encoded_once_however_often_it_is_sent(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    Image.effect_noise((600, 300), 60).convert("RGB").save(path)
    reads: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read(self))
    replies = iter([servers.error(500), faults.Reset(), servers.error(503, headers={"retry-after": "0"}), "seen"])
    server.behave = lambda *_: next(replies)
    picture = Picture(path, file_digest(path), 256, detail="low", stored=True)

    async def work() -> Answer | Failure:
        async with ChatClient(section(server.url, max_retries=4)) as client:
            return await client.ask(request("look", picture))

    outcome = asyncio.run(work())
    assert isinstance(outcome, Answer)
    assert outcome.usage.requests == 4
    assert reads.count(path) == 1
    assert len({json.dumps(body) for body in server.bodies}) == 1
    assert server.bodies[0]["messages"][0]["content"][0]["image_url"]["detail"] == "low"
    assert server.wrong == []


def test_a_stored_image_that_has_changed_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(path, exif=turned)
    as_stored = Picture(path, file_digest(path), 64, stored=True)
    assert as_stored.size() == (40, 20)
    changed = Picture(path, "0" * 64, 64, stored=True)
    assert changed.data_uri() != as_stored.data_uri()
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Exception, match=r"decoded|readable|image"):
        changed.data_uri()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torn JSON", "HTML with 200", "reset", "500", "503", "429", "429 until a date"])
def test_what_passes_is_tried_again_and_every_request_is_counted(server: ChatServer, name: str) -> None:
    replies = iter([faults.FAULTS[name], lambda _body: "fine"])
    server.behave = lambda _, body: next(replies)(body)
    (answer,) = ask(section(server.url, max_retries=2))
    assert isinstance(answer, Answer)
    assert answer.usage.requests == len(server.bodies) == 2
