"""Asking about an image of one's own, in a real browser, answered by a real model."""

import io
from collections.abc import Iterator

import pytest
import tiny_workspace
from axe_playwright_python.sync_playwright import Axe
from given_captions import give_captions
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from random_adapter import add_adapter
from running_app import RunningApp
from watched_page import watched

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def app(tiny_llava_folder, tmp_path_factory):
    made = tiny_workspace.make(tmp_path_factory.mktemp("ask") / "ws", tiny_llava_folder, train=1, heldout=2)
    add_adapter(made, "opa", 0)
    give_captions(made, "base", lambda prompt: "There is a cup.")
    with RunningApp(made.root) as running:
        yield running


@pytest.fixture
def page(browser: Browser, app) -> Iterator[Page]:
    with watched(browser, app, usual="status of 4", size=(1024, 768)) as page:
        yield page


def test_a_question_about_an_image_of_one_s_own(page: Page) -> None:
    page.goto("/compare")
    expect(page.locator(".c-columns article").first).to_be_visible()
    page.keyboard.press("a")
    asking = page.get_by_role("dialog", name="Ask now")
    expect(asking.get_by_role("textbox", name="Question")).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(asking.get_by_role("alert")).to_have_text("Choose an image first.")
    asking.locator("input[type=file]").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}
    )
    expect(asking.get_by_role("alert")).to_have_text("This file is no image.")
    asking.locator("input[type=file]").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": picture()}
    )
    expect(asking.get_by_role("img", name="The chosen image")).to_be_visible()
    asking.get_by_role("checkbox", name="opa").check()
    asking.get_by_role("textbox", name="Question").fill("What <b>is</b> red?")
    page.keyboard.press("Control+Enter")
    expect(asking.get_by_role("button", name="Take back")).to_be_visible()
    answers = asking.locator(".c-askcolumns article")
    expect(answers).to_have_count(2)
    expect(answers.nth(0).locator(".d-label")).to_contain_text("tokens", timeout=90_000)
    expect(answers.nth(1).locator(".d-label")).to_contain_text("tokens", timeout=30_000)
    expect(asking.locator(".c-askhead")).to_contain_text("What <b>is</b> red?")
    expect(asking.get_by_role("button", name="Take back")).to_have_count(0)
    serious = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == []
    asking.get_by_role("textbox", name="Question").focus()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(asking.locator(".c-askcolumns article")).to_have_count(2)


def test_an_image_that_cannot_be_read_is_said_so(page: Page) -> None:
    page.goto("/compare")
    page.get_by_role("button", name="Ask now").click()
    asking = page.get_by_role("dialog", name="Ask now")
    asking.locator("input[type=file]").set_input_files(
        {"name": "torn.png", "mimeType": "image/png", "buffer": picture()[:40]}
    )
    asking.get_by_role("button", name="Ask", exact=False).last.click()
    expect(asking.get_by_role("alert")).to_contain_text("The image cannot be used")
