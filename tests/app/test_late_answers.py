"""Answers that come when the reader is elsewhere: nothing typed is lost, nothing is sent twice, nobody is led away."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from late_answers import Late, eventually, intercepted
from playwright.sync_api import Browser, Page, Route, expect
from watched_page import watched

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def page(browser: Browser, desk) -> Iterator[Page]:
    with watched(browser, desk.app) as page:
        yield intercepted(page)


@pytest.fixture
def comparing(browser: Browser, compared) -> Iterator[Page]:
    with watched(browser, compared.app) as page:
        yield intercepted(page)


def visit(page: Page, record: str) -> None:
    page.goto(f"/review?record={record}&sort=sampled")
    shown(page, record)


def shown(page: Page, record: str) -> None:
    expect(page.locator(".d-facts .d-mono")).to_have_text(record)


def stored(page: Page, record: str) -> Any:
    """The record as the server has it."""
    return page.request.get(f"/api/review/records/{record}").json()


def draft(page: Page, record: str) -> str:
    """The first sentence of the server's draft; empty if there is none."""
    found = stored(page, record)["draft"]
    return found["sentences"][0]["revised"] if found else ""


def forget(page: Page, record: str) -> None:
    """Throw the draft away, for the tests to come."""
    page.goto("about:blank")
    page.request.delete(f"/api/review/records/{record}/draft")


def written(page: Page, record: str, text: str) -> Late:
    """Open a record and write in its first sentence; the call that saves the draft is held back."""
    visit(page, record)
    saving = Late(page, f"**/records/{record}/draft", method="PUT")
    page.keyboard.press("e")
    page.keyboard.type(text)
    saving.wait()
    return saving


# -- the review desk ----------------------------------------------------------------------------------------------


def test_what_was_typed_while_a_draft_was_on_its_way_is_saved_after_the_record_is_left(page: Page, desk):
    record, second = desk.records[22:24]
    saving = written(page, record, " one")
    page.keyboard.type(" two")
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    shown(page, second)
    saving.release()
    eventually(page, lambda: draft(page, record).endswith(" one two"))
    forget(page, record)


def test_a_record_that_was_asked_for_before_its_draft_was_saved_shows_the_draft(page: Page, desk):
    record, second = desk.records[22:24]
    saving = written(page, record, " Mine.")
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    shown(page, second)
    coming = Late(page, f"**/records/{record}?*", answered=True)
    page.keyboard.press("[")
    coming.wait()
    saving.release()
    eventually(page, lambda: draft(page, record).endswith(" Mine."))
    coming.release()
    shown(page, record)
    expect(page.locator(".d-sent").first).to_contain_text("Mine.")
    forget(page, record)


def test_whoever_asks_for_another_record_while_a_decision_is_on_its_way_stays_there(page: Page, desk):
    second, record = desk.records[22:24]
    visit(page, record)
    deciding = Late(page, f"**/records/{record}/commit*", method="POST")
    page.keyboard.press("Control+Enter")
    deciding.wait()
    page.get_by_role("button", name="Previous record").click()
    shown(page, second)
    deciding.release()
    expect(page.locator(".d-toast")).to_have_text("Accepted. U takes it back.")
    shown(page, second)
    page.keyboard.press("e")
    page.keyboard.type(" After it.")
    eventually(page, lambda: draft(page, second).endswith(" After it."))
    assert stored(page, record)["state"] == "accepted"
    forget(page, second)
    assert page.request.post("/api/review/undo", data={}).status == 200
    forget(page, record)


@pytest.mark.parametrize(("key", "box"), [("e", "Text of sentence 1"), ("f", "What should they look at?")])
def test_whoever_begins_to_write_keeps_the_record(page: Page, desk, key: str, box: str):
    record, second = desk.records[24:26]
    visit(page, record)
    coming = Late(page, f"**/records/{second}?*")
    page.keyboard.press("]")
    coming.wait()
    page.keyboard.press(key)
    page.keyboard.type(" Indeed.")
    coming.release()
    page.keyboard.type(" So.")
    expect(page.get_by_role("textbox", name=box)).to_have_value(re.compile(r" Indeed\. So\.$"))
    expect(page.get_by_role("textbox", name=box)).to_be_focused()
    shown(page, record)
    forget(page, record)


def test_a_record_to_skip_to_does_not_come_when_another_was_asked_for(page: Page, desk):
    second, record = desk.records[24:26]
    visit(page, record)
    skipping = Late(page, "**/api/review/next?*", method="POST")
    page.keyboard.press("s")
    skipping.wait()
    page.keyboard.press("[")
    shown(page, second)
    skipping.release()
    page.keyboard.press("j")
    expect(page.locator(".d-sent").nth(1)).to_have_attribute("aria-current", "true")
    shown(page, second)


def test_a_decision_is_taken_back_once(page: Page, desk):
    records = desk.records[26:28]
    for record in records:
        body = {"base_revision_id": stored(page, record)["base_revision_id"], "action": "flag", "note": "blurred"}
        assert page.request.post(f"/api/review/records/{record}/commit", data={**body, "go_on": False}).status == 200
    visit(page, desk.records[25])
    undoing = Late(page, "**/api/review/undo*", method="POST")
    page.keyboard.press("u")
    undoing.wait()
    page.keyboard.press("u")
    page.get_by_role("button", name="Undo").click()
    undoing.release()
    shown(page, records[1])
    assert [stored(page, record)["state"] for record in records] == ["flagged", "draft"]
    assert undoing.seen == 1
    forget(page, records[1])
    assert page.request.post("/api/review/undo", data={}).status == 200
    forget(page, records[0])


@pytest.mark.parametrize(("key", "address"), [("h", "**/history/*"), (";", "**/api/review/records?*")])
def test_what_opens_late_does_not_take_the_focus(page: Page, desk, key: str, address: str):
    record = desk.records[25]
    visit(page, record)
    opening = Late(page, address)
    page.keyboard.press(key)
    opening.wait()
    page.keyboard.press("e")
    opening.release()
    page.keyboard.type(" Yes.")
    expect(page.get_by_role("textbox", name="Text of sentence 1")).to_have_value(re.compile(r" Yes\.$"))
    expect(page.get_by_role("dialog")).to_have_count(0)
    forget(page, record)


def test_a_panel_of_filters_stays_when_a_record_comes(page: Page, desk):
    second = desk.records[26]
    visit(page, desk.records[25])
    coming = Late(page, f"**/records/{second}?*")
    page.keyboard.press("]")
    coming.wait()
    page.keyboard.press(";")
    page.get_by_label("At least this many tokens").fill("12")
    coming.release()
    shown(page, second)
    page.keyboard.type("3")
    expect(page.get_by_label("At least this many tokens")).to_have_value("123")


# -- the rollouts page --------------------------------------------------------------------------------------------


def test_a_record_that_was_closed_before_it_came_stays_closed(page: Page, desk):
    page.goto("/rollouts?sort=sampled")
    page.locator("[data-record]").first.focus()
    coming = Late(page, f"**/records/{desk.records[0]}?*")
    page.keyboard.press("Enter")
    coming.wait()
    page.keyboard.press("Escape")
    coming.release()
    page.keyboard.press("j")
    expect(page.locator("[data-record]").nth(1)).to_be_focused()
    expect(page.locator(".r-drawer")).to_be_hidden()
    assert "record=" not in page.url


def test_a_flag_is_for_the_record_that_is_marked(page: Page, desk):
    first, second = desk.records[27:29]
    page.goto(f"/rollouts?sort=sampled&record={first}")
    expect(page.locator(".r-foot")).to_be_visible()
    coming = Late(page, f"**/records/{second}?*")
    page.get_by_role("button", name="Next record").click()
    coming.wait()
    page.get_by_role("button", name="Flag").click()
    coming.release()
    expect(page.get_by_role("heading", name=second)).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_late_page_of_the_list_leaves_the_search_alone(page: Page, desk):
    def shorter(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("const PAGE = 48;", "const PAGE = 5;"))

    page.route("**/rollouts.js", shorter)
    page.goto("/rollouts?sort=sampled")
    page.locator("[data-record]").last.focus()
    turning = Late(page, "**/api/review/records?*offset=5*")
    page.keyboard.press("j")
    turning.wait()
    page.keyboard.press("/")
    turning.release()
    expect(page.locator("[data-record]").first).to_have_attribute("data-record", desk.records[5])
    page.keyboard.type("jkv")
    expect(page.get_by_label("Search text")).to_have_value("jkv")


# -- comparing and voting -----------------------------------------------------------------------------------------


def test_a_late_list_does_not_disturb_a_vote(comparing: Page):
    comparing.goto("/compare?model=base&model=opadpo")
    expect(comparing.locator(".c-columns article").first).to_be_visible()
    listing = Late(comparing, "**/api/compare/records?*")
    comparing.get_by_label("Order").select_option("changed")
    listing.wait()
    comparing.get_by_role("button", name="Blind A/B").click()
    booth = comparing.get_by_role("region", name="Vote", exact=True)
    expect(booth.get_by_role("heading", name="Which caption")).to_be_visible()
    expect(comparing).to_have_url(re.compile("record="))
    address = comparing.url
    listing.release()
    comparing.keyboard.press("1")
    expect(booth).to_contain_text("You preferred")
    expect(comparing).to_have_url(address)
    comparing.keyboard.press("u")
    expect(booth.locator(".c-pair h2")).to_have_text(["A", "B"])


def test_nothing_can_be_voted_before_the_ballot_is_there(comparing: Page):
    coming = Late(comparing, "**/api/compare/ballots?*")
    comparing.goto("/compare?mode=blind&model=base&model=opadpo")
    coming.wait()
    better = comparing.get_by_role("button", name="A is better")
    expect(better).to_be_disabled()
    coming.release()
    expect(better).to_be_enabled()
    expect(comparing.get_by_role("button", name="Next", exact=False).last).to_be_disabled()


def test_a_vote_is_sent_once_with_the_note_that_was_written_meanwhile(comparing: Page):
    comparing.goto("/compare?mode=blind&model=base&model=opa")
    booth = comparing.get_by_role("region", name="Vote", exact=True)
    expect(comparing).to_have_url(re.compile("record="))
    bodies: list[Any] = []
    comparing.on("request", lambda r: bodies.append(r.post_data_json) if r.url.endswith("/votes") else None)
    voting = Late(comparing, "**/api/compare/votes", method="POST")
    comparing.keyboard.press("1")
    comparing.keyboard.press("1")
    voting.wait()
    comparing.keyboard.press("n")
    comparing.keyboard.type("a better sofa")
    comparing.keyboard.press("Escape")
    comparing.keyboard.press("2")
    voting.release()
    expect(booth.get_by_role("button", name="B is better")).to_have_attribute("aria-pressed", "true")
    eventually(comparing, lambda: len(bodies) == 3)
    said = [(body["outcome"], body["note"]) for body in bodies]
    assert said == [("left", ""), ("left", "a better sofa"), ("right", "a better sofa")]


def test_a_vote_is_taken_back_once(comparing: Page, compared):
    # A pair that is named: whoever has voted before may have left none.
    comparing.goto(f"/compare?mode=blind&model=opa&model=opadpo&record={compared.prompts[0]}")
    booth = comparing.get_by_role("region", name="Vote", exact=True)
    expect(booth.get_by_role("button", name="Tie")).to_be_enabled()
    comparing.keyboard.press("t")
    expect(booth).to_contain_text("equally good")
    withdrawing = Late(comparing, "**/api/compare/votes/*", method="DELETE")
    comparing.get_by_role("button", name="Take back").click()
    withdrawing.wait()
    comparing.get_by_role("button", name="Take back").click()
    withdrawing.release()
    expect(comparing.locator(".d-toast")).to_have_text("The vote is taken back.")
    expect(booth.locator(".c-pair h2")).to_have_text(["A", "B"])
    assert withdrawing.seen == 1


def test_the_votes_of_a_pair_that_is_no_longer_chosen_are_not_shown(comparing: Page):
    results = Late(comparing, "**/api/compare/results?*first=opadpo*")
    comparing.goto("/compare?model=base&model=opa&model=opadpo")
    results.wait()
    comparing.get_by_role("group", name="Models").get_by_role("button", name="opadpo").click()
    card = comparing.get_by_role("region", name="Votes", exact=True)
    expect(card).to_contain_text(re.compile("opa (won|and base)"))
    results.release()
    expect(card).to_be_visible()
    expect(card).not_to_contain_text("opadpo")


# -- asking now ---------------------------------------------------------------------------------------------------


def test_a_question_is_asked_once_and_stays_taken_back(comparing: Page):
    question = {"id": "q", "asked_by": "me", "question": "What?", "models": ["base"], "state": "waiting"}
    question |= {"before": 0, "doing": "", "answers": [], "problems": []}
    comparing.route("**/api/asking/models", lambda route: route.fulfill(json=["base"]))
    comparing.route("**/api/asking/questions*", lambda route: route.fulfill(json=question))
    comparing.route("**/api/asking/questions/q", lambda route: route.fulfill(json={**question, "state": "answering"}))
    comparing.goto("/compare")
    opening = Late(comparing, "**/api/asking/models")
    comparing.get_by_role("button", name="Ask now").click()
    opening.wait()
    comparing.get_by_role("button", name="Ask now").click()
    opening.wait(2)
    opening.release()
    dialog = comparing.get_by_role("dialog", name="Ask now")
    expect(dialog).to_have_count(1)
    dialog.locator("input[type=file]").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"a"})
    asking = Late(comparing, "**/api/asking/questions?*", method="POST")
    looking = Late(comparing, "**/api/asking/questions/q")
    dialog.get_by_role("textbox", name="Question").focus()
    comparing.keyboard.press("Control+Enter")
    comparing.keyboard.press("Control+Enter")
    asking.wait()
    asking.release()
    expect(dialog.get_by_role("button", name="Take back")).to_be_visible()
    assert asking.seen == 1
    looking.wait()
    dialog.get_by_role("button", name="Take back").click()
    looking.release()
    comparing.keyboard.type(" ")
    expect(dialog.locator(".c-answers")).to_be_hidden()
