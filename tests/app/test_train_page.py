"""The page of jobs in a real browser: jobs that really run, curves, log, dialog; and what must not happen on it."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import job_folders
import pytest
from axe_playwright_python.sync_playwright import Axe
from filled_workspace import HOSTILE
from playwright.sync_api import Browser, Page, Route, expect
from running_app import ESTIMATED, RunningApp
from running_jobs import made_job, started, toy_workspace, until
from watched_page import watched

from opadpo.accounts.database import Database
from opadpo.accounts.people import People
from opadpo.jobs.folder import LOG_FILE, read_job
from opadpo.jobs.record import JobRequest
from opadpo.workspace import Workspace

pytestmark = pytest.mark.browser

SPARE = "all => all.map(one => one.scrollWidth - one.clientWidth)"
TRAINS = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: (print("saved", file=sys.stderr), sys.exit(143)))
for step in range(1, 2000):
    print(f"step {step}/2000  loss {1 / step:.3f}", file=sys.stderr, flush=True)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"run": "opadpo", "step": step, "loss": 1 / step}) + "\\n")
    time.sleep(0.2)
"""
"""A program that does as training does, without a model."""


class World(NamedTuple):
    """The app on a workspace with finished jobs."""

    workspace: Workspace
    app: RunningApp


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    patch = pytest.MonkeyPatch()
    patch.setenv("OPADPO_RUNTIME", str(tmp_path_factory.mktemp("line")))
    workspace = toy_workspace(tmp_path_factory.mktemp("train") / "toy")
    folder = job_folders.make(workspace, "20260101-120000-opadpo-full", title="full", runs=["opadpo"])
    job_folders.fill(folder, workspace)
    job_folders.alarm(folder)
    other = job_folders.make(workspace, "20260101-110000-opadpo-othr", title="other", runs=["opadpo"])
    job_folders.fill(other, workspace, steps=100)
    strange = job_folders.make(workspace, "20260101-100000-rollout-evil", step="rollout", state="failed",
                               title=HOSTILE, reason=HOSTILE, age=timedelta(days=3))  # fmt: skip
    (strange / LOG_FILE).write_bytes(f"{HOSTILE}\n\x1b[31mred\x1b[0m \x07bell \u202eback\n{'x' * 5000}\n".encode())
    with RunningApp(workspace.root, before=ESTIMATED) as app:
        yield World(workspace, app)
    patch.undo()


@pytest.fixture
def page(browser: Browser, world: World) -> Iterator[Page]:
    usual = r"status of (404|409|422)|ERR_CONNECTION_REFUSED|Failed to fetch|ERR_INTERNET"
    with watched(browser, world.app, usual=usual) as page:
        yield page


def visit(page: Page, job: str = "20260101-120000-opadpo-full", more: str = "") -> None:
    page.goto(f"/train?job={job}{more}")
    expect(page.locator(".t-tiles dd").first).to_be_visible()


def training(world: World, **fields: object) -> Path:
    """A job that really runs on this machine."""
    values = {"step": "opadpo", "title": "really", "runs": ["opadpo"], "request": JobRequest(step="opadpo"), **fields}
    job, folder = made_job(world.workspace, "pass", grace=10.0, **values)
    job = job.model_copy(update={"commands": [["{python}", "-c", TRAINS, "{job}/"]]})
    (folder / "job.json").write_text(job.model_dump_json())
    started(world.workspace, job, folder)
    until(folder, "running")
    return folder


def test_a_job_is_started_from_the_form_watched_and_found_again(page: Page, world: World):
    page.goto("/train")
    expect(page.locator(".t-jobs li").first).to_be_visible()
    page.keyboard.press("n")
    dialog = page.get_by_role("dialog", name="New job")
    dialog.get_by_role("button", name="Prepare").click()
    size = dialog.get_by_label("subset_size", exact=True)
    size.fill("0")
    expect(dialog.locator(".t-wrong").filter(has_text="greater than")).to_be_visible()
    expect(dialog.get_by_role("button", name="Start")).to_be_disabled()
    size.fill("6")
    dialog.get_by_label("title", exact=True).fill("Six pictures")
    expect(dialog.get_by_role("region", name="Command")).to_contain_text("--set prepare.subset_size=6")
    expect(dialog).to_contain_text("1 value differs from the preset")
    dialog.get_by_role("button", name="Start").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", name="Six pictures")).to_be_visible()
    expect(page).to_have_url(re.compile(r"job=\d{8}-\d{6}-prepare-"))
    page.reload()
    expect(page.get_by_role("heading", name="Six pictures")).to_be_visible()
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Succeeded", timeout=60_000)
    expect(page.get_by_role("region", name="Lines of the log")).to_contain_text("exit 0")
    expect(page.locator(".t-facts.left")).to_contain_text("prepare.subset_size=6")


def test_a_running_job_outlives_page_and_app_is_cancelled_and_resumed(page: Page, world: World):
    folder = training(world)
    visit(page, folder.name)
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("step 3/2000")
    tile = page.locator(".t-tiles dd").first
    expect(tile).not_to_have_text(re.compile("–|^0"))
    expect(page.get_by_role("img", name=re.compile("Loss: loss"))).to_be_visible()
    first = tile.inner_text()
    expect(tile).not_to_have_text(first)
    world.app.kill()
    expect(page.locator(".t-lost")).to_be_visible()
    assert read_job(folder).state == "running"
    world.app.start()
    expect(page.locator(".t-lost")).to_be_hidden(timeout=30_000)
    before = tile.inner_text()
    expect(tile).not_to_have_text(before)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("group", name="Cancel this job?")).to_contain_text("It saves a checkpoint")
    page.get_by_role("button", name="No", exact=True).click()
    assert read_job(folder).state == "running"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Cancelled")
    expect(log).to_contain_text("saved")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Running")
    expect(page.get_by_role("list", name="Attempts")).to_contain_text("Attempt 2")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Cancelled")


def test_an_alarm_leads_to_a_clone_with_the_remedy(page: Page):
    visit(page)
    expect(page.get_by_role("alert")).to_contain_text("falling together since update 352")
    page.get_by_role("button", name="Clone with anchor_coef 2.0").click()
    dialog = page.get_by_role("dialog", name="Clone with changes")
    coef = dialog.get_by_label("anchor_coef", exact=True)
    expect(coef).to_have_value("2.0")
    back = dialog.get_by_role("button", name="anchor_coef: back to the preset 1.0")
    expect(back).to_be_visible()
    back.click()
    expect(coef).to_have_value("1.0")
    expect(back).to_be_hidden()
    expect(dialog).to_contain_text("As the preset says")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Mute").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.reload()
    expect(page.locator(".t-tiles dd").first).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_figures_curves_and_other_jobs_beside_them(page: Page):
    visit(page)
    expect(page.locator(".t-tiles")).to_contain_text("412")
    loss = page.get_by_role("img", name=re.compile("^Loss: loss .* at step 412"))
    expect(loss).to_be_visible()
    box = loss.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    expect(page.locator(".t-readout:visible")).to_contain_text("Step")
    page.get_by_role("button", name="Log-probs").click()
    expect(page.get_by_role("img", name=re.compile("standard .*revised .*generated"))).to_be_visible()
    expect(page).to_have_url(re.compile("curve=logps"))
    page.get_by_role("button", name="Loss", exact=True).click()
    page.get_by_role("button", name="Compare job").click()
    page.get_by_role("checkbox", name=re.compile("other")).check()
    expect(page).to_have_url(re.compile("with=20260101-110000-opadpo-othr"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("img", name=re.compile("Loss: full .*, other "))).to_be_visible()
    page.reload()
    expect(page.get_by_role("img", name=re.compile("Loss: full .*, other "))).to_be_visible()
    expect(page.get_by_role("region", name="Utilization")).to_contain_text("GPU 1")
    expect(page.get_by_role("region", name="Memory estimate")).to_contain_text("Measured peak51.2 GiB")


def test_a_training_that_had_nothing_left_to_do_says_so(page: Page, world: World):
    folder = job_folders.make(world.workspace, "20260101-090000-opadpo-none", title="none", runs=["opadpo"])
    visit(page, folder.name)
    expect(page.get_by_role("img", name="Loss: no update was made")).to_be_visible()
    expect(page.get_by_role("region", name="Parts of the loss")).to_contain_text("No update was made")
    expect(page.locator(".t-tiles")).to_contain_text("Adapteropadpo")
    shutil.rmtree(folder)


def test_the_log_is_searched_and_holds_only_so_much(page: Page, world: World):
    folder = job_folders.make(
        world.workspace, "20251201-100000-caption-logs", step="caption", state="running", pid=os.getpid()
    )
    (folder / LOG_FILE).write_text("".join(f"line {n} of it\n" for n in range(30_000)))
    visit(page, folder.name)
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("line 29999")
    at_end = "node => node.scrollTop + node.clientHeight >= node.scrollHeight - 2"
    assert log.evaluate(at_end)
    with (folder / LOG_FILE).open("a") as stream:
        stream.writelines(f"more {n}\n" for n in range(4000))
    expect(log).to_contain_text("more 3999")
    assert log.evaluate(at_end)
    assert page.locator(".t-log > span").count() <= 2001
    follow = page.get_by_role("switch", name="Follow")
    log.evaluate("node => { node.style.maxHeight = '120px'; node.dispatchEvent(new Event('scroll')); }")
    page.wait_for_function(at_end, arg=log.element_handle())
    expect(follow).to_be_checked()
    log.evaluate("node => { node.scrollTop = 0; }")
    expect(follow).not_to_be_checked()
    page.keyboard.press("g")
    page.keyboard.type("LINE 12345")
    found = page.get_by_role("region", name="Lines found")
    expect(found).to_contain_text("12,346  line 12345 of it")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == (folder / LOG_FILE).read_bytes()


def test_filters_search_and_keys_are_in_the_address(page: Page):
    visit(page)
    page.get_by_label("State").select_option("failed")
    expect(page.locator(".t-jobs li")).to_have_count(1)
    expect(page).to_have_url(re.compile("state=failed"))
    page.reload()
    expect(page.locator(".t-jobs li")).to_have_count(1)
    page.get_by_label("State").select_option("")
    expect(page.locator(".t-jobs li")).not_to_have_count(1)
    page.locator(".t-body").focus()
    page.keyboard.press("/")
    page.keyboard.type("othe")
    expect(page.locator(".t-jobs li")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", name="other", exact=True)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.type("nothing such")
    expect(page.locator(".t-none")).to_contain_text("No job matches")
    page.get_by_role("button", name="Clear filters").click()
    page.locator(".t-body").focus()
    page.keyboard.press("l")
    expect(page.locator(".d-toast")).to_contain_text(re.compile("copied|/train.job="))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Clone with changes")


def test_of_late_answers_only_the_newest_counts(page: Page):
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route) if len(held) < 2 else route.continue_()

    def release(route: Route) -> None:
        with page.expect_response(route.request.url):
            route.continue_()

    def await_held(count: int) -> None:
        while len(held) < count:
            page.wait_for_timeout(20)

    visit(page, "20260101-110000-opadpo-othr")
    page.route("**/jobs/*-full/live?*", hold)
    full, other = (page.locator(".t-jobs a").filter(has_text=title) for title in ("full", "other"))
    full.click()
    await_held(1)
    expect(page.locator(".t-top")).to_have_attribute("inert", "")  # what can be done there is still the other's
    other.click()
    expect(page.locator(".t-top[inert]")).to_have_count(0)
    full.click()
    await_held(2)
    release(held[1])
    expect(page.get_by_role("heading", name="full", exact=True)).to_be_visible()
    lines = page.locator(".t-log > span").count()
    assert lines > 50
    release(held[0])
    page.wait_for_timeout(300)
    assert page.locator(".t-log > span").count() == lines

    held.clear()
    page.route("**/form?step=rollout*", hold)
    page.keyboard.press("n")
    dialog = page.get_by_role("dialog", name="New job")
    start = dialog.get_by_role("button", name="Start")
    dialog.get_by_role("button", name="Rollout").click()
    expect(start).to_be_disabled()
    dialog.get_by_role("button", name="Prepare").click()
    expect(start).to_be_enabled()
    release(held[0])
    expect(dialog.get_by_role("button", name="Prepare")).to_have_attribute("aria-pressed", "true")
    expect(dialog.get_by_role("region", name="Command")).to_contain_text("opadpo prepare")


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
def test_strange_texts_are_shown_as_they_are_and_nothing_sticks_out(page: Page, size: tuple[int, int]):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visit(page, "20260101-100000-rollout-evil")
    expect(page.locator(".t-banner.bad")).to_contain_text(HOSTILE.split("\n")[0][:30])
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("red \u2407bell <U+202E>back")
    expect(log).to_contain_text(HOSTILE.split("\n")[0][:30])
    assert page.locator("html, .t-body, .t-jobs, .t-jobhead, .t-log").evaluate_all(SPARE) == [0] * 6
    visit(page)
    assert page.locator("html, .t-body, .t-jobs, .t-jobhead").evaluate_all(SPARE) == [0] * 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(page: Page, scheme):
    page.emulate_media(color_scheme=scheme)
    visit(page, more="&with=20260101-110000-opadpo-othr")
    expect(page.get_by_role("img", name=re.compile("Loss"))).to_be_visible()
    expect(page.locator(".t-jobs li").first).to_be_visible()
    check(page)
    page.keyboard.press("n")
    expect(page.locator(".t-new .t-cmd")).not_to_be_empty()
    check(page)


def check(page: Page) -> None:
    found = Axe().run(page, context="#desk").response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] != "minor"] == []


def test_what_the_server_cannot_do_is_said_and_the_dialog_waits_for_it(page: Page, world: World):
    folder = job_folders.make(world.workspace, "20251101-100000-opa-hurt", step="opa", title="hurt")
    (folder / "job.json").write_text("{")
    page.goto(f"/train?job={folder.name}")
    expect(page.locator(".d-blank")).to_contain_text("job.json")
    shutil.rmtree(folder)
    expect(page.locator(".d-blank")).to_contain_text("There is no such job")
    visit(page)
    page.keyboard.press("n")
    dialog = page.get_by_role("dialog", name="New job")
    dialog.get_by_role("button", name="Prepare").click()
    start = dialog.get_by_role("button", name="Start")
    expect(start).to_be_enabled()
    page.route("**/api/jobs/preview", lambda route: route.abort("internetdisconnected"))
    dialog.get_by_label("title", exact=True).fill("later")
    expect(dialog.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(start).to_be_disabled()
    page.unroute("**/api/jobs/preview")
    expect(start).to_be_enabled()
    expect(dialog.locator(".t-general")).to_be_empty()
    preset = dialog.get_by_label("preset", exact=True)
    bad = '{"error": {"what": "The preset cannot be read", "seen": "toy.yaml", "remedy": null}}'
    page.route("**/form?*", lambda route: route.fulfill(status=422, content_type="application/json", body=bad))
    preset.select_option("llava-1.5-7b")
    expect(dialog.get_by_role("alert")).to_contain_text("The preset cannot be read. toy.yaml")
    expect(preset).to_have_value("")
    expect(preset).to_be_focused()
    page.unroute("**/form?*")
    preset.select_option("toy")
    expect(dialog.locator(".t-general")).to_be_empty()
    expect(preset).to_have_value("toy")
    expect(start).to_be_enabled()
    told = '{"error": {"what": "Another job writes prompts", "seen": null, "remedy": "wait"}}'
    page.route(
        re.compile(r"/api/jobs$"), lambda route: route.fulfill(status=409, content_type="application/json", body=told)
    )
    start.click()
    expect(dialog.get_by_role("alert")).to_contain_text("Another job writes prompts. Wait")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("status")).to_contain_text(re.compile("copied|Ctrl"))
    page.unroute(re.compile(r"/api/jobs$"))
    dialog.get_by_role("button", name="Close").first.click()
    wrong = '{"error": {"what": "A file cannot be read", "seen": "x.json", "remedy": null}}'
    page.route("**/live?*", lambda route: route.fulfill(status=422, content_type="application/json", body=wrong))
    page.evaluate("dispatchEvent(new Event('online'))")  # a job that has ended is looked at seldom
    expect(page.locator(".t-lost")).to_contain_text("A file cannot be read. x.json.")
    page.unroute("**/live?*")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator(".t-lost")).to_be_hidden()


def test_who_is_no_admin_sees_jobs_without_commands(browser: Browser, tmp_path: Path, monkeypatch):
    workspace = toy_workspace(tmp_path / "team")
    folder = job_folders.make(workspace, "20260101-120000-opadpo-full", title="theirs", runs=["opadpo"])
    job_folders.fill(folder, workspace)
    job_folders.alarm(folder)
    people = People(Database.open(workspace.users_db))
    people.add("boss", "admin", "a long passphrase 1")
    people.add("jonas", "reviewer", "a long passphrase 2")
    with RunningApp(workspace.root, before=ESTIMATED) as app:
        context = browser.new_context(base_url=app.url)
        page = context.new_page()
        page.goto("/login")
        page.get_by_label("Name").fill("jonas")
        page.get_by_label("Password").fill("a long passphrase 2")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(lambda url: "/login" not in url)
        visit(page)
        expect(page.get_by_role("alert")).to_contain_text("falling together")
        expect(page.get_by_role("img", name=re.compile("Loss"))).to_be_visible()
        for name in ("New job", "Clone", "Cancel", "Resume", "Mute", "Copy"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        page.keyboard.press("n")
        page.keyboard.press("c")
        time.sleep(0.3)
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert "opadpo train" not in page.locator("#desk").inner_text().replace("attempt 1: opadpo train", "")
        context.close()


def test_an_empty_workspace_says_what_to_do(browser: Browser, app):
    context = browser.new_context(base_url=app.url, storage_state=app.state())
    page = context.new_page()
    page.goto("/train")
    expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    page.locator(".d-blank").get_by_role("button", name="New job").click()
    dialog = page.get_by_role("dialog", name="New job")
    expect(dialog.get_by_role("region", name="Memory estimate")).to_contain_text(
        "Adapter and optimizer", timeout=180_000
    )
    context.close()
