"""The pages in a real browser."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import made_workspace
import pytest
from playwright.sync_api import Browser, Page, expect
from running_app import RunningApp
from watched_page import watched

from app.pages.state import holds, render
from app.server import create

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, app: RunningApp) -> Iterator[Page]:
    with watched(browser, app, gradio=True) as page:
        yield page


def test_the_state_tells_what_is_done_and_what_comes_next(page: Page):
    page.goto("/")
    table = page.locator(".o-table")
    expect(table).to_contain_text("rollouts")
    expect(table.locator("tr", has_text="prompts").first.locator(".o-badge")).to_have_text("done")
    expect(table.locator("tr", has_text="adapters/opa").first.locator(".o-badge")).to_have_text("missing")
    expect(page.locator(".o-next")).to_contain_text("opadpo prepare")


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
    assert holds({"updates": 60, "resumed_from": 40, "reference_reused": 2520}) == (
        "60 updates, continued from update 40, 2,520 rows of the reference reused"
    )


def test_it_says_how_people_judged_the_expert(tmp_path: Path):
    workspace = made_workspace.make(tmp_path / "w")
    assert "How far to trust" not in render(workspace)
    parent = made_workspace.review(workspace, "r-2")
    made_workspace.review(workspace, "r-2", "human", parent)
    page = render(workspace)
    assert "100 % of 1 sentences accepted" in page
    assert '<tr><th scope="row">4</th><td class="num">0</td><td class="num">0</td><td class="num">0</td>' in page
    assert page.count('<td class="num same">1</td>') == 2
    assert '<th scope="col">image recognition</th>' in page


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
    for path, mark in (("/", ".o-table"), ("/rollouts", ".r-card")):
        page.goto(path)
        expect(page.locator(mark).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
