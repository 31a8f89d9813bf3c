"""The review desk in a real browser: keys, decisions, conflicts, hostile texts, accessibility, layout."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from desk_workspace import decide
from filled_workspace import HOSTILE
from late_answers import Late, eventually, intercepted
from playwright.sync_api import Browser, Page, expect
from watched_page import watched

from app import docs, files
from opadpo.records import Revision
from opadpo.review.store import ReviewStore
from opadpo.text.worddiff import word_diff

pytestmark = pytest.mark.browser

TABLE = docs.keys_of("review")


@pytest.fixture
def page(browser: Browser, desk) -> Iterator[Page]:
    with watched(browser, desk.app, usual="status of 4(04|09)") as page:
        yield page


def visit(page: Page, record: str, query: str = "") -> None:
    page.goto(f"/review?record={record}{query}")
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)


def shown(page: Page) -> str:
    return page.locator(".d-facts .d-mono").inner_text()


def stored(page: Page, record: str) -> Any:
    """The record as the server has it."""
    return page.request.get(f"/api/review/records/{record}").json()


def rows(page: Page):
    return page.locator(".d-sent")


def saved(page: Page) -> None:
    expect(page.locator(".d-saved")).to_contain_text("Saved ")


class Keyboard:
    """Presses keys by their names in the table, and remembers which."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pressed: set[str] = set()

    def __call__(self, *names: str) -> None:
        for name in names:
            self.pressed.add(name)
            key = name.replace("Ctrl", "Control")
            self.page.keyboard.press(f"Shift+{key}" if re.fullmatch("[A-Z]", key) else key)


def test_the_diff_in_the_browser_is_that_of_the_library(page: Page, desk):
    visit(page, desk.records[6])
    draw = random.Random(1)
    latin = ["a", "the", "cat", "cat,", "sat", "don't", "it's", "x_y", "3.5", ".", "!", "<b>", "'", "e\u0301"]
    other = ["猫", "が", "é", "👩\u200d👧", "👍🏽", "\u200d", "\n", "\t", "\u202e", "ไทย", "\u3000"]
    parts = [*latin, *other]

    def text(length: int) -> list[str]:
        return [draw.choice(parts) + draw.choice(["", " ", " ", "  "]) for _ in range(length)]

    cases = [("", ""), ("a b", "c d"), ("x" * 10_000, "x" * 9_999)]
    for _ in range(400):
        first = text(draw.randint(0, 20))
        second = [draw.choice(text(1)) if draw.random() < 0.2 else part for part in first] if first else text(5)
        cases.append(("".join(first), "".join(second if draw.random() < 0.8 else text(10))))
    found = page.evaluate(
        "async ([address, cases]) => { const { wordDiff } = await import(address);"
        " return cases.map(([a, b]) => wordDiff(a, b)); }",
        [files.address("diff.js"), cases],
    )
    assert found == [[list(change) for change in word_diff(first, second)] for first, second in cases]


def test_every_key_of_the_table(page: Page, desk):
    """One reviewer's way through a record and on, by keys alone."""
    record, second = desk.records[6], desk.records[7]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, record, "&sort=sampled")
    press, row = Keyboard(page), rows(page)
    _sentence_keys(page, press, row)
    _view_keys(page, press)
    press("]")
    expect(page.locator(".d-facts .d-mono")).to_have_text(second)
    press("[")
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)
    press("ArrowRight")
    expect(page.locator(".d-facts .d-mono")).to_have_text(second)
    press("ArrowLeft")
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)
    _decision_keys(page, press, record)
    _conflict_keys(page, press, desk)
    assert {key for entry in TABLE for key in entry["keys"]} - press.pressed == set()


def _sentence_keys(page: Page, press: Keyboard, row) -> None:
    current = page.locator(".d-sent.now")
    expect(row).to_have_count(3)
    for key, position in (("j", 1), ("k", 0), ("ArrowDown", 1), ("ArrowDown", 2), ("ArrowUp", 1)):
        press(key)
        expect(row.nth(position)).to_have_attribute("aria-current", "true")
        expect(row.nth(position).locator(".d-row")).to_be_focused()
    press("e")
    box = page.get_by_role("textbox", name="Text of sentence 2")
    expect(box).to_be_focused()
    page.keyboard.type(" jx?4d")  # letters that are keys elsewhere are text here
    expect(box).to_have_value("A dog sits on the sofa. jx?4d")
    expect(page.locator(".d-preview ins")).to_have_text(" jx?4d")
    press("Escape")
    expect(current.locator(".d-row")).to_be_focused()
    expect(current.locator(".d-chip")).to_contain_text("3")
    expect(current).to_contain_text("Image error")
    press("t")
    expect(current).to_contain_text("Language error")
    for score in "123":
        press(score)
        expect(current.locator(".d-chip")).to_contain_text(score)
    press("o")
    page.keyboard.type("dog")
    page.keyboard.press("Tab")
    page.keyboard.type("cat")
    page.keyboard.press("Enter")
    press("Escape", "w")
    page.keyboard.type("It meows.")
    press("Escape")
    expect(current).to_contain_text("dogcat")
    expect(current).to_contain_text("It meows.")
    press("r")
    expect(current).to_contain_text("Unchanged")
    press("u")
    expect(current).to_contain_text("It meows.")
    press("4")
    expect(current.locator(".d-chip")).to_contain_text("4")
    press("u", "R")
    expect(current).to_contain_text("Unchanged")
    press("d")
    expect(current).to_contain_text("Deleted")
    press("d")
    expect(current).to_contain_text("A dog sits on the sofa.")
    press("n")
    page.keyboard.type("A lamp is lit.")
    press("Escape")
    expect(row).to_have_count(4)
    expect(row.nth(2)).to_contain_text("A lamp is lit.")
    press("k", "a")
    expect(page.get_by_role("button", name="Accept sentence 2")).to_have_attribute("aria-pressed", "true")
    expect(row.nth(2)).to_have_attribute("aria-current", "true")
    press("A")
    expect(page.locator(".d-cols .d-count")).to_have_text("accepted 4/4")


def _view_keys(page: Page, press: Keyboard) -> None:
    press("i")
    expect(page.locator(".d-look details")).to_have_attribute("open", "")
    percent = page.locator(".d-pct")
    fitted = percent.inner_text()
    press("+", "=")
    expect(percent).not_to_have_text(fitted)
    image = page.locator(".d-stage img")
    for key in ("Left", "Up", "Right", "Down"):
        before = image.get_attribute("style")
        press(f"Shift+Arrow{key}")
        assert image.get_attribute("style") != before
    press("-", "0")
    expect(percent).to_have_text(fitted)
    for key, name in (("g", "Guidelines"), ("?", "Keyboard shortcuts"), ("h", "History")):
        press(key)
        dialog = page.get_by_role("dialog", name=name)
        expect(dialog).to_be_visible()
        press("Escape")
        expect(dialog).to_have_count(0)
    press(";")
    expect(page.get_by_role("dialog", name="Filters")).to_be_visible()
    press("Escape", "q")
    expect(page.get_by_role("combobox", name="Queue")).to_be_focused()
    press("Escape", "/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    press("Escape")
    expect(page.locator(".d-sent.now .d-row")).to_be_focused()
    press("m")
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    press("m")
    expect(page.locator("body")).not_to_have_class(re.compile("dark"))
    press("l")
    expect(page.locator(".d-toast")).to_contain_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def _decision_keys(page: Page, press: Keyboard, record: str) -> None:
    def another() -> None:
        expect(page.locator(".d-facts .d-mono")).not_to_have_text(record)

    press("x", "3")
    another()
    assert stored(page, record)["current"]["status"] == "rejected"
    assert "repair" in stored(page, record)["current"]["note"]
    press("u")
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)
    expect(rows(page)).to_have_count(4)  # what had been done comes back with it
    press("s")
    another()
    page.goto(f"/review?record={record}&sort=sampled")
    expect(rows(page).first).to_be_visible()
    press("f")
    page.keyboard.type("Is it a sofa?")
    page.keyboard.press("Enter")
    another()
    assert stored(page, record)["current"]["note"] == "Is it a sofa?"
    visit(page, record, "&sort=sampled")
    press("e")
    page.keyboard.type(" Indeed.")
    press("Ctrl+Enter")
    another()
    now = stored(page, record)
    assert now["state"] == "accepted"
    assert "A lamp is lit." in now["current"]["text"]
    assert "Indeed." in now["current"]["text"]
    assert len(now["history"]) >= 3


def _conflict_keys(page: Page, press: Keyboard, desk) -> None:
    """A stale edit is refused and both versions are shown; either can be chosen."""
    record = desk.records[8]
    visit(page, record)
    press("e")
    page.keyboard.type(" Mine.")
    saved(page)
    theirs = decide(desk.workspace, record, "Jonas", 1, "Theirs.")
    press("Ctrl+Enter")
    banner = page.locator(".d-conflict")
    expect(banner).to_contain_text("Jonas decided on this record")
    expect(banner).to_contain_text("Theirs.")
    expect(banner).to_contain_text("Mine.")
    expect(page.locator(".d-saved")).to_have_text("Conflict")
    assert stored(page, record)["current"]["revision_id"] == theirs
    press("Escape", "M")
    expect(banner).to_have_count(0)
    expect(rows(page).nth(1)).to_contain_text("Theirs.")
    expect(rows(page).nth(0)).to_contain_text("Mine.")
    press("Ctrl+Enter")
    expect(page.locator(".d-facts .d-mono")).not_to_have_text(record)
    assert stored(page, record)["current"]["text"] == "A cup stands on the table. Mine. Theirs. The sky is blue."
    other = desk.records[9]
    visit(page, other)
    press("e")
    page.keyboard.type(" Mine.")
    saved(page)
    decide(desk.workspace, other, "Jonas", 1, "Theirs.")
    page.reload()  # a draft from before is a conflict as soon as it is opened
    expect(banner).to_be_visible()
    press("T")
    expect(banner).to_have_count(0)
    expect(rows(page).nth(0)).to_contain_text("Unchanged")
    expect(rows(page).nth(1)).to_contain_text("Theirs.")
    assert stored(page, other)["draft"] is None


def test_single_keys_can_be_switched_off_and_everything_has_a_button(page: Page, desk):
    visit(page, desk.records[10])
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_role("switch", name="Single-key shortcuts").click()
    page.keyboard.press("Escape")
    rows(page).first.locator(".d-row").focus()
    page.keyboard.press("d")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(rows(page).first).to_contain_text("Unchanged")
    page.keyboard.press("ArrowDown")
    expect(rows(page).nth(1)).to_have_attribute("aria-current", "true")
    page.evaluate("localStorage.clear()")


def test_a_score_that_does_not_fit_is_held_back_with_its_reason(page: Page, desk):
    visit(page, desk.records[10])
    page.keyboard.press("2")
    expect(page.locator(".d-warning")).to_contain_text("change the text")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".d-toast")).to_contain_text("change the text")
    assert shown(page) == desk.records[10]
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    expect(rows(page).first.locator(".d-chip")).to_contain_text("2")


def test_the_next_image_is_there_before_it_is_needed(page: Page, desk):
    asked: list[str] = []
    page.on("requestfinished", lambda r: asked.append(r.url) if "/images?" in r.url else None)
    visit(page, desk.records[12], "&sort=sampled")
    eventually(page, lambda: len(set(asked)) >= 2)
    before = list(asked)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".d-facts .d-mono")).not_to_have_text(desk.records[12])
    image = page.locator(".d-stage img")
    assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    assert image.evaluate("image => image.src") in before


def test_hostile_texts_stay_texts_in_every_field(page: Page, desk):
    visit(page, desk.records[0])
    look = page.locator(".d-look")
    expect(look.locator(".d-text").nth(0)).to_contain_text(HOSTILE)
    expect(look.locator(".d-text").nth(1)).to_contain_text(HOSTILE)
    page.keyboard.press("i")
    expect(look.locator("details")).to_contain_text(HOSTILE)
    expect(page.locator(".d-sents")).to_contain_text(HOSTILE)
    page.keyboard.press("e")
    page.keyboard.insert_text(HOSTILE)
    expect(page.locator(".d-preview")).to_contain_text(HOSTILE)
    page.get_by_role("textbox", name="Object in error: wrong").fill(HOSTILE)
    page.get_by_role("textbox", name="Object in error: right").fill(HOSTILE)
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Reason").fill(HOSTILE)
    page.keyboard.press("Escape")
    expect(page.locator(".d-sent.now .d-meta")).to_contain_text(f"{HOSTILE}{HOSTILE}{HOSTILE}")
    page.keyboard.press("f")
    page.keyboard.insert_text(HOSTILE)
    page.keyboard.press("Enter")
    expect(page.locator(".d-facts .d-mono")).not_to_have_text(desk.records[0])
    visit(page, desk.records[0])
    expect(page.locator(".d-standing")).to_contain_text(HOSTILE)
    page.keyboard.press("h")
    expect(page.locator(".d-note")).to_contain_text(HOSTILE)
    page.goto(f"/review?text={HOSTILE.replace('&', '%26').replace('#', '%23')}nothing")
    expect(page.locator(".d-blank")).to_contain_text("No record matches this filter")
    visit(page, desk.records[2])
    expect(rows(page).first).to_contain_text("Hidden characters U+202E")
    for record in desk.records[1], desk.records[5]:
        visit(page, record)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1440
    expect(page.locator(".d-sents")).to_contain_text("Add a sentence")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, desk, scheme):
    page.emulate_media(color_scheme=scheme)
    visit(page, desk.records[13])
    page.keyboard.press("e")
    _check(page, "editing")
    page.keyboard.press("Escape")
    for key in "?g;xf" if scheme == "light" else "?x":
        page.keyboard.press(key)
        expect(page.get_by_role("dialog").first).to_be_visible()
        _check(page, key)
        page.keyboard.press("Escape")
    page.goto("/review?text=nothing+at+all")
    expect(page.locator(".d-blank h2")).to_be_visible()
    _check(page, "empty")


def _check(page: Page, what: str) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert serious == [], what + json.dumps([(v["id"], [n["html"] for n in v["nodes"]]) for v in serious], indent=1)


def test_nothing_jumps_between_records_and_nothing_sticks_out(page: Page, desk):
    marks = [".d-toolbar", ".d-well", ".d-zoom", ".d-cols", ".d-saved", ".d-pos", ".d-foot .d-btn.primary"]

    def places() -> list[Any]:
        return [page.locator(mark).first.bounding_box() for mark in marks]

    for width, height in ((1024, 768), (2560, 1440)):
        page.set_viewport_size({"width": width, "height": height})
        visit(page, desk.records[0], "&sort=sampled")
        first = places()
        for record in desk.records[1:5]:
            page.keyboard.press("]")
            expect(page.locator(".d-facts .d-mono")).to_have_text(record)
            assert places() == first
            assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
                width,
                height,
            ]
        expect(page.locator(".d-size")).to_have_text("4000 × 10")


def test_empty_states_say_what_to_do_next(page: Page, desk):
    page.goto("/review?text=nothing+at+all&score=1&score=2")
    expect(page.locator(".d-blank")).to_contain_text("No record matches these 2 filters")
    page.get_by_role("button", name="Clear filters").click()
    expect(rows(page).first).to_be_visible()
    address = page.evaluate("location.search")
    assert "text=" not in address
    assert "record=" in address
    page.goto("/review?record=r-unknown")
    expect(page.locator(".d-blank")).to_contain_text("r-unknown")
    page.get_by_role("button", name="Go to my queue").click()
    expect(rows(page).first).to_be_visible()


def test_filters_and_search_live_in_the_address(page: Page, desk):
    visit(page, desk.records[15])
    page.keyboard.press(";")
    page.get_by_role("dialog", name="Filters").get_by_label("Cut at limit").check()
    page.get_by_role("button", name="Apply").click()
    chip = page.get_by_role("button", name="Filter: Finish: Cut at limit. Remove")
    expect(chip).to_be_visible()
    expect(page.locator(".d-facts")).to_contain_text("cut at the limit")
    expect(page).to_have_url(re.compile("finish=length"))
    page.reload()
    expect(chip).to_be_visible()
    chip.click()
    expect(chip).to_have_count(0)
    page.keyboard.press("/")
    page.keyboard.type("sofa")
    page.keyboard.press("Enter")
    expect(page.locator(".d-sents")).to_contain_text("A dog sits on the sofa.")
    expect(page).to_have_url(re.compile("text=sofa"))
    expect(page.locator(".d-row:focus")).to_be_visible()


@pytest.mark.slow
def test_a_record_that_comes_late_takes_the_focus_from_nobody_who_writes(page: Page, desk):
    intercepted(page).goto(f"/review?sort=sampled&finish=length&record={desk.records[15]}")
    row = page.locator(".d-row:focus")
    expect(row).to_be_visible()
    coming = Late(page, "**/api/review/next?**", method="POST")
    chip = page.get_by_role("button", name="Filter: Finish: Cut at limit. Remove")
    chip.click()
    coming.wait()
    page.keyboard.press("/")
    page.keyboard.type("so")
    coming.release()
    expect(page.locator(".d-facts")).not_to_contain_text("cut at the limit")
    page.keyboard.type("fa")
    search = page.get_by_role("searchbox", name="Search text")
    expect(search).to_have_value("sofa")
    coming = Late(page, "**/api/review/next?**", method="POST")
    page.keyboard.press("Enter")
    coming.wait()
    page.keyboard.press(";")
    panel = page.get_by_role("dialog", name="Filters")
    tokens = panel.get_by_label("At least this many tokens")
    tokens.fill("1")
    coming.release()
    expect(page.locator(".d-sents")).to_contain_text("A dog sits on the sofa.")
    expect(page).to_have_url(re.compile("text=sofa"))
    expect(tokens).to_have_value("1")
    expect(tokens).to_be_focused()
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)


def test_the_desks_files_are_kept_by_the_browser_until_they_change(page: Page):
    answer = page.request.get(files.address("main.js"))
    assert answer.status == 200
    assert "immutable" in answer.headers["cache-control"]
    assert "javascript" in answer.headers["content-type"]
    assert page.request.get("/assets/000000000000/main.js").status == 404


def test_people_who_decided_differently_are_a_queue_of_their_own(page: Page, desk):
    name = desk.records[33]
    with ReviewStore.of(desk.workspace) as store:
        expert = store.history(name)[0]
        said = {**expert.model_dump(exclude={"revision_id", "created_at"}), "author_kind": "human"}
        said["parent_revision_id"] = expert.revision_id
        store.append([Revision.create(**{**said, "author": "Ana", "status": "rejected", "note": "blurred"})])
        store.append([Revision.create(**{**said, "author": "Jonas"})])
    visit(page, desk.records[12])
    page.get_by_label("Queue", exact=True).select_option(label="Reviewers disagree")
    expect(page.locator(".d-standing")).to_have_text("Ana and Jonas disagree: what you decide counts")
    assert page.request.get(f"/api/review/records/{name}").json()["state"] == "disagreed"
    page.keyboard.press("Control+Enter")
    expect(page.locator(".d-blank")).to_contain_text("last record of the list")
    assert page.request.get(f"/api/review/records/{name}").json()["state"] == "accepted"
    assert page.request.post("/api/review/undo", data={}).status == 200


def test_a_word_on_what_happened_does_not_lie_over_what_is_opened_next(page: Page, desk):
    visit(page, desk.records[14])
    page.keyboard.press("l")
    expect(page.locator(".d-toast")).to_be_visible()
    page.keyboard.press("f")
    expect(page.get_by_role("dialog", name="Flag with a note")).to_be_visible()
    expect(page.locator(".d-toast")).to_have_count(0)


def test_nothing_of_the_image_is_behind_its_controls(page: Page, desk):
    visit(page, desk.records[14])
    page.keyboard.press("+")
    stage, controls, size = (page.locator(name).bounding_box() for name in (".d-stage", ".d-zoom", ".d-size"))
    assert stage
    assert controls
    assert size
    assert stage["y"] + stage["height"] <= min(controls["y"], size["y"])
