"""The report: one file that needs nothing beside it, and a model card that the hub can read."""

import json
import re
from html.parser import HTMLParser

import made_workspace
import pytest
import tiny_workspace
from filled_workspace import HOSTILE
from given_captions import give_captions
from huggingface_hub import ModelCard
from playwright.sync_api import sync_playwright

from opadpo.errors import MissingArtefact, UserError
from opadpo.llm.requests import Answer
from opadpo.llm.store import RequestStore
from opadpo.progress import SilentProgress
from opadpo.records import Usage
from opadpo.steps import plans
from opadpo.steps.evaluate import evaluate
from opadpo.steps.report import report


def run(workspace, model=None, output=None):
    return report(workspace, model, output=output, progress=SilentProgress())


def truthful(prompt):
    return " ".join(f"There is a {thing['noun']} at the top left." for thing in prompt.extra["truth"]["objects"])


def absent(prompt):
    there = {thing["noun"] for thing in prompt.extra["truth"]["objects"]}
    return next(noun for noun in ("table", "tree", "house", "boat", "lamp") if noun not in there)


class Elements(HTMLParser):
    """Names of a page's elements, and what they fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


@pytest.fixture
def prepared(tiny_llava_folder, tmp_path):
    return tiny_workspace.make(tmp_path / "My <b>project</b>", tiny_llava_folder, train=2, heldout=8)


@pytest.fixture
def workspace(prepared):
    give_captions(prepared, "base", lambda prompt: f"{truthful(prompt)} There is a {absent(prompt)} there. {HOSTILE}")
    give_captions(prepared, "opa", lambda prompt: f"There is a {absent(prompt)} there.")
    give_captions(prepared, "opadpo", truthful)
    for name in ("opa", "opadpo"):
        made_workspace.fill(
            prepared,
            plans.adapter(prepared, name, plans.VARIANTS[name]),
            {"examples": 7, "updates": 3, "dropped": 2, "dropped/empty_revision": 2},
        )
        run_folder = prepared.run(name)
        run_folder.mkdir(parents=True)
        lines = [{"step": step, "loss": 1 / step, "rewards/margins": step / 10} for step in (1, 2, 3)]
        (run_folder / "metrics.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "lo'
        )
    responses = {name: {"mean": -0.5, "n": 9} for name in ("generated", "standard", "revised")}
    (prepared.run("opadpo") / "onpolicy.json").write_text(json.dumps({"under": {"base": responses, "opa": responses}}))
    with RequestStore.open(prepared.requests_db) as store:
        usage = Usage(prompt_tokens=1000, completion_tokens=50, requests=3, cost_usd=1.25)
        store.put([("key", Answer(text="{}", model="expert", finish_reason="stop", usage=usage))])
    evaluate(prepared, progress=SilentProgress())
    return prepared


@pytest.mark.slow
def test_one_file_that_says_it_all(workspace):
    result = run(workspace)
    page = (workspace.root / "report" / "report.html").read_text()
    assert result.outputs == [str(workspace.root / "report" / name) for name in ("report.html", "model_card.md")]
    assert result.warnings == []
    elements = Elements(page)
    assert {"img", "table", "figure"} <= elements.names
    assert not elements.names & {"script", "link", "iframe"}
    assert all(address.startswith("data:image/") for address in elements.addresses)
    assert HOSTILE not in page
    assert "<b>project</b>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/svg+xml") == 4, "two curves, the on-policy plot, the trade-off"
    text = re.sub(r"<[^>]+>", "", page)
    assert "of 8 captions, 8 of OPA-DPO name fewer objects that are not there than the base's, and 0 name more" in text
    assert "-100.0 (-100.0 to -100.0), p = 0.0" in text.replace("p < 0.0001", "p = 0.0")
    assert "3 requests, 1,000 prompt tokens and 50 tokens of answers; 1.25 US dollars" in text
    assert "empty revision" in text
    for path in ("adapters/opadpo", "evaluations/base/toy.json", "prompts"):
        manifest = workspace.manifest(path)
        assert manifest is not None
        assert manifest.fingerprint in text
    assert "max_new_tokens" in text


@pytest.mark.slow
def test_another_model_is_told_worse_where_it_is(workspace):
    run(workspace, "opa", workspace.root / "elsewhere")
    text = re.sub(r"<[^>]+>", " ", (workspace.root / "elsewhere" / "report.html").read_text())
    assert "0 of OPA name fewer" in text
    assert "8 name fewer of those that are there" in text
    assert not (workspace.root / "report").exists()


@pytest.mark.slow
def test_a_card_that_the_hub_reads(workspace):
    run(workspace)
    card = ModelCard((workspace.root / "report" / "model_card.md").read_text())
    data = card.data.to_dict()
    assert data["library_name"] == "peft"
    (entry,) = data["model-index"]
    metrics = [metric for result in entry["results"] for metric in result["metrics"]]
    results = {metric["type"]: metric["value"] for metric in metrics}
    assert results == {"chair_s": 0.0, "coverage": 100.0}
    tables = [block for block in card.text.split("\n\n") if block.lstrip().startswith("|")]
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}
        assert len(columns) == 1, table


def test_what_is_lacking_is_named(prepared):
    assert run(prepared).warnings == []
    page = (prepared.root / "report" / "report.html").read_text()
    assert "rollouts is not there yet" in page
    assert "opadpo rollout" in page
    assert "Nothing has been scored yet" in page


@pytest.mark.slow
def test_what_is_damaged_is_named_and_stops_nothing(workspace):
    workspace.evaluation("opa", "toy").write_text("{")
    result = run(workspace)
    assert any("evaluations/opa/toy.json" in text for text in result.warnings)
    assert "evaluations/opa/toy.json" in (workspace.root / "report" / "report.html").read_text()


def test_whom_it_is_about(workspace, tmp_path):
    with pytest.raises(UserError, match="aligned model"):
        run(workspace, "base")
    with pytest.raises(MissingArtefact, match="adapters/nobody"):
        run(workspace, "nobody")
    made = made_workspace.make(tmp_path / "w" / "ws")
    with pytest.raises(MissingArtefact, match="prepare"):
        run(type(made).create(tmp_path / "new", "name: new\nprepare: {source: {kind: toy}}"))
    assert not (tmp_path / "new" / "report").exists()


@pytest.mark.browser
def test_it_opens_from_the_disk_and_prints(workspace):
    run(workspace)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1024, "height": 768})
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
        page.goto((workspace.root / "report" / "report.html").as_uri())
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.pdf(format="A4").startswith(b"%PDF")
        assert told == []
        browser.close()
