"""Who may come in, asked of a real server by hand."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from desk_workspace import fill
from fastapi import FastAPI
from playwright.sync_api import Browser, expect
from running_app import RunningApp

from app.access.doors import AccountDoor, local
from app.access.gate import Gate
from app.access.guard import Admin, admin_only
from app.access.hosts import Hosts
from app.listening import Address, bind
from opadpo.accounts.database import Database
from opadpo.accounts.people import People
from opadpo.accounts.sessions import Sessions
from opadpo.errors import UserError
from opadpo.recipe import preset_text
from opadpo.records import Prompt
from opadpo.tables import read_records
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

SECRET = "four words make sense"
HTML = {"Accept": "text/html"}
INSIDE = [
    ("GET", "/"),
    ("GET", "/review"),
    ("GET", "/config"),
    ("GET", "/images?prompt=x"),
    ("GET", "/theme.css"),
    ("GET", "/api/access/me"),
    ("GET", "/api/review/records"),
    ("POST", "/api/review/undo"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/queue/data?session_hash=x"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/nowhere"),
    ("POST", "/logout"),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with an admin and three reviewers."""
    workspace = Workspace.create(tmp_path_factory.mktemp("team") / "team", preset_text("toy"))
    fill(workspace, 6)
    people = People(Database.open(workspace.users_db))
    people.add("Ana", "admin", SECRET)
    for name in ("Rosa", "Tom", "Una"):
        people.add(name, "reviewer", SECRET)
    return workspace


@pytest.fixture(scope="module")
def team_app(team: Workspace) -> Iterator[RunningApp]:
    with RunningApp(team.root, log=team.root / "app.log") as app:
        yield app


def sign_in(url: str, name: str, password: str = SECRET, target: str = "/") -> tuple[httpx.Client, httpx.Response]:
    client = httpx.Client(base_url=url, timeout=60)
    return client, client.post("/login", data={"name": name, "password": password, "next": target})


# -- without accounts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), INSIDE)
def test_without_the_link_nothing_is_answered(app: RunningApp, method: str, path: str):
    answer = httpx.request(method, app.url + path)
    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"what", "seen", "remedy"}
    assert httpx.request(method, app.url + path, cookies={"opadpo": "x"}).status_code == 401


def test_a_visitor_without_the_link_is_told_where_it_is(app: RunningApp):
    for path in ("/", "/review?record=x", "/?token=wrong", "/?token=%00%FF"):
        answer = httpx.get(app.url + path, headers=HTML)
        assert answer.status_code == 403
        assert "?token=" in answer.text
        assert "<script>" in answer.text
        assert "'unsafe" not in answer.headers["content-security-policy"]


def test_the_link_opens_any_page_and_leaves_the_address_clean(app: RunningApp):
    token = app.link.partition("token=")[2]
    answer = httpx.get(f"{app.url}/review?record=r-1&token={token}&text=a+b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/review?record=r-1&text=a+b"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token.lower() not in cookie
    assert httpx.get(f"{app.url}//evil.example/?token={token}").headers["location"] == "/"
    with app.client() as client:
        assert client.get("/review?record=r-1").status_code == 200
        assert client.get("/api/access/me").json()["role"] == "admin"
        assert client.post("/logout").status_code == 303
        assert client.get("/api/access/me").status_code == 401


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Host": "rebound.example"}, "address"),
        ({"Host": "127.0.0.1.rebound.example"}, "address"),
        ({"Host": "192.168.0.7"}, "address"),
        ({"Host": ""}, "address"),
        ({"Origin": "https://evil.example"}, "another site"),
        ({"Origin": "http://127.0.0.1:1"}, "another site"),
        ({"Origin": "null"}, "another site"),
        ({"Sec-Fetch-Site": "same-site"}, "another site"),
        ({"Host": "127.0.0.1", "X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}, "another site"),
    ],
)
def test_other_sites_and_rebound_names_are_refused(app: RunningApp, headers: dict[str, str], reason: str):
    with app.client() as client:
        for path in ("/api/review/undo", "/gradio_api/queue/join", "/logout", "/api/review/records/x/draft"):
            for method in ("POST", "PUT", "DELETE"):
                answer = client.request(method, path, headers=headers, json={})
                assert answer.status_code == 403
                assert reason in answer.json()["error"]["what"]
        assert client.get("/api/access/me").status_code == 200


def test_our_own_pages_may_call_also_through_a_tunnel_at_another_port(app: RunningApp):
    with app.client() as client:
        for host in (app.url.removeprefix("http://"), "localhost:9000", "[::1]:80"):
            headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
            assert client.post("/api/review/undo", headers=headers, json={}).status_code == 404


def test_a_page_of_another_port_cannot_read_either(app: RunningApp):
    with app.client() as client:
        assert client.get("/config", headers={"Origin": "http://localhost:1"}).status_code == 403


def test_every_answer_has_the_headers(app: RunningApp):
    with app.client() as client:
        for path in ("/", "/review", "/config", "/api/review/records", "/theme.css", "/nowhere"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "same-origin"
            policy = headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy
            assert "default-src 'none'" in policy
            assert "'unsafe-inline'" not in policy.replace("style-src 'self' 'unsafe-inline'", "")


TRAVERSALS = [
    "/images?prompt=..%2frecipe.yaml",
    "/images?prompt=%2fetc%2fpasswd",
    "/images?prompt=%00",
    "/images?prompt=..%252f..%252fetc%252fpasswd",
    "/figures/..%2frecipe.yaml",
    "/figures/%2e%2e%2frecipe.yaml",
    "/figures/%2fetc%2fpasswd",
    "/figures/toy_table.png%00",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=..%2frecipe.yaml",
    "/gradio_api/file=users.db",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/svelte/..%2f..%2f..%2fetc%2fpasswd",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_other_files(app: RunningApp, path: str):
    with app.client() as client:
        answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text
    assert "Traceback" not in answer.text


def test_an_image_that_points_out_of_the_workspace_is_not_served(app: RunningApp, filled_workspace: Workspace):
    prompt = read_records(filled_workspace.prompts / "prompts.parquet", Prompt)[7]
    image, kept = filled_workspace.prompts / prompt.image_file, filled_workspace.root / "kept"
    with app.client() as client:
        assert client.get("/images", params={"prompt": prompt.prompt_id}).status_code == 200
        image.rename(kept)
        try:
            image.symlink_to("/etc/passwd")
            answer = client.get("/images", params={"prompt": prompt.prompt_id})
        finally:
            kept.replace(image)
    assert answer.status_code == 404
    assert "root:" not in answer.text


# -- with accounts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), INSIDE)
def test_nobody_gets_in_without_an_account(team_app: RunningApp, method: str, path: str):
    assert "token" not in team_app.link
    answer = httpx.request(method, team_app.url + path + ("&" if "?" in path else "?") + "token=x")
    assert answer.status_code == 401


def test_log_in_leads_to_where_one_wanted_to_go(team_app: RunningApp):
    asked = httpx.get(f"{team_app.url}/review?record=r-1&text=a%26b", headers=HTML)
    assert asked.status_code == 303
    form = httpx.get(team_app.url + asked.headers["location"])
    assert 'value="/review?record=r-1&amp;text=a%26b"' in form.text
    client, answer = sign_in(team_app.url, "Rosa", target="/review?record=r-1&text=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/review?record=r-1&text=a%26b"
    assert client.get("/api/access/me").json() == {"name": "Rosa", "role": "reviewer", "accounts": True}


def test_a_link_on_another_site_works_for_those_who_are_logged_in(team_app: RunningApp):
    headers = {**HTML, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = httpx.get(f'{team_app.url}/review?record=r-1&x="><script>alert(1)</script>', headers=headers)
    assert answer.status_code == 200
    assert 'content="0;url=/review?record=r-1&amp;' in answer.text
    assert "alert(1)</script>" not in answer.text


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", ""]
)
def test_log_in_never_leads_to_another_site(target: str):
    assert local(target) == "/"


def test_failures_do_not_tell_which_names_there_are(team_app: RunningApp):
    answers = [sign_in(team_app.url, name, "wrong password")[1] for name in ("Una", "Nobody")]
    texts = {answer.text.replace("Una", "NAME").replace("Nobody", "NAME") for answer in answers}
    assert len(texts) == 1
    assert {answer.status_code for answer in answers} == {401}
    assert 'role="alert"' in answers[0].text
    assert "set-cookie" not in answers[0].headers
    assert "<b>" not in sign_in(team_app.url, "<b>", "x")[1].text


def test_guessing_is_slowed_down(team_app: RunningApp):
    answers = [sign_in(team_app.url, "Mallory", "wrong password")[1] for _ in range(10)]
    assert [answer.status_code for answer in answers[:5]] == [401] * 5
    # On a slow machine the first waits are over before the next attempt.
    late = next(answer for answer in answers if answer.status_code == 429)
    assert int(late.headers["retry-after"]) >= 1


def test_every_review_carries_the_signed_in_name(team_app: RunningApp):
    client, _ = sign_in(team_app.url, "rosa")
    handed = client.post("/api/review/next", json={"after": None}).json()["record"]
    record, base = handed["rollout"]["rollout_id"], handed["base_revision_id"]
    body = {"base_revision_id": base, "action": "accept", "sentences": None, "note": "", "seq": 1}
    assert client.post(f"/api/review/records/{record}/commit", json={**body, "author": "Ana"}).status_code == 422
    assert client.post(f"/api/review/records/{record}/commit", json=body).status_code == 200
    assert client.get(f"/api/review/history/{record}").json()["revisions"][-1]["author"] == "Rosa"


def test_sessions_end_at_once(team_app: RunningApp, team: Workspace):
    people = People(Database.open(team.users_db))
    tom, _ = sign_in(team_app.url, "Tom")
    again, _ = sign_in(team_app.url, "Tom")
    assert tom.post("/logout").headers["location"] == "/login"
    assert tom.get("/api/access/me").status_code == 401
    assert again.get("/api/access/me").status_code == 200
    people.set_password("Tom", "quite another word")
    assert again.get("/api/access/me").status_code == 401
    last, answer = sign_in(team_app.url, "Tom", "quite another word")
    assert answer.status_code == 303
    people.remove("Tom")
    assert last.get("/api/access/me").status_code == 401
    assert last.post("/gradio_api/queue/join", json={}).status_code == 401


def test_neither_token_nor_password_is_in_a_log(team_app: RunningApp, team: Workspace, tmp_path: Path):
    sign_in(team_app.url, "Una", SECRET)
    workspace = Workspace.create(tmp_path / "logged", preset_text("toy"))
    with RunningApp(workspace.root, log=tmp_path / "app.log") as app, app.client() as client:
        token = app.link.partition("token=")[2]
        for path in (f"/nowhere?token={token}", f"/gradio_api/run/x?token={token}"):
            client.get(path)
            client.post(path, json={})
    assert token not in (tmp_path / "app.log").read_text()
    assert SECRET not in (team.root / "app.log").read_text()


@pytest.mark.browser
def test_log_in_with_the_keyboard_and_out_again(browser: Browser, team_app: RunningApp):
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        context = browser.new_context(base_url=team_app.url, color_scheme=scheme)
        page = context.new_page()
        errors: list[str] = []
        page.on("console", lambda m, errors=errors: errors.append(m.text) if m.type == "error" else None)
        page.goto("/review?record=none")
        expect(page.get_by_label("Name")).to_be_focused()
        assert [v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")] == []
        assert errors == []
        page.keyboard.type("Una")
        page.keyboard.press("Tab")
        page.keyboard.type("not her password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("wrong")
        expect(page.get_by_label("Password")).to_be_focused()
        page.keyboard.type(SECRET)
        page.keyboard.press("Enter")
        page.wait_for_url("**/review?record=none")
        expect(page.locator("[data-user]")).to_contain_text("Una")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        context.close()


# -- roles -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(team: Workspace) -> Iterator[str]:
    """A server behind the gate with admins' actions in its API and in a Gradio page, one behind a hidden button."""
    import gradio as gr

    api = FastAPI()

    @api.post("/api/start")
    def start(me: Admin) -> str:
        return f"started by {me.name}"

    @admin_only
    def plain(word: str, request: gr.Request) -> str:
        return f"{word} by {request.username}"

    @admin_only
    def stream(word: str) -> Iterator[str]:
        yield word

    @admin_only
    async def later(word: str) -> str:
        return word

    with gr.Blocks() as pages:
        word, out = gr.Textbox(), gr.Textbox()
        for handler in (plain, stream, later):
            gr.Button(visible=False).click(handler, word, out, api_name=handler.__name__)
    from app.access.guard import name_of

    api = gr.mount_gradio_app(api, pages, path="/", auth_dependency=name_of, ssr_mode=False)
    door = AccountDoor(team, Sessions(Database.open(team.users_db)), secure=False)
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(Gate(api, door, Hosts.of("127.0.0.1")), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def by_call(client: httpx.Client, name: str) -> str:
    event = client.post(f"/gradio_api/call/{name}", json={"data": ["done"]}).json()["event_id"]
    return client.get(f"/gradio_api/call/{name}/{event}").text


def by_run(client: httpx.Client, name: str) -> str:
    return client.post(f"/gradio_api/run/{name}", json={"data": ["done"]}).text


def by_queue(client: httpx.Client, name: str) -> str:
    config = client.get("/config").json()
    number = next(d["id"] for d in config["dependencies"] if d["api_name"] == name)
    body = {"data": ["done"], "fn_index": number, "session_hash": f"{name}queue"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    return client.get("/gradio_api/queue/data", params={"session_hash": f"{name}queue"}).text


@pytest.mark.parametrize("way", [by_call, by_run, by_queue])
@pytest.mark.parametrize("name", ["plain", "stream", "later"])
def test_a_reviewer_cannot_do_what_is_an_admins(guarded: str, way, name: str):
    admin, reviewer = (sign_in(guarded, who)[0] for who in ("Ana", "Una"))
    assert "done" in way(admin, name)
    refused = way(reviewer, name)
    assert "done" not in refused
    assert '"success": true' not in refused.lower()


def test_a_reviewer_cannot_call_an_admins_route(guarded: str):
    admin, reviewer = (sign_in(guarded, who)[0] for who in ("Ana", "Una"))
    assert admin.post("/api/start").json() == "started by Ana"
    assert reviewer.post("/api/start").status_code == 403
    assert httpx.post(f"{guarded}/api/start").status_code == 401


def test_an_events_author_is_the_signed_in_name(guarded: str):
    assert "done by Ana" in by_call(sign_in(guarded, "Ana")[0], "plain")


# -- addresses ---------------------------------------------------------------------------------------------------


def test_names_of_the_server():
    everywhere = Hosts.of("0.0.0.0")
    assert everywhere.knows("192.0.2.7:7860")
    assert everywhere.knows("[2001:db8::1]:7860")
    assert not everywhere.knows("rebound.example")
    behind = Hosts.of("127.0.0.1", "https://Review.example.org")
    assert behind.knows("review.example.org")
    assert behind.public == "https://review.example.org"
    for wrong in ("review.example.org", "https://a/b", "ftp://a", "https://me@a", "https://a:x"):
        with pytest.raises(UserError, match="--public-url"):
            Hosts.of("127.0.0.1", wrong)


def test_what_cannot_be_used_is_refused_and_plain_text_is_warned_of(tmp_path: Path):
    (tmp_path / "no.pem").write_text("nothing")
    for wrong in (Address(key=tmp_path), Address(certificate=tmp_path / "no.pem"), Address(proxy="everybody")):
        with pytest.raises(UserError):
            wrong.check()
    assert list(Address("127.0.0.1").warnings()) == []
    assert "plain text" in next(Address("0.0.0.0").warnings())
    assert list(Address("0.0.0.0", proxy="10.0.0.1", public_url="https://a").warnings()) == []
    bind("127.0.0.1", 0, with_accounts=True).close()


def test_the_cookie_is_for_https_only_where_that_is_spoken(team: Workspace):
    from fastapi.testclient import TestClient

    door = AccountDoor(team, Sessions(Database.open(team.users_db)), secure=True)
    client = TestClient(Gate(FastAPI(), door, Hosts.of("127.0.0.1", "https://a.example")), base_url="http://a.example")
    answer = client.post(
        "/login",
        data={"name": "Ana", "password": SECRET},
        headers={"Origin": "https://a.example"},
        follow_redirects=False,
    )
    assert answer.status_code == 303
    assert "secure" in answer.headers["set-cookie"].lower()
    assert re.search(r"samesite=strict", answer.headers["set-cookie"], re.IGNORECASE)
    assert json.loads(client.post("/x", headers={"Origin": quote("http://a.example", safe=":/")}).text)["error"]
