"""The review desk over HTTP: a server in a process of its own, and several reviewers."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from filled_workspace import COUNT, HOSTILE, fill

from app.api import errors, review
from opadpo.recipe import preset_text
from opadpo.records import Revision, assemble
from opadpo.review.desk import Desk
from opadpo.review.index import INDEX_FILE
from opadpo.review.store import ReviewStore
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

Person = Callable[[str], Any]
BASE = "/api/review"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "birds", preset_text("toy"), ["prepare.subset_size=60"])
    fill(made)
    return made


def application(workspace: Workspace) -> FastAPI:
    """The API alone; a header says who asks, in the place of a log-in."""
    api = FastAPI()
    errors.install(api)
    api.include_router(review.router(Desk(workspace)))

    @api.middleware("http")
    async def sign_in(request: Request, call_next: Any) -> Any:
        if name := request.headers.get("x-test-user"):
            request.state.user = SimpleNamespace(name=name, role="reviewer")
        return await call_next(request)

    return api


@pytest.fixture
def person(workspace: Workspace) -> Person:
    api = application(workspace)
    return lambda name: TestClient(api, headers={"x-test-user": name}, base_url=f"http://testserver{BASE}")


def start(client: Any) -> dict[str, Any]:
    """The first record that is handed out."""
    return client.post("next", json={}).json()["record"]


def act(record: dict[str, Any], action: str = "accept", **fields: Any) -> dict[str, Any]:
    return {"base_revision_id": record["base_revision_id"], "action": action, **fields}


def name_of(record: dict[str, Any]) -> str:
    return record["rollout"]["rollout_id"]


def test_a_record_is_edited_committed_and_the_next_one_handed_out(person: Person, workspace: Workspace) -> None:
    anna = person("anna")
    record = start(anna)
    response, sentences = record["rollout"]["response"], record["sentences"]
    assert record["me"] == "anna"
    assert "response_token_ids" not in record["rollout"]
    kept = next(i for i, s in enumerate(sentences) if s["kind"] == "kept")
    sentences[kept] |= {"kind": "edited", "revised": "  A very wrong one. ", "score": 2, "checked": True}
    sentences.append({"kind": "added", "revised": "And a bird."})
    answer = anna.post(f"records/{name_of(record)}/commit", json=act(record, sentences=sentences)).json()
    assert answer["state"] == "accepted"
    assert answer["next"] == name_of(answer["record"]) != name_of(record)
    assert answer["progress"] == {"mine": 1, "mine_total": COUNT, "team": 1, "team_total": COUNT}
    with ReviewStore.of(workspace) as store:
        current = store.current(name_of(record))
        assert current is not None
        assert (current.author_kind, current.author, current.parent_revision_id) == (
            "human", "anna", record["base_revision_id"],
        )  # fmt: skip
        assert current.text == assemble(response, current.sentences)
        assert "A very wrong one." in current.text
        assert current.text.endswith(" And a bird.")
    again = anna.get(f"records/{name_of(record)}").json()
    assert [step["changed"] for step in again["history"]] == [0, 2]
    assert again["expert"]["revision_id"] == record["base_revision_id"]
    assert anna.get(f"history/{name_of(record)}").json()["revisions"][1] == again["current"]


@pytest.mark.parametrize(
    ("change", "position", "message"),
    [
        (lambda s: [s[0] | {"kind": "kept", "score": 2, "revised": ""}, *s[1:]], 0, "kept sentence has score 4"),
        (lambda s: [*s[:-1], s[-1] | {"kind": "edited", "revised": "x", "score": 4}], -1, "score from 1 to 3"),
        (lambda s: [*s, {"kind": "added", "revised": "x", "score": 3}], "end", "no score"),
        (lambda s: [*s, {"kind": "added", "revised": "  "}], "end", "is empty"),
        (lambda s: [s[0] | {"kind": "edited", "revised": " ", "score": 1}, *s[1:]], 0, "is empty"),
        (lambda s: [s[0] | {"kind": "edited", "revised": "\u200b\u202e \ufeff", "score": 1}, *s[1:]], 0, "is empty"),
        (lambda s: [*s, {"kind": "added", "revised": "\u2060"}], "end", "is empty"),
        (lambda s: [s[0] | {"kind": "deleted", "revised": "x", "score": 1}, *s[1:]], 0, "has no text"),
        (lambda s: s[1:], 0, "not those of the response"),
        (lambda s: s[:-1], None, "is missing"),
        (lambda s: [*s, s[-1]], "end", "not those of the response"),
        (lambda s: [*s[:-1], s[-1] | {"score": 7}], -1, "less than or equal to 4"),
        (lambda s: [*s[:-1], s[-1] | {"colour": 7}], -1, "Extra inputs"),
        (lambda s: [*s[:-1], s[-1] | {"kind": "gone"}], -1, "kind"),
        (lambda s: [*s[:-1], s[-1] | {"revised": "x" * 1_000_000}], -1, "at most"),
        (lambda s: [*s[:-1], s[-1] | {"revised": "a\0b"}], -1, "NUL"),
        (lambda s: [*s[:-1], s[-1] | {"objects": "cup"}], -1, "list"),
    ],
)
def test_an_inconsistent_sentence_is_named_and_nothing_is_written(
    person: Person, change: Callable[[Any], Any], position: int | str | None, message: str
) -> None:
    anna = person("anna")
    record = start(anna)
    sent = change(record["sentences"])
    answer = anna.post(f"records/{name_of(record)}/commit", json=act(record, sentences=sent))
    assert answer.status_code == 422
    assert message in answer.json()["error"]["what"]
    wanted = len(sent) - 1 if position in (-1, "end") else position
    assert answer.json()["sentence"] == wanted
    assert len(anna.get(f"records/{name_of(record)}").json()["history"]) == 1


def test_a_stale_commit_is_refused_with_both_versions_and_the_draft_stays(person: Person) -> None:
    anna, ben = person("anna"), person("ben")
    record = start(anna)
    url = f"records/{name_of(record)}"
    draft = {"base_revision_id": record["base_revision_id"], "sentences": record["sentences"], "note": "mine"}
    assert ben.put(f"{url}/draft", json={**draft, "seq": 2**53 - 1}).json()["saved"] is True
    theirs = anna.post(f"{url}/commit", json=act(record, "reject", note="no")).json()["revision_id"]
    answer = ben.post(f"{url}/commit", json=act(record, "flag", sentences=record["sentences"], note="mine"))
    assert answer.status_code == 409
    body = answer.json()
    assert body["theirs"]["revision_id"] == theirs
    assert body["theirs"]["author"] == "anna"
    assert body["yours"]["note"] == "mine"
    assert len(body["yours"]["sentences"]) == len(record["sentences"])
    seen = ben.get(url).json()
    assert (seen["state"], seen["draft"]["note"], seen["base_revision_id"]) == ("rejected", "mine", theirs)
    assert seen["draft"]["base_revision_id"] != theirs
    overwritten = ben.post(f"{url}/commit", json=act(seen, "flag", note="mine", seq=seen["draft_seq"]))
    assert overwritten.json()["state"] == "flagged"
    assert ben.get(url).json()["draft"] is None


def test_a_draft_that_was_on_its_way_while_the_record_was_committed_does_not_come_back(person: Person) -> None:
    anna = person("anna")
    record = start(anna)
    url, draft = f"records/{name_of(record)}", {"sentences": record["sentences"][:1], "note": "half"}
    draft["base_revision_id"] = record["base_revision_id"]
    assert anna.put(f"{url}/draft", json={**draft, "seq": 5}).json()["saved"] is True
    assert anna.put(f"{url}/draft", json={**draft, "seq": 4}).json() | {"saved_at": ""} == {
        "saved": False, "seq": 5, "saved_at": "",
    }  # fmt: skip
    seen = anna.get(url).json()
    assert (seen["state"], seen["draft"]["note"], seen["draft_seq"]) == ("draft", "half", 5)
    anna.post(f"{url}/commit", json=act(record, seq=7))
    assert anna.put(f"{url}/draft", json={**draft, "seq": 6}).json()["saved"] is False
    assert anna.get(url).json()["draft"] is None
    assert anna.get(url).json()["state"] == "accepted"


def test_reviewers_at_the_same_time_are_given_different_records(workspace: Workspace) -> None:
    api = application(workspace)

    def work(name: str) -> list[str]:
        done: list[str] = []
        with TestClient(api, headers={"x-test-user": name}, base_url=f"http://testserver{BASE}") as client:
            record = start(client)
            for _ in range(10):
                done.append(name_of(record))
                answer = client.post(f"records/{name_of(record)}/commit", json=act(record))
                assert answer.status_code == 200
                record = answer.json()["record"]
        return done

    with ThreadPoolExecutor(4) as pool:
        done = [rollout for part in pool.map(work, ["anna", "ben", "cleo", "dan"]) for rollout in part]
    assert len(set(done)) == len(done) == 40
    with ReviewStore.of(workspace) as store:
        assert store.counts()["by_human"] == 40


def test_what_is_skipped_comes_back_at_the_end_of_ones_own_queue_only(person: Person) -> None:
    anna, ben = person("anna"), person("ben")
    record = start(anna)
    after = {"after": name_of(record), "skip": True}
    assert anna.post("next", json=after).json()["rollout_id"] != name_of(record)
    assert name_of(start(ben)) == name_of(record)
    assert anna.get(f"records/{name_of(record)}").json()["position"] == COUNT
    assert anna.get("records", params={"offset": COUNT - 1}).json()["items"][0]["rollout_id"] == name_of(record)
    assert ben.get(f"records/{name_of(record)}").json()["position"] == 1


def test_a_record_that_somebody_has_open_is_in_review_for_the_others(person: Person) -> None:
    anna, ben = person("anna"), person("ben")
    record = start(anna)
    assert anna.get(f"records/{name_of(record)}").json()["state"] == "open"
    seen = ben.get(f"records/{name_of(record)}").json()
    assert (seen["state"], seen["in_review_by"]) == ("draft", ["anna"])
    claim = ben.post(f"records/{name_of(record)}/claim", json={}).json()
    assert (claim["mine"], claim["by"]) == (False, "anna")
    assert ben.get("records", params={"state": "draft"}).json()["total"] == 1
    assert ben.get("next").json()["rollout_id"] != name_of(record)
    anna.post("next", json={"after": name_of(record)})
    assert ben.post(f"records/{name_of(record)}/claim", json={}).json()["mine"] is True


def test_undo_and_restore_append_and_show_in_the_history(person: Person) -> None:
    anna = person("anna")
    record = start(anna)
    url = f"records/{name_of(record)}"
    changed = [s | {"kind": "deleted", "revised": "", "score": 1} for s in record["sentences"]]
    first = anna.post(f"{url}/commit", json=act(record, sentences=changed)).json()["revision_id"]
    undone = anna.post("undo", json={}).json()
    assert (undone["rollout_id"], undone["revision_id"], undone["state"]) == (name_of(record), first, "draft")
    assert [s["kind"] for s in undone["record"]["draft"]["sentences"]] == ["deleted"] * len(changed)
    assert [step["withdrawn"] for step in undone["record"]["history"]] == [False, True]
    assert anna.post("undo", json={}).status_code == 404
    body = {"revision_id": first, "base_revision_id": undone["record"]["base_revision_id"]}
    restored = anna.post(f"{url}/restore", json=body).json()
    assert restored["record"]["current"]["text"] == ""
    assert restored["state"] == "accepted"
    assert len(restored["record"]["history"]) == 3
    assert anna.post(f"{url}/restore", json={**body, "base_revision_id": first}).status_code == 409
    assert anna.post(f"{url}/restore", json={**body, "revision_id": "v-none"}).status_code == 404


@pytest.mark.parametrize("action", ["reject", "flag"])
def test_a_record_is_not_rejected_without_a_reason(person: Person, action: str) -> None:
    anna = person("anna")
    record = start(anna)
    answer = anna.post(f"records/{name_of(record)}/commit", json=act(record, action, note=" "))
    assert (answer.status_code, answer.json()["sentence"]) == (422, None)
    assert "needs a reason" in answer.json()["error"]["what"]


def test_the_list_is_filtered_counted_and_sorted(person: Person) -> None:
    anna = person("anna")
    everything = anna.get("records", params={"limit": 200, "sort": "sampled"}).json()
    assert everything["total"] == everything["all"] == len(everything["items"]) == COUNT
    assert everything["facets"]["score"]["5"] == COUNT // 2
    assert sum(b["count"] for b in everything["histograms"]["tokens"]) == COUNT
    cut = anna.get("records", params={"finish": "length", "score": [1, 2], "sort": "longest"}).json()
    lengths = [card["tokens"] for card in cut["items"]]
    assert lengths == sorted(lengths, reverse=True)
    assert {card["finish_reason"] for card in cut["items"]} == {"length"}
    assert all(min(s for s in card["scores"] if s) in (1, 2) for card in cut["items"])
    assert cut["total"] == sum(cut["facets"]["score"][score] for score in "12")
    finishes = anna.get("records", params={"finish": "length"}).json()["facets"]["finish"]
    assert sum(finishes.values()) == COUNT > finishes["length"]
    assert anna.get("records", params={"text": "ONERROR="}).json()["total"] == 1
    assert anna.get("records", params={"text": "100%_\\"}).json()["total"] == 0
    record = start(anna)
    anna.post(f"records/{name_of(record)}/commit", json=act(record, "flag", note="Ünklar"))
    flagged = anna.get("records", params={"state": "flagged"}).json()
    assert [(card["rollout_id"], card["author"]) for card in flagged["items"]] == [(name_of(record), "anna")]


def test_an_edit_is_found_by_its_own_words_at_once_and_after_the_index_is_deleted(
    person: Person, workspace: Workspace
) -> None:
    anna = person("anna")
    assert anna.get("records", params={"text": "straße"}).json()["total"] == 0
    record = start(anna)
    added = [*record["sentences"], {"kind": "added", "revised": "Eine STRASSE."}]
    anna.post(f"records/{name_of(record)}/commit", json=act(record, sentences=added))
    assert anna.get("records", params={"text": "straße"}).json()["total"] == 1
    for file in workspace.root.glob(f"{INDEX_FILE}*"):
        file.unlink()
    assert anna.get("records", params={"text": "straße"}).json()["total"] == 1
    assert anna.get("records", params={"state": "accepted"}).json()["total"] == 1


def test_what_another_process_commits_is_seen(person: Person, workspace: Workspace) -> None:
    anna = person("anna")
    record = start(anna)
    other = Revision.create(
        rollout_id=name_of(record), parent_revision_id=record["base_revision_id"], author_kind="human", author="zoe",
        sentences=[], text="", status="rejected", note="by another process",
    )  # fmt: skip
    with ReviewStore.of(workspace) as store:
        store.commit(other)
    card = anna.get("records", params={"state": "rejected"}).json()["items"][0]
    assert (card["rollout_id"], card["author"]) == (name_of(record), "zoe")


HOSTILE_IDS = ["../recipe.yaml", "r-none", "a" * 5000, "%00", "' OR 1=1 --", "r-1%2F..%2F..", "\u2603", "%F0%28"]


@pytest.mark.parametrize("rollout_id", HOSTILE_IDS)
def test_ids_that_are_none_are_refused_as_json(person: Person, rollout_id: str) -> None:
    anna = person("anna")
    body = {"sentences": [], "seq": 1, "base_revision_id": None}
    for answer in (
        anna.get(f"records/{rollout_id}"),
        anna.put(f"records/{rollout_id}/draft", json=body),
        anna.post(f"records/{rollout_id}/commit", json=act({"base_revision_id": None})),
        anna.post("next", json={"after": rollout_id}),
    ):
        assert answer.status_code in (404, 405, 422)
        assert answer.json()["error"]["what"]
        assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"seq": 1e999, "sentences": []}',
        b'{"seq": -1, "sentences": []}',
        b'{"seq": 99999999999999999999, "sentences": []}', b'{"seq": 1, "sentences": {}}', b'{"seq": true}',
        b'{"seq": 1, "sentences": [], "role": "admin"}', b'{"seq": 1, "sentences": [], "note": "\\ud800"}',
        b'{"seq": 1, "sentences": [], "note": "\\u0000"}',
        b'{"seq": 1, "sentences": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
        json.dumps({"seq": 1, "sentences": [{"kind": "kept"}] * 2001}).encode(),
        json.dumps({"seq": 1, "sentences": [], "note": "x" * 1_000_000}).encode(),
    ],
)  # fmt: skip
def test_bodies_that_are_wrong_are_refused_as_json(person: Person, content: bytes) -> None:
    anna = person("anna")
    name = anna.get("records", params={"limit": 1}).json()["items"][0]["rollout_id"]
    answer = anna.put(f"records/{name}/draft", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert {"what", "seen", "remedy"} == set(answer.json()["error"])
    assert "Traceback" not in answer.text
    assert anna.get(f"records/{name}").json()["draft"] is None


def test_a_body_of_many_megabytes_is_refused(person: Person) -> None:
    def endless() -> Iterator[bytes]:
        yield from (b"x" * 100_000 for _ in range(30))

    for content in (b"x" * 3_000_000, endless()):
        answer = person("anna").put("records/r-1/draft", content=content)
        assert (answer.status_code, answer.json()["error"]["what"]) == (413, "The request is too large")


@pytest.mark.parametrize("query", ["score=9", "sort=best", "limit=201", "offset=-1", "state=mine", "nonsense=1"])
def test_filters_that_are_wrong_are_refused_as_json(person: Person, query: str) -> None:
    answer = person("anna").get(f"records?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["error"]["what"]


def test_hostile_texts_come_back_as_they_are(person: Person) -> None:
    anna = person("anna")
    record = start(anna)
    url = f"records/{name_of(record)}"
    anna.post(f"{url}/commit", json=act(record, "flag", note=HOSTILE))
    answer = anna.get(url)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["current"]["note"] == HOSTILE


@contextmanager
def served(workspace: Workspace) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "opadpo", "app", str(workspace.root), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    found = re.search(r"(http://127\.0\.0\.1:\d+)(\S*)", process.stdout.readline())
    assert found
    with process, httpx.Client(base_url=f"{found[1]}{BASE}/", timeout=60, follow_redirects=True) as client:
        client.get(found[0])
        try:
            yield client, process
        finally:
            process.kill()


def test_a_server_that_is_killed_has_lost_nothing_that_it_confirmed(workspace: Workspace) -> None:
    with served(workspace) as (client, process):
        record = start(client)
        done = client.post(f"records/{name_of(record)}/commit", json=act(record)).json()
        draft = {"base_revision_id": None, "sentences": [], "note": "so far", "seq": 3}
        assert client.put(f"records/{done['next']}/draft", json=draft).json()["saved"] is True
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    desk = Desk(workspace)
    history = desk.history(name_of(record))
    assert history[-1].revision_id == done["revision_id"]
    draft_kept = desk.catalogue.store.dossier(done["next"], history[-1].author).draft
    assert draft_kept is not None
    assert draft_kept.body == {"sentences": [], "note": "so far"}
