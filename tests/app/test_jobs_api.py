"""Jobs over HTTP: who may do what, what is refused, what is new since the page looked last."""

import json
import shlex
import shutil
from datetime import timedelta
from typing import Any

import httpx
import job_folders
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from running_jobs import toy_workspace

from app.api.jobs import router
from app.jobs import forms
from app.jobs.refreshing import Refresher
from app.server import create
from opadpo.accounts.people import User
from opadpo.jobs.folder import LOG_FILE
from opadpo.jobs.service import Jobs
from opadpo.recipe import Recipe, parse_recipe, preset_text
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

ADMIN, REVIEWER = User("lea", "admin"), User("jonas", "reviewer")
NEW = {"step": "prepare"}
HOSTILE = ["../../etc", "a b", "x;touch y", "$(id)", "a/b", "\u202eabc", "'", "`id`", "a\nb"]


class _As:
    """The app behind a gate that lets in one person."""

    def __init__(self, app: Any, user: User) -> None:
        self.app, self.user = app, user

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app({**scope, "state": {"user": self.user}}, receive, send)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = toy_workspace(tmp_path_factory.mktemp("jobs") / "our toy")
    folder = job_folders.make(
        workspace, "20260101-120000-opadpo-abcd", title="first", runs=["opadpo"], overrides=["seed=3"],
        age=timedelta(hours=1),
    )  # fmt: skip
    job_folders.fill(folder, workspace)
    job_folders.alarm(folder)
    job_folders.make(
        workspace,
        "20260101-110000-opa-abce",
        step="opa",
        state="failed",
        title="second <b>",
        reason="It broke.",
        age=timedelta(hours=2),
    )
    job_folders.make(workspace, "20260101-100000-caption-abcf", step="caption", title="third", age=timedelta(hours=3))
    return workspace


@pytest.fixture(scope="module")
def served(world: Workspace) -> Any:
    return create(world)


@pytest.fixture
def admin(served: Any) -> TestClient:
    return TestClient(_As(served, ADMIN), base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def reviewer(served: Any) -> TestClient:
    return TestClient(_As(served, REVIEWER), base_url="http://127.0.0.1", raise_server_exceptions=False)


JOB = "/api/jobs/20260101-120000-opadpo-abcd"


def test_changes_and_commands_are_admins(world: Workspace, admin: TestClient, reviewer: TestClient):
    reading = ["/api/jobs", JOB, f"{JOB}/live", f"{JOB}/curves", f"{JOB}/memory", f"{JOB}/log"]
    reading += [f"{JOB}/log/search?text=step", f"/api/jobs/curves?job={JOB.rpartition('/')[2]}&key=loss"]
    for path in reading:
        assert reviewer.get(path).status_code == 200, path
    asked = [
        ("GET", "/api/jobs/form"),
        ("POST", "/api/jobs/preview"),
        ("POST", "/api/jobs/memory"),
        ("POST", "/api/jobs"),
    ]
    asked += [("POST", f"{JOB}/{act}") for act in ("cancel", "resume", "mute")]
    for method, path in asked:
        body = {"alarm": "rewards_falling-352"} if path.endswith("mute") else NEW
        answer = reviewer.request(method, path, json=None if method == "GET" else body)
        assert answer.status_code == 403, (method, path, answer.text)
        assert answer.json()["error"]["what"] == "Only an admin may do this"
    assert len(router(Jobs(world), Refresher(Jobs(world))).routes) == len(reading) + len(asked), (
        "a route that this test does not know"
    )
    secret, told = reviewer.get(JOB).json(), admin.get(JOB).json()
    assert (secret["command"], secret["overrides"], secret["changes"]) == ("", [], 1)
    assert shlex.split(told["command"])[:4] == ["opadpo", "train", "opadpo", str(world.root)]
    assert told["overrides"] == ["seed=3"]
    assert reviewer.get(f"{JOB}/live").json()["alarms"][0]["set"] is None
    assert admin.get(f"{JOB}/live").json()["alarms"][0]["set"] == "train.opadpo.loss.anchor_coef=2.0"


def test_the_list_is_filtered_searched_and_counted(reviewer: TestClient):
    def found(**asked: Any) -> list[str]:
        return [job["title"] for job in reviewer.get("/api/jobs", params=asked).json()["items"]]

    assert found() == ["first", "second <b>", "third"]
    assert found(state="failed") == ["second <b>"]
    assert found(step=["opa", "caption"]) == ["second <b>", "third"]
    assert found(text="SECOND opa") == ["second <b>"]
    assert found(text="nothing such") == []
    assert found(limit=1, offset=1) == ["second <b>"]
    assert found(job=["20260101-100000-caption-abcf", "no such"]) == ["third"]
    page = reviewer.get("/api/jobs", params={"state": "failed"}).json()
    assert (page["total"], page["all"], page["admin"]) == (1, 3, False)
    assert page["counts"] == {"state": {"succeeded": 2, "failed": 1}, "step": {"opa": 1}}


def test_live_brings_only_what_is_new(reviewer: TestClient, world: Workspace):
    first = reviewer.get(f"{JOB}/live").json()
    log, newest = first["log"], first["usage"][-1]["at"]
    assert log["text"].endswith("step 412/628  loss 0.424  margin 1.12\n")
    assert log["offset"] == log["size"]
    assert len(first["usage"]) == 120
    assert first["curves"] == {}
    since = {"log": log["offset"], "usage": newest, "step": 410}
    again = reviewer.get(f"{JOB}/live", params=since).json()
    assert (again["log"]["text"], again["usage"]) == ("", [])
    assert [step for step, _ in again["curves"]["loss"]] == [411, 412]
    path = world.jobs() / JOB.rpartition("/")[2] / LOG_FILE
    before = path.read_bytes()
    try:
        path.write_bytes(before + "ü\n".encode() + b"half")
        piece = reviewer.get(f"{JOB}/live", params=since).json()["log"]
        assert piece["text"] == "ü\n"
        path.write_bytes(before + b"\xff\xfe broken\n" + b"x" * 300_000 + b"\nlast\n")
        piece = reviewer.get(f"{JOB}/live", params=since).json()["log"]
        assert piece["text"] == "last\n"
        assert piece["skipped"] > 300_000
    finally:
        path.write_bytes(before)


def test_curves_are_thinned_and_keep_their_spikes(reviewer: TestClient, world: Workspace):
    folder = job_folders.make(world, "20250101-120000-opa-long", step="opa", runs=["opa"])
    lines = [{"run": "opa", "step": n, "loss": 1000.0 if n == 4321 else 1 / n} for n in range(1, 20_001)]
    job_folders.write_lines(folder / "metrics.jsonl", lines)
    try:
        asked = {"key": "loss", "points": 100}
        points = reviewer.get("/api/jobs/20250101-120000-opa-long/curves", params=asked).json()["loss"]
        assert 50 <= len(points) <= 200
        assert [4321, 1000] in points
        assert [step for step, _ in points] == sorted(step for step, _ in points)
        both = {"job": ["20250101-120000-opa-long", JOB.rpartition("/")[2]], "key": "loss", "points": 50}
        assert set(reviewer.get("/api/jobs/curves", params=both).json()) == set(both["job"])
    finally:
        (folder / "job.json").unlink()


def test_the_log_is_searched_and_downloaded(reviewer: TestClient, world: Workspace):
    content = (world.jobs() / JOB.rpartition("/")[2] / LOG_FILE).read_bytes()
    answer = reviewer.get(f"{JOB}/log")
    assert answer.content == content
    assert answer.headers["content-type"].startswith("text/plain")
    assert "attachment" in answer.headers["content-disposition"]
    lines = reviewer.get(f"{JOB}/log/search", params={"text": "WARNING"}).json()["lines"]
    assert [line["number"] for line in lines] == [content.decode().split("\n").index(lines[0]["text"]) + 1]
    assert reviewer.get(f"{JOB}/log/search", params={"text": ""}).status_code == 422


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("usage.jsonl", b'\xff\n[1]\n{"at":"x"}\n{"at":1,"gpus":{"a":1}}\n{"at":2,"gpus":[{"memory_used":"x"}]}\n'),
        ("alarms.jsonl", b'{"id":[1]}\n{"id":"a","kind":"x","step":null,"at":3,"what":"w","key":[1]}\n'),
        ("metrics.jsonl", b'\xff{}\nnull\n{"run":5,"step":"x"}\n'),
        ("progress.json", b'{"total":"x"}'),
        ("muted.json", b'{"a": 1}'),
        ("log.txt", None),
        ("usage.jsonl", None),
    ],
)  # fmt: skip
def test_what_is_damaged_in_a_folder_does_not_hide_the_rest(
    reviewer: TestClient, world: Workspace, name: str, content: bytes | None
):
    folder = job_folders.make(world, "20250102-120000-opa-hurt", step="opa", runs=["opa"])
    try:
        (folder / name).write_bytes(content) if content is not None else (folder / name).mkdir()
        for path in ("/live", "/live?step=0", "/curves", "/memory"):
            answer = reviewer.get(f"/api/jobs/{folder.name}{path}")
            assert answer.status_code == 200, (path, answer.text)
        assert reviewer.get(f"/api/jobs/{folder.name}/live").json()["usage"] == []
    finally:
        shutil.rmtree(folder)


def test_a_file_that_cannot_be_read_is_named(reviewer: TestClient, world: Workspace):
    folder = job_folders.make(world, "20250102-120000-opa-away", step="opa", runs=["opa"])
    (folder / "metrics.jsonl").mkdir()
    try:
        answer = reviewer.get(f"/api/jobs/{folder.name}/curves")
        assert answer.status_code == 500
        assert "metrics.jsonl" in answer.json()["error"]["seen"]
    finally:
        shutil.rmtree(folder)


def test_an_alarm_is_muted_once_and_for_all(admin: TestClient):
    assert admin.post(f"{JOB}/mute", json={"alarm": "no such"}).status_code == 404
    for _ in range(2):
        assert admin.post(f"{JOB}/mute", json={"alarm": "rewards_falling-352"}).status_code == 200
    assert [alarm["muted"] for alarm in admin.get(f"{JOB}/live").json()["alarms"]] == [True]


@pytest.mark.parametrize("name", ["..", "nope", "..%2F..%2Frecipe", "%2Fetc%2Fpasswd", "a%00b", "x" * 300])
def test_no_name_leads_out_of_the_jobs(admin: TestClient, name: str):
    for rest in ("", "/live", "/log", "/curves", "/memory", "/log/search?text=a"):
        answer = admin.get(f"/api/jobs/{name}{rest}")
        assert answer.status_code in (404, 422), (rest, answer.text[:200])
        assert "toy" not in answer.text
    for act in ("cancel", "resume"):
        assert admin.post(f"/api/jobs/{name}/{act}").status_code in (404, 405, 422)


def test_the_form_is_made_of_the_recipes_fields(admin: TestClient, world: Workspace):
    form = admin.get("/api/jobs/form", params={"step": "opadpo"}).json()
    fields = {field["key"]: field for group in form["groups"] for field in group["fields"]}
    beta = fields["train.opadpo.loss.beta"]
    assert (beta["kind"], beta["value"], beta["preset"]) == ("number", "0.1", "0.1")
    assert beta["help"].startswith("Over 0. Inverse temperature")
    anchor = fields["train.opadpo.loss.anchor"]
    assert (anchor["choices"], anchor["nullable"]) == (["released", "chosen_up", "squared"], True)
    assert not any(key.startswith("jobs.") for key in fields)
    other = admin.get("/api/jobs/form", params={"step": "opa", "preset": "llava-1.5-7b"}).json()
    rates = {field["key"]: field["value"] for group in other["groups"] for field in group["fields"]}
    assert rates["train.opa.learning_rate"] == "2e-5"
    for wrong in ({"step": "walk"}, {"preset": "/etc/passwd"}, {"preset": str(world.root / "recipe.yaml")}):
        assert admin.get("/api/jobs/form", params=wrong).status_code == 422, wrong
    assert admin.get("/api/jobs/form", params={"clone": "../x"}).status_code == 404


def test_a_clone_begins_with_what_was_asked_for(admin: TestClient):
    asked = {"clone": JOB.rpartition("/")[2], "change": "train.opadpo.loss.anchor_coef=2.0"}
    form = admin.get("/api/jobs/form", params=asked).json()
    assert form["entered"]["step"] == "opadpo"
    assert form["entered"]["start"] == "opa"
    assert form["entered"]["values"] == {"train.opadpo.loss.anchor_coef": "2.0"}
    assert form["entered"]["cloned_from"] == asked["clone"]


def test_a_preview_names_every_mistake_beside_its_field_and_writes_nothing(admin: TestClient, world: Workspace):
    before = sorted(path.name for path in world.jobs().iterdir())
    entered = {"step": "opadpo", "name": "mine", "values": {"train.opadpo.loss.beta": "0.2"}}
    seen = admin.post("/api/jobs/preview", json=entered).json()
    assert "--set train.opadpo.loss.beta=0.2" in seen["command"]
    assert "--name mine" in seen["command"]
    values = {"train.opadpo.loss.beta": "-1", "train.opadpo.epochs": "many", "seed": "x"}
    problems = admin.post("/api/jobs/preview", json={"step": "opadpo", "values": values}).json()["problems"]
    assert {problem["key"] for problem in problems} >= set(values)
    assert admin.post("/api/jobs", json={"step": "opadpo", "values": values}).status_code == 422
    for name in HOSTILE:
        seen = admin.post("/api/jobs/preview", json={"step": "opadpo", "name": name}).json()
        assert seen["problems"], name
        answer = admin.post("/api/jobs", json={"step": "opadpo", "name": name})
        assert answer.status_code == 422, name
        assert answer.json()["error"]["what"]
    assert sorted(path.name for path in world.jobs().iterdir()) == before


def test_a_preset_of_another_base_model_is_a_problem_beside_its_field(admin: TestClient, world: Workspace):
    pin = world.root / "base.json"
    pin.write_text(json.dumps({"base": "toy", "requested_revision": None}))
    try:
        for asked, key in (
            ({"preset": "qwen2.5-vl-7b"}, "preset"),
            ({"values": {"model.base": "org/x"}}, "model.base"),
        ):
            problems = admin.post("/api/jobs/preview", json={"step": "caption", "models": ["base"], **asked}).json()[
                "problems"
            ]
            assert [problem["key"] for problem in problems] == [key]
            assert "this workspace's is toy" in problems[0]["text"]
        assert (
            admin.post("/api/jobs/preview", json={"step": "prepare", "preset": "llava-1.5-7b"}).json()["problems"] == []
        )
    finally:
        pin.unlink()


def test_a_form_cannot_leave_the_workspace_or_choose_what_is_run(admin: TestClient):
    refused = {
        "prepare.source.path": ["/etc", "../x", "~/x", "a/../../x"],
        "evaluate.mmhal_template": ["/etc/passwd"],
        "evaluate.files.amber.path": ["/root"],
        "model.base": ["/models/x", "../x"],
        "revise.endpoint.server_command": ["[sh, -c, id]", "sh"],
        "jobs.target": ["elsewhere"],
        "jobs.targets": ["{x: {kind: ssh, host: h}}"],
    }
    for key, texts in refused.items():
        for text in texts:
            body = {"step": "opadpo", "values": {key: text}}
            problems = admin.post("/api/jobs/preview", json=body).json()["problems"]
            assert [problem["key"] for problem in problems] == [key], (key, text, problems)
            assert admin.post("/api/jobs", json=body).status_code == 422
    assert admin.post("/api/jobs/preview", json={"step": "opadpo", "values": {"no.such": "1"}}).json()["problems"]
    for wrong in ({"colour": 1}, {"step": 3}, {"values": {"a": "x" * 5000}}, {"gpus": {}}):
        answer = admin.post("/api/jobs/preview", json={**NEW, **wrong})
        assert answer.status_code == 422
        assert answer.json()["error"]["what"]


def test_nobody_asks_who_has_not_come_in(app: Any):
    for path in ("", "/x", "/x/live", "/x/log", "/form"):
        assert httpx.get(f"{app.url}/api/jobs{path}").status_code == 401
    assert httpx.post(f"{app.url}/api/jobs", json=NEW).status_code == 401
    with app.client() as client:
        answer = client.post("/api/jobs", json=NEW, headers={"Origin": "https://elsewhere.example"})
        assert answer.status_code == 403


RECIPE = parse_recipe(preset_text("toy"))
TEXTS = st.text(max_size=40)


@settings(max_examples=40)
@given(text=TEXTS)
def test_what_is_entered_as_text_is_what_the_recipe_gets(text: str):
    overrides = forms.overrides({"model.revision": text, "name": text}, RECIPE)
    made = parse_recipe(preset_text("toy"), overrides)
    wanted = text.strip()
    assert made.model.revision == (wanted or None)
    assert made.name == wanted


@pytest.mark.parametrize("preset", ["toy", "llava-1.5-7b-released"])
def test_every_setting_survives_being_shown_and_entered(preset: str):
    recipe = parse_recipe(preset_text(preset))
    shown = {key: field.value for key, field in forms.fields_by_key(recipe)}
    assert forms.overrides(shown, recipe) == []
    base = Recipe()
    changed = [one for one in forms.overrides(shown, base) if not one.startswith("model.base=")]
    again = parse_recipe("{}", changed)
    assert again.model_copy(update={"model": recipe.model}) == recipe.model_copy(update={"model": recipe.model})


def test_a_damaged_folder_spoils_no_list(admin: TestClient, world: Workspace):
    folder = world.jobs() / "20250101-000000-opa-bad"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"job_id": 3}))
    try:
        states = {job["job_id"]: job["state"] for job in admin.get("/api/jobs").json()["items"]}
        assert len(states) == 4
        assert states[folder.name] == "lost"
        answer = admin.get(f"/api/jobs/{folder.name}/live")
        assert answer.status_code in (404, 422)
        assert answer.json()["error"]["remedy"]
    finally:
        (folder / "job.json").unlink()
