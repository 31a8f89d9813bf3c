import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import ChatServer, chat_server

from opadpo.errors import WorkspaceError
from opadpo.llm.asking import Asker, NotAsked
from opadpo.llm.client import ChatClient
from opadpo.llm.requests import Answer, ChatRequest, Failure, Message
from opadpo.llm.store import FailedRow, RequestStore
from opadpo.recipe.endpoints import EndpointSection
from opadpo.records import Usage


@pytest.fixture
def server():
    with chat_server() as running:
        running.behave = lambda _, body: servers.user_text(body).upper()
        yield running


def request(text: str) -> ChatRequest:
    return ChatRequest("m", (Message("user", text),))


def ask(server: ChatServer, path: Path, texts: list[str], **options: Any) -> list[Answer | Failure]:
    """Ask all texts at once."""

    async def work() -> list[Answer | Failure]:
        section = EndpointSection(base_url=server.url, model="m", api_key_required=False)
        with RequestStore.open(path) as store:
            async with ChatClient(section, max_retries=0) as client:
                asker = Asker(store, client, **options)
                return await asyncio.gather(*(asker.ask(request(text)) for text in texts))

    return asyncio.run(work())


def test_what_was_answered_is_not_asked_again(server: ChatServer, tmp_path: Path) -> None:
    first = ask(server, tmp_path / "r.db", ["a", "b", "a", "c"])
    again = ask(server, tmp_path / "r.db", ["c", "b", "a", "d"])
    assert [o.text for o in first if isinstance(o, Answer)] == ["A", "B", "A", "C"]
    assert [o.text for o in again if isinstance(o, Answer)] == ["C", "B", "A", "D"]
    assert server.asked == {"a": 1, "b": 1, "c": 1, "d": 1}


@pytest.mark.slow
def test_an_answer_is_on_disk_before_anyone_sees_it(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "r.db"

    async def work() -> None:
        section = EndpointSection(base_url=server.url, model="m", api_key_required=False)
        with RequestStore.open(path) as store:
            async with ChatClient(section, max_retries=0) as client:
                asker = Asker(store, client)

                async def one(text: str) -> None:
                    await asker.ask(request(text))
                    with sqlite3.connect(path) as other:
                        keys = {key for (key,) in other.execute("SELECT key FROM requests")}
                    assert request(text).key in keys

                await asyncio.gather(*(one(str(i)) for i in range(30)))

    asyncio.run(work())


@pytest.mark.slow
def test_failures_are_asked_again_only_on_demand_and_once_a_run(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    server.behave = lambda *_: servers.error(500)
    ask(server, path, ["a"])
    (kept,) = ask(server, path, ["a"])
    assert isinstance(kept, Failure)
    assert len(server.bodies) == 1

    async def twice() -> None:
        section = EndpointSection(base_url=server.url, model="m", api_key_required=False)
        with RequestStore.open(path) as store:
            async with ChatClient(section, max_retries=0) as client:
                asker = Asker(store, client, retry_failed=True)
                await asker.ask(request("a"))
                await asker.ask(request("a"))

    asyncio.run(twice())
    assert len(server.bodies) == 2
    server.behave = lambda *_: "fine"
    (answer,) = ask(server, path, ["a"], retry_failed=True)
    assert isinstance(answer, Answer)
    with RequestStore.open(path) as store:
        assert store.counts() == {"done": 1, "failed": 0}
        assert store.spent().requests == 3


def test_without_a_client_it_only_looks_up(tmp_path: Path) -> None:
    answer = Answer(text="x", usage=Usage(prompt_tokens=1, requests=1))
    with RequestStore.open(tmp_path / "r.db") as store:
        store.put([(request("a").key, answer)])
        assert asyncio.run(Asker(store).ask(request("a"))) == answer
        with pytest.raises(NotAsked):
            asyncio.run(Asker(store).ask(request("b")))


def test_rejected_answers_count_as_failed_and_keep_their_cost(tmp_path: Path) -> None:
    failure = Failure(kind="unusable_answer", reason="nonsense", retryable=True)
    with RequestStore.open(tmp_path / "r.db") as store:
        store.put([(request("a").key, Answer(text="x", usage=Usage(prompt_tokens=7, requests=1)))])
        Asker(store).reject([request("a")], failure)
        found = store.get(request("a").key)
        assert isinstance(found, Failure)
        assert (found.kind, found.reason, found.usage.prompt_tokens) == ("unusable_answer", "nonsense", 7)


def test_the_list_of_failed_rows_follows_the_runs(tmp_path: Path) -> None:
    rows = [FailedRow(f"r-{i}", "image", "missing") for i in range(3)]
    with RequestStore.open(tmp_path / "r.db") as store:
        store.put_rows("run 1", rows, [])
        store.put_rows("run 2", rows[:1], ["r-1"])
        assert store.failed_rows() == [rows[0], rows[2]]
        store.forget_rows("run 2")
        assert store.failed_rows() == [rows[0]]


def test_a_damaged_file_is_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"not a database at all " * 100)
    with pytest.raises(WorkspaceError, match=r"(?s)damaged.*asked \(and paid\) again"):
        RequestStore.open(tmp_path / "r.db")
