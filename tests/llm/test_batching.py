import itertools
import json
import multiprocessing
import os
import signal
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import servers
from asking_texts import as_process, ask_all, request, section
from servers import ChatServer, chat_server, user_text
from starlette.requests import Request

from opadpo.errors import BudgetReached, EndpointError, StepFailed, UserError
from opadpo.llm.batch_ledger import BatchLedger
from opadpo.llm.requests import Answer, Failure
from opadpo.llm.store import RequestStore
from opadpo.progress import SilentProgress
from opadpo.recipe.endpoints import AskingSection, EndpointSection

TEXTS = [f"question {number}" for number in range(12)]
PRICES = {"m": {"input": 1000.0, "output": 1000.0}, "test-model": {"input": 1000.0, "output": 1000.0}}


@pytest.fixture
def server():
    with chat_server() as running:
        running.behave = lambda _, body: user_text(body).upper()
        yield running
        assert running.wrong == []


def settings(server: ChatServer, *, batch: dict[str, Any] | None = None, **more: Any) -> AskingSection:
    return section(server.url, batch={"poll_seconds": 0.01, **(batch or {})}, **more)


def in_batches(server: ChatServer, folder: Path, *, how: dict[str, Any] | None = None, **more: Any):
    return ask_all(settings(server, **more), folder / "r.db", TEXTS, batch=True, **(how or {}))


def texts_of(results: dict[str, Answer | Failure]) -> dict[str, str]:
    return {text: outcome.text for text, outcome in results.items() if isinstance(outcome, Answer)}


def everything_answered(server: ChatServer, folder: Path, results: dict[str, Answer | Failure]) -> None:
    """Each text has its own answer, and none was asked or paid for twice."""
    assert texts_of(results) == {text: text.upper() for text in TEXTS}
    asked = [user_text(line["body"]) for line in server.batches.lines] + list(server.asked.elements())
    assert sorted(asked) == sorted(TEXTS)
    with RequestStore.open(folder / "r.db") as store:
        assert BatchLedger(store).open_parts() == []
        assert (store.spent().requests, store.counts()["done"]) == (len(TEXTS), len(TEXTS))
    assert list(folder.glob("*.jsonl")) == []


def test_answers_come_back_in_any_order_and_find_their_requests(server: ChatServer, tmp_path: Path) -> None:
    server.batches.polls = 3
    progress = SilentProgress()
    results = in_batches(server, tmp_path, how={"progress": progress})
    everything_answered(server, tmp_path, results)
    assert len(server.batches.batches) == 1
    # The first request goes directly: it shows whether key, model and settings are right.
    assert server.asked.total() == 1
    assert any("11 requests handed in" in message for message in progress.messages)
    assert any("completed, 11 of 11 done" in message for message in progress.messages)


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "batches"), [({"max_requests": 4}, 3), ({"max_megabytes": 0.0008}, 4)])
def test_files_stay_within_the_limits_of_the_provider(
    server: ChatServer, tmp_path: Path, limit: dict[str, Any], batches: int
) -> None:
    server.batches.max_requests = limit.get("max_requests", 50_000)
    server.batches.max_bytes = round(limit.get("max_megabytes", 200) * 1e6)
    everything_answered(server, tmp_path, in_batches(server, tmp_path, batch=limit))
    assert len(server.batches.batches) == batches


@pytest.mark.slow
def test_what_an_answer_leads_to_asking_goes_into_a_second_batch(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda _, body: "fine" if "really" in user_text(body) else "again, please"
    assert set(texts_of(in_batches(server, tmp_path)).values()) == {"fine"}
    assert [len(server.batches.batches), len(server.batches.lines)] == [2, 22]


@pytest.mark.slow
def test_it_costs_half(server: ChatServer, tmp_path: Path) -> None:
    progress = SilentProgress()
    in_batches(server, tmp_path, how={"progress": progress}, prices=PRICES, ask_above_usd=100)
    assert "as a batch" in progress.messages[0]
    with RequestStore.open(tmp_path / "r.db") as store:
        assert store.spent().cost_usd == pytest.approx(0.11 + 11 * 0.055)


@pytest.mark.slow
def test_the_budget_holds_for_batches(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(BudgetReached):
        in_batches(server, tmp_path, prices=PRICES, max_cost_usd=0.5)
    with RequestStore.open(tmp_path / "r.db") as store:
        assert 0.2 < store.spent().cost_usd <= 0.5
        assert BatchLedger(store).open_parts() == []
    everything_answered(server, tmp_path, in_batches(server, tmp_path, prices=PRICES, max_cost_usd=5))


@pytest.mark.slow
def test_lines_that_fail_are_failures_with_their_reasons(server: ChatServer, tmp_path: Path) -> None:
    def moody(_server: ChatServer, body: dict[str, Any]) -> Any:
        said = user_text(body)
        if said.endswith("3"):
            return servers.completion(None, refusal="no")
        if said.endswith("4"):
            return servers.error(400, "invalid_value", "bad value, key sk-secret")
        return servers.error(500) if said.endswith("5") else said.upper()

    server.behave = moody
    results = in_batches(server, tmp_path)
    kinds = {text: outcome.kind for text, outcome in results.items() if isinstance(outcome, Failure)}
    assert kinds == {"question 3": "refusal", "question 4": "bad_request", "question 5": "server_error"}
    server.behave = lambda _, body: user_text(body).upper()
    retried = in_batches(server, tmp_path, how={"retry_failed": True})
    assert texts_of(retried) == {text: text.upper() for text in TEXTS}
    # One of the three was asked directly.
    assert len(server.batches.lines) == 11 + 2


@pytest.mark.slow
def test_lines_that_fail_in_passing_are_handed_in_again(server: ChatServer, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def moody(_server: ChatServer, body: dict[str, Any]) -> Any:
        said = user_text(body)
        asked[said] += 1
        if said.endswith("3") or (said.endswith("4") and asked[said] == 1):
            return servers.error(500, None, "overloaded")
        return servers.completion(None, refusal="no") if said.endswith("5") else said.upper()

    server.behave = moody
    results = in_batches(server, tmp_path, max_retries=2)
    kinds = {text: outcome.kind for text, outcome in results.items() if isinstance(outcome, Failure)}
    assert kinds == {"question 3": "server_error", "question 5": "refusal"}
    # The refusal is no passing error; what goes on failing is asked three times in all.
    assert [asked[f"question {number}"] for number in (2, 3, 4, 5)] == [1, 3, 2, 1]
    assert isinstance(answer := results["question 4"], Answer)
    assert answer.usage.requests == 2


@pytest.mark.slow
def test_what_waits_is_collected_although_it_has_failed_before(server: ChatServer, tmp_path: Path) -> None:
    server.behave = lambda *_: servers.error(500)
    in_batches(server, tmp_path)
    server.behave = lambda _, body: user_text(body).upper()
    server.batches.endings = ["cancelled"]
    with pytest.raises(StepFailed, match="cancelled"):
        in_batches(server, tmp_path, how={"retry_failed": True})
    with RequestStore.open(tmp_path / "r.db") as store:
        done = store.counts()["done"]
        # As a run leaves it that was killed after it had handed in what had failed.
        keys = [request(text, max_tokens=100).key for text in TEXTS]
        failed = [key for key in keys if isinstance(store.get(key), Failure)]
        BatchLedger(store).add("0" * 32, server.url, failed, 0.0)
    assert 0 < done < len(TEXTS)
    assert texts_of(in_batches(server, tmp_path)) == {text: text.upper() for text in TEXTS}


@pytest.mark.slow
def test_several_servers_get_files_in_turn_and_one_without_batches_is_left_out(
    server: ChatServer, tmp_path: Path
) -> None:
    def without(request: Request, _answered: bool) -> None:
        request.scope["path"] = request.scope["path"].replace("/files", "/nothing")

    with chat_server() as second, chat_server() as third:
        second.behave = server.behave
        third.intercept = without
        more = [
            EndpointSection(base_url=url, model=name, api_key_required=False)
            for url, name in ((second.url, "n"), (third.url, "n"), ("http://127.0.0.1:9/v1", "n"))
        ]
        progress = SilentProgress()
        results = in_batches(
            server, tmp_path, batch={"max_requests": 2}, more_endpoints=more, how={"progress": progress}
        )
        assert texts_of(results) == {text: text.upper() for text in TEXTS}
        lines = [[line["body"]["model"] for line in each.batches.lines] for each in (server, second, third)]
        assert second.wrong == []
    assert (set(lines[0]), set(lines[1]), lines[2]) == ({"m"}, {"n"}, [])
    assert abs(len(lines[0]) - len(lines[1])) <= 2
    left_out = [message for message in progress.warnings if "gets no batches" in message]
    assert len(left_out) == 2
    everything_in_the_ledger_is_closed(tmp_path)


def everything_in_the_ledger_is_closed(folder: Path) -> None:
    with RequestStore.open(folder / "r.db") as store:
        assert BatchLedger(store).open_parts() == []
    assert list(folder.glob("*.jsonl")) == []


def test_a_server_that_is_not_in_the_recipe_any_more_is_named(server: ChatServer, tmp_path: Path) -> None:
    with RequestStore.open(tmp_path / "r.db") as store:
        BatchLedger(store).add("0" * 32, "http://former/v1", ["k"], 0.0)
    with pytest.raises(EndpointError, match=r"(?s)does not name any more.*1 requests at http://former/v1"):
        in_batches(server, tmp_path)
    assert server.paths == []


@pytest.mark.slow
def test_a_provider_that_is_out_of_order_for_a_while_is_waited_for(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    looks = itertools.count()

    def broken(request: Request, answered: bool) -> None:
        if "/batches/" in request.url.path and not answered and next(looks) < 20:
            request.scope["path"] = "/v1/broken"

    server.intercept = broken
    everything_answered(server, tmp_path, in_batches(server, tmp_path))


@pytest.mark.slow
def test_an_expired_batch_keeps_what_was_answered_and_the_rest_is_handed_in_again(
    server: ChatServer, tmp_path: Path
) -> None:
    server.batches.endings = ["expired"]
    everything_answered(server, tmp_path, in_batches(server, tmp_path))
    assert len(server.batches.batches) == 2


@pytest.mark.slow
def test_a_cancelled_batch_keeps_what_was_answered_and_stops(server: ChatServer, tmp_path: Path) -> None:
    server.batches.endings = ["cancelled"]
    with pytest.raises(StepFailed, match=r"(?s)was cancelled.*6 requests without"):
        in_batches(server, tmp_path)
    # Nothing is with the provider any more: the rest may be asked one by one.
    results = ask_all(settings(server), tmp_path / "r.db", TEXTS)
    everything_answered(server, tmp_path, results)
    assert server.asked.total() == 7


@pytest.mark.slow
def test_a_batch_that_fails_says_why(server: ChatServer, tmp_path: Path) -> None:
    server.batches.endings = ["failed"]
    with pytest.raises(EndpointError, match=r"(?s)refused a batch.*the model takes no batches"):
        in_batches(server, tmp_path)
    everything_answered(server, tmp_path, in_batches(server, tmp_path))


@pytest.mark.slow
def test_too_much_waiting_at_once_waits_for_its_turn(server: ChatServer, tmp_path: Path) -> None:
    server.batches.endings = ["completed", "token_limit"]
    server.batches.polls = 3
    everything_answered(server, tmp_path, in_batches(server, tmp_path, batch={"max_requests": 6}))
    assert [batch["status"] for batch in server.batches.batches.values()] == ["completed", "failed", "completed"]


@pytest.mark.slow
def test_a_server_without_batches_is_one_clear_message(server: ChatServer, tmp_path: Path) -> None:
    def without(request: Request, _answered: bool) -> None:
        request.scope["path"] = request.scope["path"].replace("/files", "/nothing")

    server.intercept = without
    with pytest.raises(EndpointError, match="does not know this model or address"):
        in_batches(server, tmp_path)


@pytest.mark.slow
def test_settings_that_the_model_does_not_know_are_learnt_before_the_batch(server: ChatServer, tmp_path: Path) -> None:
    def strict(_server: ChatServer, body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return servers.error(400, "unsupported_parameter", "Unsupported parameter: 'max_tokens'")
        return user_text(body).upper()

    server.behave = strict
    assert texts_of(in_batches(server, tmp_path)) == {text: text.upper() for text in TEXTS}


class Killer:
    """Kills the process that asks at its n-th call to files or batches, before or after the call takes effect."""

    def __init__(self, call: int, answered: bool) -> None:
        self.call, self.answered = call, answered
        self.calls = 0
        self.pid: Future[int] = Future()

    def __call__(self, request: Request, answered: bool) -> None:
        if not any(part in request.url.path for part in ("files", "batches")):
            return
        self.calls += not answered
        if self.calls == self.call and answered == self.answered:
            os.kill(self.pid.result(60), signal.SIGKILL)
            self.call = 0


@pytest.mark.slow
def test_killed_between_any_two_calls_it_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["openai", "opadpo.llm.connections", "opadpo.llm.working"])
    ended: list[tuple[int, bool, int | None]] = []
    for call, answered in itertools.product(range(1, 9), (False, True)):
        folder = tmp_path / f"{call}-{answered}"
        folder.mkdir()
        with chat_server() as server:
            server.behave = lambda _, body: user_text(body).upper()
            killer = server.intercept = Killer(call, answered)
            arguments = (settings(server, batch={"max_requests": 6}), folder / "r.db", TEXTS, {"batch": True})
            process = processes.Process(target=as_process, args=arguments)
            process.start()
            killer.pid.set_result(process.pid or 0)
            process.join(60)
            ended.append((call, answered, process.exitcode))
            everything_answered(server, folder, in_batches(server, folder, batch={"max_requests": 6}))
            assert sum(1 for batch in server.batches.batches.values()) == 2
    assert [code for _, _, code in ended] == [-signal.SIGKILL] * 16


def test_while_requests_are_with_the_service_they_are_not_asked_one_by_one(server: ChatServer, tmp_path: Path) -> None:
    with RequestStore.open(tmp_path / "r.db") as store:
        BatchLedger(store).add("0" * 32, server.url, ["k"], 0.0)
    with pytest.raises(UserError, match=r"(?s)1 requests in 1 batches.*--batch"):
        ask_all(settings(server), tmp_path / "r.db", TEXTS)
    assert server.paths == []


@pytest.mark.slow
def test_a_part_whose_file_is_gone_is_made_again(server: ChatServer, tmp_path: Path) -> None:
    with RequestStore.open(tmp_path / "r.db") as store:
        BatchLedger(store).add("0" * 32, server.url, ["k"], 0.0)
    (tmp_path / "batch-unknown.jsonl").write_text(json.dumps({}))
    everything_answered(server, tmp_path, in_batches(server, tmp_path))
