"""What notebooks show: the right marks, nothing that runs, colours of the app, one output that is updated in place."""

import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor
from playwright.sync_api import sync_playwright

from opadpo import display, plots
from opadpo.display.enabling import error_told
from opadpo.display.progressing import Line, NotebookProgress
from opadpo.errors import DataError, OpadpoError
from opadpo.plots.style import DARK, SCORES, SERIES
from opadpo.records import PreferenceExample, Revision, Rollout, Sampling, SentenceReview, WeightSpan
from opadpo.steps.result import StepResult

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(1)"> \'" </style> {{ 7 * 7 }} &amp;'
ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """Tags and text of a piece of HTML."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self._open, "all"}:
            if tag != "style" and "style" not in self._open:
                self.texts[tag] = self.texts.get(tag, "") + data


def rollout(text: str = "A cat. A dog.") -> Rollout:
    return Rollout.create(
        prompt_id="p-1", response=text, response_token_ids=[1, 2], model="m", adapter="base", adapter_hash="",
        template="toy", image_aspect="pad", finish_reason="length", sample_index=0, seed=1,
        sampling=Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=2),
    )  # fmt: skip


def revision(old: str = "A red dog sits.", new: str = "A red cat sits.", **texts: str) -> Revision:
    sentences = [
        SentenceReview(index=0, kind="edited", start=0, end=len(old), original=old, revised=new, score=2,
                       error_type="image_recognition_error", objects=[texts.get("object", "dog -> cat")],
                       reason=texts.get("reason", "It is a cat.")),
        SentenceReview(index=1, kind="deleted", start=len(old), end=len(old) + 7, original=" A bus.", revised="",
                       score=1, error_type="image_recognition_error"),
        SentenceReview(index=1, kind="added", start=len(old) + 7, end=len(old) + 7, original="", revised=" It rains."),
    ]  # fmt: skip
    return Revision.create(rollout_id="r-1", author_kind="expert", author=texts.get("author", "gpt"),
                           sentences=sentences, text=new + " It rains.", note=texts.get("note", ""))  # fmt: skip


def example(text: str = "A dog. A cat.") -> PreferenceExample:
    span = WeightSpan(start=0, end=min(6, len(text)), score_weight=2.5, image_weight=3.0)
    return PreferenceExample.create(
        prompt_id="p-1", rollout_id="r-1", revision_id="v-1", question=text, image="x.png", standard=text,
        revised=text, generated=text, generated_token_ids=[1], generated_finished=True, generated_spans=[span],
        revised_spans=[], human_verified=False,
    )  # fmt: skip


def everything(text: str) -> list[display.Html]:
    """Every piece there is, with this text wherever a text may come from data."""
    result = StepResult(step="x", status="done", outputs=[text], counts={text: 1}, dropped={text: 2}, warnings=[text])
    progress = NotebookProgress()
    progress.entries.append(Line(text, warning=True))
    return [
        display.show(rollout(text), question=text),
        display.show(revision(text, text + "!", object=text, reason=text, author=text, note=text), question=text),
        display.show(example(text), image=display.Picture("data:,", alt=text)),
        display.show(result),
        display.table([{text: text, "n": 1.5}]),
        display.error_box(text, seen=text, remedy=text),
        display.note(text),
        progress.html(),
    ]


@pytest.mark.slow
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(lambda text: HOSTILE + text))
def test_texts_of_models_and_users_are_never_markup(text: str) -> None:
    for html in everything(text):
        page = Page(html.markup)
        assert "script" not in {tag for tag, _ in page.tags}
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert "<script>alert(1)</script>" in page.texts["all"]
        assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] in ([], ["data:,"])


def test_a_revision_shows_word_differences_scores_and_kinds_of_error() -> None:
    page = Page(display.show(revision()).markup)
    assert page.texts["del"] == "dog A bus."
    assert page.texts["ins"] == "cat It rains."
    chips = [
        attrs["class"] for tag, attrs in page.tags if tag == "span" and (attrs.get("class") or "").startswith("s ")
    ]
    assert chips == ["s s2", "s s1", "s sa"]
    assert "image recognition" in page.texts["all"]
    assert "dog -> cat" in page.texts["all"]


def test_an_example_shades_what_weighs_more_than_one() -> None:
    page = Page(display.show(example()).markup)
    heavy = [attrs for tag, attrs in page.tags if tag == "span" and "weight" in (attrs.get("title") or "")]
    assert heavy == [{"class": "w w1", "title": "weight 2.5"}]
    assert "only in the standard pair" in page.texts["all"]


def test_a_response_that_was_cut_says_so() -> None:
    assert "cut at 2 tokens" in Page(display.show(rollout()).markup).texts["all"]


def test_colours_are_those_of_the_figures() -> None:
    pattern = re.compile(r"--([\w-]+): (light-dark\(#\w+, #\w+\));")
    ours = dict(pattern.findall((ROOT / "opadpo/display/tokens.css").read_text("utf-8")))
    assert len(ours) > 20
    for score, look in SCORES.items():
        assert f"light-dark({look.line}," in ours[f"s{score}-line"]
        assert score == 4 or f"light-dark({look.fill}," in ours[f"s{score}-bg"]
    twins: dict[str, set[str]] = {}
    for light, dark in re.findall(r"light-dark\((#\w+), (#\w+)\)", "".join(ours.values())):
        twins.setdefault(light, set()).add(dark)
    shared = DARK.keys() & twins.keys()
    assert len(shared) > 10
    assert all(DARK[light] in twins[light] for light in shared)
    assert {look.color for look in SERIES.values()} <= DARK.keys(), "legible on a dark page"


@pytest.mark.browser
def test_a_figure_takes_the_colours_of_the_page_that_shows_it() -> None:
    figure = plots.scores({1: 30, 2: 20, 3: 9, 4: 0})
    shown = display.show_figure(plots.svg_uri(figure), plots.described(figure)).markup
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for system, theme in (("light", "false"), ("dark", "true")):
            page = browser.new_page(color_scheme=system)  # pyright: ignore[reportArgumentType]
            page.set_content(f'<body data-jp-theme-light="{theme}">{shown}')
            image = page.get_by_alt_text("Figure: Scores of the sentences")
            found[theme] = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
        browser.close()
    for theme, ground, wrong in (("true", "#ffffff", "#a3240a"), ("false", "#15181d", "#ff9478")):
        colors = [color for _, color in sorted(found[theme].getcolors(1 << 24), reverse=True)]  # pyright: ignore
        assert colors[0] == ImageColor.getrgb(ground), "the page's own switch counts, not the system's"
        assert ImageColor.getrgb(wrong) in colors[:6]


def test_pictures_are_small_and_one_that_is_gone_is_told(tmp_path: Path) -> None:
    Image.effect_noise((2000, 1000), 90).save(tmp_path / "large.png")
    found = display.picture(tmp_path / "large.png")
    assert found is not None
    assert found.uri.startswith("data:image/jpeg;base64,")
    assert len(found.uri) < 30_000
    assert display.picture(tmp_path / "gone.png") is None
    assert "no image" in Page(display.table([{"image": "no image"}]).markup).texts["all"]


class Shown:
    """Stands for the page: what was displayed and how often it was updated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import IPython.display

        self.outputs: list[Any] = []
        self.updates = 0
        monkeypatch.setattr(IPython.display, "display", self.display)

    def display(self, html: Any, **_: Any) -> "Shown":
        self.outputs.append(html)
        return self

    def update(self, html: Any) -> None:
        self.outputs[-1] = html
        self.updates += 1


def test_progress_is_one_output_updated_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(monkeypatch)
    progress = display.notebook_progress()
    with progress.task("rollout", 1000, done=200) as task:
        progress.warn("look at this")
        for _ in range(800):
            task.advance()
    assert len(shown.outputs) == 1
    assert shown.updates < 20
    last = Page(shown.outputs[0].markup).texts["all"]
    assert "rollout 1,000" in last
    assert "look at this" in last
    assert "left" not in last


def test_a_bar_that_was_stopped_says_how_far_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(monkeypatch)
    with pytest.raises(KeyboardInterrupt), display.notebook_progress().task("train", 10) as task:
        task.advance(4)
        raise KeyboardInterrupt
    assert "4 of 10 · stopped" in Page(shown.outputs[0].markup).texts["all"]
    with display.notebook_progress().task("train", 10) as task:  # training ends so, with a checkpoint
        task.advance(4)
    assert "4 of 10 · stopped" in Page(shown.outputs[-1].markup).texts["all"]


def test_curves_are_drawn_under_the_bar_while_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown(monkeypatch)
    pictures = iter([None, "data:first", "data:last"])
    progress = NotebookProgress(lambda: next(pictures))
    with progress.task("train", 2) as task:
        assert "img" not in {tag for tag, _ in Page(shown.outputs[0].markup).tags}
        task.advance(2)
        progress.draw(force=True, figure=True)
        assert "data:first" in shown.outputs[0].markup
    assert "data:last" in shown.outputs[0].markup


@pytest.fixture(scope="module")
def shell(notebook_shell: Any) -> Iterator[Any]:
    display.enable()
    yield notebook_shell
    notebook_shell.set_custom_exc((), None)


def test_cells_show_records_figures_and_our_errors(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    formatted = shell.display_formatter.format(revision())[0]
    assert "<del>dog</del>" in formatted["text/html"]
    assert formatted["text/plain"] == "A red cat sits. It rains."
    formatted = shell.display_formatter.format(plots.scores({1: 2}))[0]
    assert formatted["image/png"], "for exports that know no HTML"
    assert 'alt="Figure: Scores of the sentences"' in formatted["text/html"]

    shell.push({"error": DataError("No images", seen="x.zip", remedy="unpack it")})
    result = shell.run_cell("raise error")
    assert isinstance(result.error_in_exec, OpadpoError)
    told = capsys.readouterr()
    assert "unpack it" in told.out
    assert "Traceback" not in told.out + told.err

    result = shell.run_cell("raise KeyboardInterrupt")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    told = capsys.readouterr()
    assert "goes on where it was" in told.out
    assert "Traceback" not in told.out + told.err

    shell.run_cell("1 / 0")
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_errors_say_what_was_seen_and_what_to_do() -> None:
    page = Page(error_told(DataError("No images", seen="x.zip", remedy="unpack it")).markup)
    assert all(text in page.texts["all"] for text in ("No images", "x.zip", "unpack it"))
