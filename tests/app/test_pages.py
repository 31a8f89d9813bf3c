"""The pages in a real browser."""

import warnings
from pathlib import Path

import made_workspace
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from app.pages.state import holds, render
from app.server import create

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, app_url: str):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, base_url=app_url, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(30_000)
    seen: dict[str, list[str]] = {"errors": [], "outside": []}

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            seen["errors"].append(message.text)

    def on_request(request: Request) -> None:
        if not request.url.startswith((app_url, "data:", "blob:")):
            seen["outside"].append(request.url)

    page.on("console", on_console)
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on("request", on_request)
    yield page
    assert page.evaluate("window.hacked") is None
    assert seen == {"errors": [], "outside": []}
    context.close()


def test_the_state_tells_what_is_done_and_what_comes_next(page: Page):
    page.goto("/")
    table = page.locator(".o-table")
    expect(table).to_contain_text("rollouts")
    expect(table.locator("tr", has_text="prompts").first.locator(".o-badge")).to_have_text("done")
    expect(table.locator("tr", has_text="adapters/opa").first.locator(".o-badge")).to_have_text("missing")
    expect(page.locator(".o-next")).to_contain_text("opadpo prepare")


def test_gallery_shows_images_and_opens_a_record_with_its_id_in_the_url(page: Page):
    page.goto("/rollouts")
    expect(page.locator(".o-card")).to_have_count(24)
    first = page.locator(".o-card").nth(2)
    picture = first.locator("img")
    expect(picture).to_have_js_property("naturalWidth", 64)
    name = first.get_attribute("data-record")
    first.click()
    expect(page.locator(".o-record h2")).to_have_text(name or "?")
    assert f"record={name}" in page.url
    page.reload()
    expect(page.locator(".o-record h2")).to_have_text(name or "?")
    expect(page.locator(".o-record .o-sentences li").first).to_be_visible()


def test_revisions_show_what_was_struck_and_what_was_put_in(page: Page):
    page.goto("/rollouts")
    page.get_by_label("2", exact=True).check()
    expect(page.locator("#gallery h1")).not_to_contain_text("60 of 60")
    page.locator(".o-card").first.click()
    record = page.locator(".o-record")
    expect(record.locator("ins").first).to_be_visible()
    expect(record.locator("del").first).to_be_visible()
    expect(record.locator(".why").first).to_contain_text("image recognition error")


def test_search_pages_and_the_empty_answer(page: Page):
    page.goto("/rollouts")
    expect(page.locator("#gallery h1")).to_contain_text("60 of 60, page 1 of 3")
    page.locator("#next").click()
    expect(page.locator("#gallery h1")).to_contain_text("page 2 of 3")
    page.locator("#search input, #search textarea").first.fill("no such words anywhere")
    expect(page.locator("#gallery")).to_contain_text("No record matches")


def test_hostile_texts_stay_texts(page: Page):
    page.goto("/rollouts")
    page.locator("#search input, #search textarea").first.fill("onerror")
    expect(page.locator(".o-card")).to_have_count(1)
    page.locator(".o-card").first.click()
    expect(page.locator(".o-record")).to_contain_text("<script>window.hacked=1</script>")
    page.wait_for_timeout(300)


def test_the_theme_switch_lasts(page: Page):
    page.goto("/")
    expect(page.locator(".o-table")).to_be_visible()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("[data-theme-switch]").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    page.reload()
    expect(page.locator(".o-table")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_counts_of_nothing_and_parts_of_counts_are_left_out():
    assert holds({"rows": 1200, "resumed_from": 0, "by_expert": 3, "dropped/empty_response": 3}) == (
        "1,200 rows, 3 by expert"
    )


def test_reasons_have_a_column_only_if_there_is_one(tmp_path: Path):
    workspace = made_workspace.make(tmp_path / "w")
    assert "<th>Why</th>" not in render(workspace)
    workspace = made_workspace.change(workspace, seed=7)
    assert "<th>Why</th>" in render(workspace)
    assert "seed was 0, is now 7" in render(workspace)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        create(workspace)


@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)])
def test_nothing_sticks_out_at_the_sides(page: Page, size: tuple[int, int]):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for path, mark in (("/", ".o-table"), ("/rollouts", ".o-card")):
        page.goto(path)
        expect(page.locator(mark).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
