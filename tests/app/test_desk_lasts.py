"""Nothing typed at the review desk is lost: a reload, a crash of the browser, a crash of the server."""

from pathlib import Path

import psutil
import pytest
from late_answers import eventually
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, desk):
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, base_url=desk.app.url, storage_state=desk.app.state()
    )
    yield context.new_page()
    context.close()


def edit(page: Page, record: str, text: str) -> None:
    """Open the first sentence of a record and type."""
    page.goto(f"/review?record={record}")
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)
    page.keyboard.press("e")
    page.keyboard.type(text)


def first_sentence(page: Page) -> str:
    """Its current text."""
    row = page.locator(".d-sent").first
    box = row.get_by_role("textbox", name="Text of sentence 1")
    return box.input_value() if box.count() else row.locator(".d-t").last.inner_text()


def draft(page: Page, record: str) -> str:
    """The first sentence of the server's draft; empty if there is none."""
    found = page.request.get(f"/api/review/records/{record}").json()["draft"]
    return found["sentences"][0]["revised"] if found else ""


def test_a_draft_reaches_the_server_while_the_typing_goes_on(page: Page, desk):
    record = desk.records[16]
    edit(page, record, "")
    seen: list[str] = []
    page.on("request", lambda r: seen.append(r.url) if r.method == "PUT" else None)
    typed = ""
    while len(seen) < 2:
        assert len(typed) < 500
        page.keyboard.type("on")
        typed += "on"
        page.wait_for_timeout(60)
    eventually(page, lambda: draft(page, record).endswith(typed))


def test_a_reload_in_the_middle_of_a_word_keeps_every_letter(page: Page, desk):
    record = desk.records[17]
    edit(page, record, " and then som")
    page.reload()
    expect(page.locator(".d-sent").first).to_be_visible()
    assert first_sentence(page).endswith(" and then som")
    eventually(page, lambda: draft(page, record).endswith(" and then som"))


def test_what_the_server_has_outlives_a_crash_of_the_browser(page: Page, desk, tmp_path: Path):
    record = desk.records[18]
    crashing = page.context.browser
    assert crashing is not None
    context = crashing.browser_type.launch_persistent_context(
        tmp_path / "profile",
        executable_path="/usr/bin/chromium",
        args=["--no-sandbox", "--disable-dev-shm-usage"],
        base_url=desk.app.url,
    )
    context.add_cookies(desk.app.state()["cookies"])
    edit(context.new_page(), record, " before the crash")
    eventually(page, lambda: draft(page, record).endswith(" before the crash"))
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path / "profile") in part for part in process.info["cmdline"] or []):
            process.kill()
    page.goto(f"/review?record={record}")
    expect(page.locator(".d-sent").first).to_be_visible()
    assert first_sentence(page).endswith(" before the crash")
    expect(page.locator(".d-saved")).to_contain_text("Saved ")


def test_a_crash_of_the_server_loses_nothing(page: Page, desk):
    """One page stays open and goes on; another is closed while the server is away, so that only the browser knows."""
    record, committed, closed = desk.records[19], desk.records[20], desk.records[21]
    edit(page, committed, " committed")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".d-facts .d-mono")).not_to_have_text(committed)
    edit(page, record, " one")
    other = page.context.new_page()
    edit(other, closed, " first")
    expect(other.locator(".d-saved")).to_contain_text("Saved ")
    expect(page.locator(".d-saved")).to_contain_text("Saved ")
    page.keyboard.type(" two")
    desk.app.kill()
    other.keyboard.type(" second")
    expect(other.locator(".d-saved")).to_have_text("Offline, kept in this browser")
    other.close()
    page.keyboard.type(" three")
    expect(page.locator(".d-saved")).to_have_text("Offline, kept in this browser")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".d-toast")).to_contain_text("does not answer")
    page.keyboard.type(" four")
    assert first_sentence(page).endswith(" one two three four")
    desk.app.start()
    expect(page.locator(".d-saved")).to_contain_text("Saved ", timeout=60_000)
    assert draft(page, record).endswith(" one two three four")
    assert "committed" in page.request.get(f"/api/review/records/{committed}").json()["current"]["text"]
    page.goto(f"/review?record={closed}")
    expect(page.locator(".d-sent").first).to_be_visible()
    assert first_sentence(page).endswith(" first second")
    eventually(page, lambda: draft(page, closed).endswith(" first second"))
