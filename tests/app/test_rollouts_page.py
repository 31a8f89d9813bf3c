"""The rollouts page in a real browser: filters, search, list, record, keys, addresses, accessibility, layout."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from late_answers import eventually
from playwright.sync_api import Browser, Page, expect
from watched_page import watched

pytestmark = pytest.mark.browser

SIZES = {"wide": (1440, 900), "narrow": (1024, 768)}
SPARE = "all => all.map(one => one.scrollWidth - one.clientWidth)"


@pytest.fixture
def page(browser: Browser, desk) -> Iterator[Page]:
    with watched(browser, desk.app, usual="status of (404|422)") as page:
        yield page


def visit(page: Page, query: str = "") -> None:
    page.goto(f"/rollouts{query}")
    expect(page.locator("[data-record]").first).to_be_visible()


def records(page: Page) -> list[str]:
    return page.locator("[data-record]").evaluate_all("all => all.map(one => one.dataset.record)")


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.evaluate("location.href")).query)


def total(page: Page, number: int) -> None:
    expect(page.locator("h1")).to_have_text(re.compile(rf"^Rollouts: {number} of \d+$"))


def known(page: Page, **asked: object) -> dict:
    return page.request.get("/api/review/records", params={"limit": 200, **asked}).json()  # pyright: ignore[reportArgumentType]


def test_filters_search_and_order_are_in_the_address_and_agree_with_the_server(page: Page, desk):
    visit(page)
    everything = known(page)
    total(page, len(desk.records))
    first = page.get_by_role("checkbox", name=re.compile(r"score 1\b"))
    count = everything["facets"]["score"]["1"]
    expect(first.locator("xpath=..")).to_contain_text(str(count))
    first.check()
    total(page, count)
    page.get_by_role("checkbox", name=re.compile(r"^Cut at limit")).check()
    total(page, known(page, score=1, finish="length")["total"])
    page.get_by_label("At least this many tokens").fill("31")
    page.keyboard.press("Tab")
    page.get_by_label("Sort").select_option("longest")
    wanted = known(page, score=1, finish="length", min_tokens=31, sort="longest")
    total(page, wanted["total"])
    eventually(page, lambda: records(page) == [item["rollout_id"] for item in wanted["items"]])
    assert query(page) == {"score": ["1"], "finish": ["length"], "min_tokens": ["31"], "sort": ["longest"]}
    page.reload()
    total(page, wanted["total"])
    expect(first).to_be_checked()
    page.get_by_role("button", name="Clear 3 filters").click()
    total(page, len(desk.records))
    assert query(page) == {"sort": ["longest"]}
    page.keyboard.press("/")
    page.keyboard.type("bOOk")
    total(page, known(page, text="bOOk")["total"])
    page.keyboard.insert_text(" no such words")
    expect(page.get_by_role("heading", name="No record matches this filter")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    total(page, len(desk.records))
    expect(page.get_by_label("Search text")).to_have_value("")


def test_a_record_opens_beside_the_list_and_its_link_works(page: Page, desk):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, "?sort=sampled&score=1")
    names = records(page)
    page.locator("[data-record]").nth(1).click()
    drawer = page.locator(".r-drawer")
    expect(drawer.get_by_role("heading", name=names[1])).to_be_visible()
    stored = page.request.get(f"/api/review/records/{names[1]}").json()
    expect(drawer.locator(".r-sentences li")).to_have_count(len(stored["current"]["sentences"]))
    expect(drawer.locator(":is(ins, del)").first).to_be_visible()
    expect(drawer).to_contain_text(stored["prompt"]["question"])
    assert query(page) == {"record": [names[1]], "score": ["1"], "sort": ["sampled"]}
    drawer.get_by_role("button", name="Next record").click()
    expect(drawer.get_by_role("heading", name=names[2])).to_be_visible()
    expect(page.locator("[aria-current=true]")).to_have_attribute("data-record", names[2])
    drawer.get_by_role("button", name="Copy a link").click()
    expect(page.locator(".d-toast")).to_be_visible()
    colleague = page.context.new_page()
    colleague.goto(page.evaluate("navigator.clipboard.readText()"))
    expect(colleague.locator(".r-drawer").get_by_role("heading", name=names[2])).to_be_visible()
    eventually(colleague, lambda: records(colleague) == names)
    colleague.close()
    drawer.get_by_role("link", name="Review this record").click()
    expect(page.locator(".d-facts .d-mono")).to_have_text(names[2])
    assert query(page) == {"record": [names[2]], "score": ["1"], "sort": ["sampled"]}
    page.goto("/rollouts?record=r-nothing")
    expect(drawer).to_contain_text("no")
    total(page, len(desk.records))


def test_keys(page: Page, desk):
    visit(page, "?sort=sampled")
    names, cards = records(page), page.locator("[data-record]")
    columns = page.evaluate(
        "() => { const tops = [...document.querySelectorAll('[data-record]')]"
        ".map(card => card.getBoundingClientRect().top); return tops.filter(top => top === tops[0]).length; }"
    )
    for key, at in (("j", 0), ("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowUp", 1), ("k", 0)):
        page.keyboard.press(key)
        expect(cards.nth(at)).to_be_focused()
    page.keyboard.press("Enter")
    drawer = page.locator(".r-drawer")
    expect(drawer.get_by_role("heading", name=names[0])).to_be_visible()
    page.keyboard.press("j")
    expect(drawer.get_by_role("heading", name=names[1])).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(cards.nth(1)).to_be_focused()
    assert "record" not in query(page)
    page.keyboard.press("l")
    expect(page.locator(".d-toast")).to_contain_text(re.compile("copied|/rollouts.sort=sampled"))
    page.keyboard.press("v")
    expect(page.get_by_role("row")).to_have_count(len(names) + 1)
    page.keyboard.press("/")
    page.keyboard.type("jkv?")
    expect(page.get_by_label("Search text")).to_have_value("jkv?")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Gallery or table")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_pages_of_the_list(page: Page, desk):
    """A list of five a page; arrows and records lead over the end of a page."""
    page.route("**/rollouts.js", lambda route: _shorter(route))
    visit(page, "?sort=sampled&page=2")
    expect(page.get_by_text(f"Page 2 of {-(-len(desk.records) // 5)}", exact=True)).to_be_visible()
    assert records(page) == desk.records[5:10]
    page.locator("[data-record]").last.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[data-record]").first).to_have_attribute("data-record", desk.records[10])
    expect(page.locator("[data-record]").first).to_be_focused()
    visit(page, f"?sort=sampled&record={desk.records[17]}")
    expect(page.locator("[aria-current=true]")).to_have_attribute("data-record", desk.records[17])
    assert records(page) == desk.records[15:20]
    visit(page, "?sort=sampled&page=999")
    assert records(page)[-1] == desk.records[-1]
    expect(page.get_by_role("button", name="Next page")).to_be_disabled()


def _shorter(route) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, body=answer.text().replace("const PAGE = 48;", "const PAGE = 5;"))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_strange_records_are_shown_as_they_are_and_nothing_sticks_out(page: Page, desk, size: tuple[int, int]):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for view in ("", "&view=table"):
        visit(page, f"?sort=sampled{view}")
        for record in desk.records[:6]:
            page.locator(f'[data-record="{record}"]').first.click()
            expect(page.locator(".r-drawer").get_by_role("heading", name=record)).to_be_visible()
            assert page.locator("html, .r-list, .r-body, .r-rail").evaluate_all(SPARE) == [0, 0, 0, 0]
            page.keyboard.press("Escape")
    page.locator(f'[data-record="{desk.records[0]}"]').first.click()
    expect(page.locator(".r-body")).to_contain_text("<script>window.hacked=1</script>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(page: Page, desk, scheme):
    page.emulate_media(color_scheme=scheme)
    for path in (f"?record={desk.records[12]}&score=1", "?view=table", "?text=nothing+at+all"):
        page.goto(f"/rollouts{path}")
        expect(page.locator(".r-sentences li, .r-table, .d-blank h2").locator("visible=true").first).to_be_visible()
        found = Axe().run(page, context="#desk").response["violations"]
        assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] != "minor"] == []


def test_a_record_is_flagged_where_it_is(page: Page, desk):
    before = {item["rollout_id"] for item in known(page, state="flagged")["items"]}
    drafts = known(page, state="draft")["total"]
    visit(page, f"?record={desk.records[30]}")
    page.locator(".r-foot").wait_for()
    page.keyboard.press("f")
    page.keyboard.type("whose hand is it?")
    page.keyboard.press("Enter")
    expect(page.locator(".r-foot .d-tag")).to_have_text("Flagged")
    expect(page.locator(".r-drawer")).to_contain_text("flagged")
    found = known(page, state="flagged")
    assert {item["rollout_id"] for item in found["items"]} - before == {desk.records[30]}
    assert known(page, state="draft")["total"] == drafts
    assert page.request.post("/api/review/undo", data={}).status == 200


def test_a_draft_is_not_thrown_away_for_a_flag(page: Page, desk):
    name = desk.records[31]
    draft = {"base_revision_id": None, "sentences": [], "note": "", "seq": 1}
    assert page.request.put(f"/api/review/records/{name}/draft", data=draft).status == 200
    visit(page, f"?record={name}")
    page.get_by_role("button", name="Flag").click()
    page.wait_for_url(re.compile(f"/review.record={name}"))
    assert page.request.delete(f"/api/review/records/{name}/draft").status == 200


def test_an_address_with_a_filter_that_there_is_not_leads_back(page: Page):
    page.goto("/rollouts?score=banana")
    expect(page.locator(".d-blank")).to_contain_text("The address asks for a score that there is not")
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("[data-record]").first).to_be_visible()
    assert "score" not in query(page)
