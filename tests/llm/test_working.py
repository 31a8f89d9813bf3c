import asyncio
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import servers
from asking_texts import ask_all, section
from servers import ChatServer, chat_server, user_text
from starlette.responses import JSONResponse, Response

from opadpo.errors import BudgetReached, CostRefused, EndpointError, UserError
from opadpo.llm.requests import Answer, Failure
from opadpo.llm.store import RequestStore
from opadpo.progress import SilentProgress
from opadpo.recipe.endpoints import EndpointSection

PRICES = {"m": {"input": 1000.0, "output": 1000.0}, "test-model": {"input": 1000.0, "output": 1000.0}}
"""A tenth of a cent for each token: an answer of the server, 100 in and 10 out, costs $0.11."""
PAID = {"endpoint": {"api_key_required": True, "api_key_env": "TEST_KEY"}, "prices": PRICES}
TEXTS = [f"question {number}" for number in range(40)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    with chat_server() as running:
        running.behave = lambda _, body: user_text(body).upper()
        yield running


@pytest.mark.slow
def test_an_interruption_beside_a_running_loop_ends_the_asking(server: ChatServer, tmp_path: Path) -> None:
    """As in a notebook, whose cells run in the kernel's loop."""
    ended = threading.Event()

    def press(_: ChatServer, body: dict[str, Any]) -> str:
        if server.asked.total() == 5:
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(timeout=60)
        return user_text(body).upper()

    async def cell() -> None:
        ask_all(section(server.url, concurrency=2), tmp_path / "r.db", TEXTS)

    server.behave = press
    loop = asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(cell())
    ended.set()
    loop.close()
    assert server.asked.total() <= 6
    assert len(ask_all(section(server.url), tmp_path / "r.db", TEXTS)) == len(TEXTS)
    assert server.asked.total() <= len(TEXTS) + 2, "asked again is only what was on its way"


@pytest.mark.slow
def test_any_step_gets_answers_and_asks_back(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda _, body: "fine" if "really" in user_text(body) else "again, please"
    results = ask_all(section(server.url), tmp_path / "r.db", TEXTS)
    assert {outcome.text for outcome in results.values() if isinstance(outcome, Answer)} == {"fine"}
    assert list(results) != []
    assert server.asked.total() == 2 * len(TEXTS)
    assert len(ask_all(section(server.url), tmp_path / "r.db", TEXTS)) == len(TEXTS)
    assert server.asked.total() == 2 * len(TEXTS)
    assert server.wrong == []


@pytest.mark.slow
def test_the_price_is_told_before_the_first_call_and_the_true_one_is_kept(server: ChatServer, tmp_path: Path) -> None:
    progress = SilentProgress()
    ask_all(section(server.url, **PAID, ask_above_usd=100), tmp_path / "r.db", TEXTS, progress=progress)
    assert "estimate: 40 requests" in progress.messages[0]
    assert "about $4.2" in progress.messages[0]
    with RequestStore.open(tmp_path / "r.db") as store:
        assert store.spent().cost_usd == pytest.approx(40 * 0.11)


@pytest.mark.slow
def test_above_the_set_amount_somebody_has_to_agree(server: ChatServer, tmp_path: Path) -> None:
    dear = section(server.url, **PAID, ask_above_usd=1)
    with pytest.raises(CostRefused, match=r"(?s)40 requests.*--yes"):
        ask_all(dear, tmp_path / "r.db", TEXTS)
    with pytest.raises(CostRefused, match="did not agree"):
        ask_all(dear, tmp_path / "r.db", TEXTS, agree=lambda _: False)
    assert server.paths == []
    asked: list[Any] = []
    ask_all(dear, tmp_path / "r.db", TEXTS, agree=lambda estimate: not asked.append(estimate))
    assert [estimate.requests for estimate in asked] == [40]
    assert server.asked.total() == 40
    # Nothing is left to ask for: nobody is asked either.
    ask_all(dear, tmp_path / "r.db", TEXTS)


@pytest.mark.slow
def test_a_paid_model_without_a_price_is_asked_about_too(server: ChatServer, tmp_path: Path) -> None:
    unpriced = section(server.url, **{**PAID, "prices": {}})
    with pytest.raises(CostRefused, match=r"(?s)no price.*prices: {m: {.*--yes"):
        ask_all(unpriced, tmp_path / "r.db", TEXTS)
    assert server.paths == []
    ask_all(unpriced, tmp_path / "r.db", TEXTS, agree=lambda _: True)
    assert server.asked.total() == 40


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_budget_is_never_exceeded_and_a_larger_one_goes_on(
    server: ChatServer, tmp_path: Path, concurrency: int
) -> None:
    server.delay = 0.005
    limited = section(server.url, **PAID, ask_above_usd=100, max_cost_usd=2.0, concurrency=concurrency)
    with pytest.raises(BudgetReached, match=r"(?s)of \$2\.0000 spent.*max_cost_usd"):
        ask_all(limited, tmp_path / "r.db", TEXTS)
    with RequestStore.open(tmp_path / "r.db") as store:
        spent, counts = store.spent().cost_usd, store.counts()
    # The most that a request can cost is 100 tokens of answer and its own: the rest of the budget is less.
    assert 2.0 - 0.35 < spent <= 2.0
    assert counts["done"] == server.asked.total() == round(spent / 0.11)
    with pytest.raises(BudgetReached):
        ask_all(limited, tmp_path / "r.db", TEXTS)
    with RequestStore.open(tmp_path / "r.db") as store:
        assert store.spent().cost_usd <= 2.0
    larger = limited.model_copy(update={"max_cost_usd": 10.0})
    assert len(ask_all(larger, tmp_path / "r.db", TEXTS)) == 40
    assert server.asked.total() == 40


@pytest.mark.slow
def test_a_budget_holds_where_the_server_does_not_tell_what_it_used(server: ChatServer, tmp_path: Path) -> None:
    def silent(*_: Any) -> Response:
        reply = json.loads(bytes(servers.completion("fine").body))
        return JSONResponse({name: value for name, value in reply.items() if name != "usage"})

    server.behave = silent
    progress = SilentProgress()
    limited = section(server.url, **PAID, ask_above_usd=100, max_cost_usd=2.0)
    with pytest.raises(BudgetReached):
        ask_all(limited, tmp_path / "r.db", TEXTS, progress=progress)
    assert 0 < server.asked.total() < 2.0 / 0.1
    assert [warning.partition(":")[0] for warning in progress.warnings] == [
        "The server does not tell how many tokens it used"
    ]


def test_a_budget_without_a_price_is_refused_before_any_call(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)no price of m.*prices: \{m:"):
        ask_all(section(server.url, max_cost_usd=1), tmp_path / "r.db", TEXTS)
    assert server.paths == []


@pytest.mark.slow
def test_a_hard_stop_loses_nothing(server: ChatServer, tmp_path: Path) -> None:
    def poor(running: ChatServer, body: dict[str, Any]) -> Any:
        if running.asked.total() > 25:
            return servers.error(429, "insufficient_quota", "You exceeded your current quota")
        return user_text(body)

    server.behave = poor
    server.delay = 0.005
    with pytest.raises(EndpointError, match="insufficient_quota"):
        ask_all(section(server.url, concurrency=8), tmp_path / "r.db", TEXTS)
    with RequestStore.open(tmp_path / "r.db") as store:
        assert store.counts() == {"done": 25, "failed": 0}
    assert server.asked.total() <= 25 + 8
    server.behave = lambda _, body: user_text(body)
    server.asked.clear()
    assert len(ask_all(section(server.url), tmp_path / "r.db", TEXTS)) == 40
    assert server.asked.total() == 15


@pytest.mark.slow
def test_several_servers_share_the_work_by_their_room_and_one_that_dies_is_left_out(
    server: ChatServer, tmp_path: Path
) -> None:
    with chat_server() as other:
        for each in (server, other):
            each.behave = lambda running, _body: servers.error(401) if running.asked.total() > limit[running] else "ok"
            each.delay = 0.01
        limit = {server: 12, other: 1000}
        more = [EndpointSection(base_url=other.url, model="m", api_key_env="TEST_KEY", concurrency=2)]
        progress = SilentProgress()
        settings = section(server.url, endpoint={"concurrency": 6}, more_endpoints=more)
        results = ask_all(settings, tmp_path / "r.db", TEXTS, progress=progress)
        assert all(isinstance(outcome, Answer) for outcome in results.values())
        assert server.asked.total() >= 13
        assert other.asked.total() == 40 - 12
        assert server.most_at_once <= 6
        assert other.most_at_once <= 2
    assert len(progress.warnings) == 1
    assert "left out" in progress.warnings[0]
    assert "sk-secret" not in progress.warnings[0]


@pytest.mark.slow
def test_a_server_that_was_never_there_does_not_stop_the_others(server: ChatServer, tmp_path: Path) -> None:
    more = [EndpointSection(base_url=server.url, model="m", api_key_required=False)]
    results = ask_all(section("http://127.0.0.1:9/v1", more_endpoints=more), tmp_path / "r.db", TEXTS[:5])
    assert all(isinstance(outcome, Answer) for outcome in results.values())


@pytest.mark.slow
def test_requests_of_a_minute_are_counted(server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opadpo.llm.limits._MINUTE", 0.5)
    settings = section(server.url, endpoint={"requests_per_minute": 10})
    started = time.monotonic()
    ask_all(settings, tmp_path / "r.db", TEXTS[:25])
    assert time.monotonic() - started >= 1.0


@pytest.mark.slow
def test_what_fails_alone_is_a_result_with_its_reason(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda _, body: servers.error(500) if user_text(body).endswith("7") else "ok"
    results = ask_all(section(server.url), tmp_path / "r.db", TEXTS)
    failed = {text: outcome for text, outcome in results.items() if isinstance(outcome, Failure)}
    assert set(failed) == {text for text in TEXTS if text.endswith("7")}
    assert {outcome.kind for outcome in failed.values()} == {"server_error"}
    server.behave = lambda *_: "ok"
    retried = ask_all(section(server.url), tmp_path / "r.db", TEXTS, retry_failed=True)
    assert all(isinstance(outcome, Answer) for outcome in retried.values())
    assert server.asked.total() == 44
