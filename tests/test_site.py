"""The documents' links lead somewhere, on a code host and in the site, and the site needs nothing from elsewhere."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

SMALL_NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {},
    "cells": [
        {
            "cell_type": "markdown",
            "id": "a",
            "metadata": {},
            "source": "# A small notebook\n\nSee $x^2$ and [the loss](../opadpo/training/loss.py).",
        },
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "execution_count": 1,
            "source": "print('```')",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": "\x1b[31mred\x1b[0m <b>not bold</b>\n"},
                {
                    "output_type": "execute_result",
                    "execution_count": 1,
                    "metadata": {},
                    "data": {"text/html": "<table><tr><td>a  cell</td></tr></table>", "text/plain": "no"},
                },
                {
                    "output_type": "display_data",
                    "metadata": {},
                    "data": {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "a bar"},
                },
            ],
        },
        {
            "cell_type": "code",
            "id": "c",
            "metadata": {"tags": ["hide-input"]},
            "execution_count": 2,
            "source": "secret = 1",
            "outputs": [],
        },
    ],
}


def prose(path: Path) -> str:
    """The Markdown of a document or of a notebook's cells, without fenced blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^( *)(```+).*?^\1\2`*$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What a code host calls the headings: lower case, no punctuation, hyphens for spaces, numbers for repetitions."""
    seen: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose(path), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()).replace(" ", "-")
        count = seen.get(name, 0)
        seen[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def dead_links(path: Path) -> list[str]:
    """Relative links of a document to files and headings that are not there."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        target, _, anchor = link.partition("#")
        if urlsplit(link).scheme:
            continue
        file = path.parent / target if target else path
        if not file.exists() or (anchor and file.suffix in (".md", ".ipynb") and anchor not in anchors(file)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `page`, of two\n## Twice\n## Twice\n"
        "[a](#a-page-of-two) [b](#twice-1) [c](page.md#twice) [d](https://example.org/#x)\n"
        "[e](#twice-2) [f](gone.md) [g](page.md#gone)\n```\n[h](in-code.md)\n```\n",
        encoding="utf-8",
    )
    assert dead_links(page) == ["#twice-2", "gone.md", "page.md#gone"]


# -- the built site -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page of the site loads, where it leads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.leads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.leads.add(values["href"])
        else:
            self.loads |= {values[name] for name in ("src", "href", "srcset", "data", "poster") if name in values}

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from a copy of what it is made from, one notebook added, with every warning an error."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("docs", "opadpo", "app", "notebooks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, source)
    (source / "notebooks").mkdir(exist_ok=True)
    (source / "notebooks" / "99_small.ipynb").write_text(json.dumps(SMALL_NOTEBOOK), encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def pages(site: Path) -> Iterator[tuple[Path, Page]]:
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":
            yield path, Page(path)


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = {f"{path.relative_to(site)}: {url}" for path, page in pages(site) for url in page.loads
             if urlsplit(url).netloc or urlsplit(url).scheme not in ("", "data")}  # fmt: skip
    assert loads == set()
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]+", sheet.read_text("utf-8")) == [], sheet


@pytest.mark.slow
def test_every_link_in_the_site_leads_somewhere(site: Path) -> None:
    known = dict(pages(site))
    assert {"index.html", "method.html", "contributing.html"} <= {path.name for path in known}
    dead = []
    for path, page in known.items():
        for link in page.leads | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            # A picture has no anchors; these two say on which page it is to be seen.
            there = known[target].anchors | {"__skip", ""} if target in known else {"", "only-light", "only-dark"}
            if not target.is_file() or unquote(parts.fragment) not in there:
                dead.append(f"{path.relative_to(site)}: {link}")
    assert dead == []


@pytest.mark.slow
@pytest.mark.browser
def test_opened_from_a_folder_the_search_finds_and_pictures_are_light_or_dark(site: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(color_scheme="dark")
        page.goto((site / "index.html").as_uri())
        assert page.locator("article img:visible").get_attribute("src") == "images/review-1440x900-dark.png#only-dark"
        page.get_by_placeholder("Search").click()
        expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching", timeout=60_000)
        page.get_by_placeholder("Search").press_sequentially("chosen_up")
        found = page.locator(".md-search-result__item a").first
        expect(found).to_have_attribute("href", re.compile(r"/(method|recipes)\.html"), timeout=60_000)
        browser.close()


@pytest.mark.slow
def test_formulas_are_drawn_and_not_spelled(site: Path) -> None:
    text = (site / "method.html").read_text("utf-8")
    assert text.count("<math ") > 20
    assert "arithmatex" not in text
    assert "\\log" not in re.sub(r"<(code|script)\b.*?</\1>", "", text, flags=re.DOTALL)


@pytest.mark.slow
def test_the_reference_shows_public_names_with_their_docstrings(site: Path) -> None:
    text = (site / "reference" / "steps.html").read_text("utf-8")
    assert 'id="opadpo.steps.rollout.rollout"' in text
    assert not re.search(r'id="opadpo\.[\w.]*\._[a-z]', text)


@pytest.mark.slow
def test_a_notebook_is_a_page_with_its_outputs_as_stored(site: Path) -> None:
    page = (site / "notebooks" / "99_small.html").read_text("utf-8")
    assert "<table><tr><td>a  cell</td></tr></table>" in page
    assert "&lt;b&gt;not bold&lt;/b&gt;" in page
    assert "a bar" not in page
    assert "secret" not in page
    assert 'href="../reference/training.html#opadpo.training.loss"' in page
    assert "<math " in page
    assert ">A small notebook<" in (site / "index.html").read_text("utf-8").replace("\n", "").replace("  ", "")
