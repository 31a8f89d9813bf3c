"""Short forms of `benchmarks/llm_faults.py` and `benchmarks/llm_kills.py`."""

import multiprocessing
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import faults
import pytest
from asking_texts import as_process, ask_all, section
from servers import chat_server, user_text

from opadpo.llm.requests import Answer, Failure
from opadpo.llm.store import RequestStore

TEXTS = [f"question {number}" for number in range(120)]


@pytest.mark.slow
def test_when_everything_goes_wrong_now_and_then_every_row_ends_and_few_are_asked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opadpo.llm.client._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("opadpo.llm.limits._FIRST_PAUSE", 0.02)
    with chat_server() as server:
        server.behave = faults.at_random(0.3, 1, otherwise=lambda _, body: user_text(body).upper())
        settings = section(server.url, endpoint={"timeout": 2}, concurrency=32, max_retries=4)
        results = ask_all(settings, tmp_path / "r.db", TEXTS)
        assert server.wrong == []
        assert server.asked.total() <= 1.6 * len(TEXTS)
        assert len(server.faults) > 6
    assert set(results) == set(TEXTS)
    assert all(isinstance(outcome, Answer) or (outcome.kind and outcome.reason) for outcome in results.values())
    final = {outcome.kind for outcome in results.values() if isinstance(outcome, Failure)}
    assert final <= {"refusal", "content_filter", "length", "timeout", "server_error", "malformed_reply", "connection"}
    with RequestStore.open(tmp_path / "r.db") as store:
        assert store.spent().requests == server.asked.total()


def committed(path: Path) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM requests").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


@pytest.mark.slow
def test_killed_again_and_again_no_committed_answer_is_asked_for_again(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["openai", "opadpo.llm.connections", "opadpo.llm.working"])
    path = tmp_path / "r.db"
    with chat_server() as server:
        server.behave = lambda _, body: user_text(body)
        server.delay = 0.02
        settings = section(server.url, concurrency=4)
        for kill in range(1, 6):
            with RequestStore.open(path) as store:
                kept = {text for text in TEXTS if store.get(key_of(text)) is not None}
            before = server.asked.copy()
            process = processes.Process(target=as_process, args=(settings, path, TEXTS, {}))
            process.start()
            server.kill(process.pid or 0, before.total() + 4 * kill)
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            server.settle()
            assert not kept & set(server.asked - before)
            # Each request that was sent is on disk, or was one of those in flight.
            assert server.asked.total() - before.total() - (committed(path) - len(kept)) <= 4
        before, rest = server.asked.total(), len(TEXTS) - committed(path)
        assert 0 < rest < len(TEXTS)
        results = ask_all(settings, path, TEXTS)
        assert {text: o.text for text, o in results.items() if isinstance(o, Answer)} == {text: text for text in TEXTS}
        assert server.asked.total() - before == rest


def key_of(text: str) -> str:
    from asking_texts import request

    return request(text, max_tokens=100).key
