"""The comparing page in a real browser: captions, marks, order, links, blind votes, accessibility, layout."""

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlencode, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from filled_workspace import HOSTILE
from late_answers import eventually
from playwright.sync_api import Browser, Page, expect
from watched_page import watched

pytestmark = pytest.mark.browser

SIZES = {"wide": (1440, 900), "narrow": (1024, 768)}
SPARE = "all => all.map(one => one.scrollWidth - one.clientWidth)"
ALL = {"set": "heldout", "model": ["base", "opa", "opadpo"]}
PAIR = {"set": "heldout", "first": "opadpo", "second": "base"}


@pytest.fixture
def page(browser: Browser, compared) -> Iterator[Page]:
    with watched(browser, compared.app, usual="status of 404") as page:
        yield page


def known(page: Page, path: str, **asked: object) -> dict:
    return page.request.get(f"/api/compare/{path}?{urlencode(asked, doseq=True)}").json()


def visit(page: Page, query: str = "") -> None:
    page.goto(f"/compare{query}")
    expect(page.locator(".c-columns article").first).to_be_visible()


def listed(page: Page) -> list[str]:
    return page.locator("[data-record]").evaluate_all("all => all.map(one => one.dataset.record)")


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.evaluate("location.href")).query)


def shown(page: Page, prompt: str) -> None:
    expect(page.locator(f'[data-record="{prompt}"]')).to_have_attribute("aria-current", "true")
    expect(page).to_have_url(re.compile(f"record={prompt}"))


def test_captions_stand_side_by_side_with_their_objects_marked(page: Page, compared):
    first = compared.prompts[6]
    visit(page, f"?record={first}")
    shown(page, first)
    record = known(page, f"records/{first}", **ALL)
    articles = page.locator(".c-columns article")
    expect(articles).to_have_count(3)
    for at, column in enumerate(record["columns"]):
        text = "".join(piece["text"] for piece in column["pieces"])
        assert articles.nth(at).locator(".c-text").inner_text().strip() == text.strip()
        wrong = articles.nth(at).locator("mark.bad")
        expect(wrong).to_have_count(sum(piece["mark"] == "hallucinated" for piece in column["pieces"]))
        expect(articles.nth(at)).to_contain_text(f"{len(column['hallucinated'])} hallucinated")
    bad = articles.first.locator("mark.bad").first
    expect(bad.get_by_role("img", name="not in the image")).to_be_attached()
    assert "underline" in bad.evaluate("node => getComputedStyle(node).textDecorationLine")
    expect(
        page.get_by_role("region", name="Objects").get_by_role("img", name="named, not in the image").first
    ).to_be_visible()
    page.get_by_role("switch", name="Differences").click()
    expect(articles.nth(2).locator("ins").first).to_be_visible()
    assert articles.first.locator("ins").count() == 0
    text = "".join(piece["text"] for piece in record["columns"][2]["pieces"])
    assert articles.nth(2).locator(".c-text").inner_text() == text
    assert query(page)["diff"] == ["on"]


def test_figures_with_intervals_and_differences(page: Page):
    visit(page)
    metrics = known(page, "metrics", **ALL)
    table = page.get_by_role("table", name=re.compile("CHAIR, captions"))
    for model, value in metrics["metrics"][0]["values"].items():
        row = table.get_by_role("row", name=re.compile(rf"^{model}\b"))
        expect(row).to_contain_text(f"{value['value']:.1f}")
        expect(row).to_contain_text(f"{value['low']:.1f} – {value['high']:.1f}")
    difference = known(page, "differences", **ALL)["differences"]["opadpo"]["chair_s"]["value"]
    expect(table).to_contain_text(f"−{abs(difference):.1f}")
    expect(
        page.get_by_role("img", name=re.compile("Coverage and CHAIR, captions: base .*, opa .*, opadpo"))
    ).to_be_visible()
    page.get_by_role("group", name="Models").get_by_role("button", name="opa", exact=True).click()
    expect(table.get_by_role("row", name=re.compile("^opa "))).to_have_count(0)
    expect(page.locator(".c-columns article")).to_have_count(2)
    assert query(page)["model"] == ["base", "opadpo"]


def test_order_filter_and_search_are_in_the_address_and_a_link_works(page: Page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page)
    for sort in ("worse", "changed", "prompted"):
        page.get_by_label("Order").select_option(sort)
        wanted = [item["prompt_id"] for item in known(page, "records", sort=sort, **ALL)["items"]]
        eventually(page, lambda wanted=wanted: listed(page) == wanted)
    page.get_by_label("Which").select_option("worse")
    wanted = [item["prompt_id"] for item in known(page, "records", sort="prompted", only="worse", **ALL)["items"]]
    eventually(page, lambda: listed(page) == wanted)
    page.get_by_label("Which").select_option("")
    page.keyboard.press("Escape")
    page.locator("[data-record]").first.focus()
    page.keyboard.press("/")
    page.keyboard.type("i see a")
    wanted = [item["prompt_id"] for item in known(page, "records", sort="prompted", text="i see a", **ALL)["items"]]
    eventually(page, lambda: listed(page) == wanted)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    shown(page, wanted[1])
    page.keyboard.press("k")
    shown(page, wanted[0])
    page.keyboard.press("j")
    shown(page, wanted[1])
    page.keyboard.press("d")
    page.keyboard.press("l")
    expect(page.locator(".d-toast")).to_be_visible()
    colleague = page.context.new_page()
    colleague.goto(page.evaluate("navigator.clipboard.readText()"))
    shown(colleague, wanted[1])
    eventually(colleague, lambda: listed(colleague) == wanted)
    expect(colleague.get_by_role("switch", name="Differences")).to_be_checked()
    expect(colleague.get_by_label("Search text")).to_have_value("i see a")
    colleague.close()
    page.keyboard.press("/")
    page.get_by_label("Search text").fill("no such words")
    expect(page.locator("[data-record]")).to_have_count(0)
    expect(page.locator(".c-nothing")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Both bad")


def test_a_link_to_a_record_that_has_gone_leads_on(page: Page):
    for mode in ("", "&mode=blind"):
        page.goto(f"/compare?model=base&model=opadpo&record=p-gone{mode}")
        expect(page.locator(".d-blank h2")).to_be_visible()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".c-text").locator("visible=true").first).not_to_be_empty()
        expect(page.locator(".d-blank")).to_be_hidden()


def test_blind_votes(page: Page):
    page.goto("/compare?mode=blind&model=base&model=opadpo")
    booth = page.get_by_role("region", name="Vote", exact=True)
    expect(booth.get_by_role("heading", name="Which caption")).to_be_visible()
    expect(page).to_have_url(re.compile("record="))
    first = query(page)["record"][0]
    ballot = known(page, "ballots", prompt=first, **PAIR)
    captions = booth.locator(".c-pair .c-text")
    assert [text.strip() for text in captions.all_inner_texts()] == [ballot["left"].strip(), ballot["right"].strip()]
    names = booth.locator(".c-pair h2")
    expect(names).to_have_text(["A", "B"])
    for hidden in (".c-figures", ".c-ranking", ".c-plot", ".c-results"):
        assert not any(one.is_visible() for one in page.locator(hidden).all())
    page.keyboard.press("n")
    page.keyboard.type("1 better, b")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    expect(booth).to_contain_text("You preferred")
    vote = known(page, "ballots", prompt=first, **PAIR)["vote"]
    expect(names).to_have_text([f"A{vote['left']}", f"B{vote['right']}"])
    expect(booth).to_contain_text(f"You preferred {vote['left']}.")
    assert (vote["outcome"], vote["note"]) == ("left", "1 better, b")
    page.keyboard.press("t")
    expect(booth).to_contain_text("equally good")
    page.reload()
    expect(booth).to_contain_text("equally good")
    assert query(page)["record"] == [first]
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(re.compile(first))
    expect(names).to_have_text(["A", "B"])
    second = query(page)["record"][0]
    assert second != first
    page.keyboard.press("b")
    expect(booth).to_contain_text("You found both bad.")
    page.keyboard.press("u")
    expect(names).to_have_text(["A", "B"])
    page.keyboard.press("2")
    expect(booth).to_contain_text("You preferred")
    page.keyboard.press("v")
    card = page.get_by_role("region", name="Votes", exact=True)
    rate = known(page, "results", **PAIR)["rate"]
    expect(card).to_contain_text(f"won {rate['value']:.1f} % of 2 votes, {rate['low']:.1f} to {rate['high']:.1f}")


def test_after_the_last_vote_the_results_are_told(page: Page, compared):
    pair = {"set": "heldout", "first": "opa", "second": "opadpo"}
    ballot = known(page, "ballots", **pair)
    while ballot["upcoming"]:
        body = {**pair, "prompt_id": ballot["prompt_id"], "outcome": "tie"}
        page.request.post("/api/compare/votes", data=body)
        ballot = known(page, "ballots", **pair)
    page.goto("/compare?mode=blind&model=opa&model=opadpo")
    expect(page.get_by_role("heading", name="Which caption")).to_be_visible()
    page.get_by_role("button", name="A is better").click()
    expect(page.get_by_role("region", name="Vote", exact=True)).to_contain_text("You preferred")
    expect(page.get_by_role("button", name="Next", exact=False).last).to_be_disabled()
    page.goto("/compare?mode=blind&model=opa&model=opadpo")
    expect(page.get_by_role("heading", name="Nothing is left to vote on")).to_be_visible()
    expect(page.locator(".d-blank")).to_contain_text(f"of {ballot['total']} votes")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_strange_captions_are_shown_as_they_are_and_nothing_sticks_out(page: Page, compared, size: tuple[int, int]):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for number, prompt in enumerate(compared.prompts[:5]):
        for mode in ("&diff=on", "&mode=blind"):
            page.goto(f"/compare?model=base&model=opadpo&sort=prompted&record={prompt}{mode}")
            expect(page.locator(".c-text").locator("visible=true").first).to_be_visible()
            assert page.locator("html, .c-body, .c-pair").evaluate_all(SPARE) == [0, 0, 0]
        if number == 0:
            expect(page.locator(".c-pair")).to_contain_text(HOSTILE)
    page.goto(f"/compare?record={compared.prompts[0]}&text={'%3Cscript%3E'}")
    expect(page.locator(".c-columns")).to_contain_text("<script>window.hacked=1</script>")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessible(page: Page, compared, scheme):
    page.emulate_media(color_scheme=scheme)
    for path in ("?diff=on", "?mode=blind&model=base&model=opadpo", f"?model=opa&record={compared.prompts[3]}"):
        page.goto(f"/compare{path}")
        expect(page.locator(".c-columns article, .c-pair article").locator("visible=true").first).to_be_visible()
        if "mode" not in path:
            expect(page.locator(".c-metric").first).to_be_visible()
        found = Axe().run(page, context="#desk").response["violations"]
        assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found if v["impact"] != "minor"] == []


def test_captions_that_were_not_scored_say_what_to_run(page: Page, compared):
    path = compared.workspace.evaluation("opa", "toy")
    aside = path.with_suffix(".aside")
    path.rename(aside)
    try:
        visit(page, "?model=base&model=opa")
        expect(page.locator(".c-alert")).to_contain_text("opadpo evaluate")
        expect(page.locator(".c-alert")).to_contain_text("--benchmark toy --model opa")
        expect(page.locator(".c-columns article").nth(1)).to_contain_text("Not scored")
    finally:
        aside.rename(path)


def test_an_empty_workspace_says_what_to_run(browser: Browser, app):
    context = browser.new_context(base_url=app.url, storage_state=app.state())
    page = context.new_page()
    page.goto("/compare")
    expect(page.get_by_role("heading", name="No captions yet")).to_be_visible()
    expect(page.locator(".d-blank")).to_contain_text("opadpo caption")
    context.close()
