"""Comparing over HTTP: who may ask, what is refused, and that a vote is its voter's."""

import httpx
import pytest

pytestmark = pytest.mark.slow

PAIR = {"set": "heldout", "first": "opa", "second": "base"}
"""No test of the page votes on these two."""
ALL = {"set": "heldout", "model": ["base", "opa", "opadpo"]}


@pytest.fixture
def client(compared):
    with compared.app.client() as client:
        yield client


def test_nobody_asks_who_has_not_come_in(compared):
    for path in ("sets", "records", "metrics", "differences", "ballots", "results", "images"):
        answer = httpx.get(f"{compared.app.url}/api/compare/{path}")
        assert answer.status_code == 401, path
        assert "heldout" not in answer.text
    assert httpx.post(f"{compared.app.url}/api/compare/votes", json={}).status_code == 401


def test_another_sites_page_cannot_vote(client):
    ballot = client.get("/api/compare/ballots", params=PAIR).json()
    body = {**PAIR, "prompt_id": ballot["prompt_id"], "outcome": "tie"}
    answer = client.post("/api/compare/votes", json=body, headers={"Origin": "https://elsewhere.example"})
    assert answer.status_code == 403
    assert client.get("/api/compare/results", params=PAIR).json()["total"]["tie"] == 0


def test_what_is_wrong_is_said_and_nothing_leaks(client, compared):
    for path, query, status in (
        ("records", {"set": "heldout"}, 422),
        ("records", {**ALL, "sort": "best"}, 422),
        ("records", {**ALL, "model": ["m"] * 9}, 422),
        ("records", {**ALL, "model": ["../../users"]}, 422),
        ("records", {**ALL, "model": ["ghost"]}, 404),
        ("records", {**ALL, "set": "nowhere"}, 404),
        ("records/p-none", ALL, 404),
        ("images", {"set": "heldout", "prompt": "../recipe.yaml"}, 404),
        ("ballots", {**PAIR, "second": "opa"}, 422),
        ("ballots", {**PAIR, "prompt": "p-none"}, 404),
    ):
        answer = client.get(f"/api/compare/{path}", params=query)
        assert answer.status_code == status, (path, query, answer.text)
        assert answer.json()["error"]["what"]
        assert "Traceback" not in answer.text
    body = {**PAIR, "prompt_id": compared.prompts[5], "outcome": "tie"}
    for wrong in ({"outcome": "first"}, {"voter": "bob"}, {"note": "n" * 4001}, {"prompt_id": "p-none"}):
        assert client.post("/api/compare/votes", json={**body, **wrong}).status_code in (404, 422), wrong
    assert client.delete("/api/compare/votes/b-none").status_code == 404


def test_a_vote_is_hidden_before_and_told_after_it(client):
    me = client.get("/api/compare/sets").json()["me"]
    ballot = client.get("/api/compare/ballots", params=PAIR).json()
    hidden = {name: value for name, value in ballot.items() if name not in ("left", "right", "question")}
    assert "opa" not in str(hidden)
    assert "base" not in str(hidden)
    voted = client.post(
        "/api/compare/votes",
        json={**PAIR, "prompt_id": ballot["prompt_id"], "outcome": "both_bad", "note": "\u202e<b>"},
    ).json()
    assert {voted["vote"]["left"], voted["vote"]["right"]} == {"base", "opa"}
    results = client.get("/api/compare/results", params=PAIR).json()
    assert [(one["voter"], one["both_bad"]) for one in results["voters"]] == [(me, 1)]
    assert results["rate"] is None
    assert client.delete(f"/api/compare/votes/{voted['vote']['vote_id']}").status_code == 200
    assert client.get("/api/compare/results", params=PAIR).json()["voters"] == []


def test_images_of_a_set(client, compared):
    answer = client.get("/api/compare/images", params={"set": "heldout", "prompt": compared.prompts[5]})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
