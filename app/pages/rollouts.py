"""The rollouts tab: a gallery with filters beside it, and the record that is open."""

from html import escape
from math import ceil
from typing import Any

import gradio as gr

from app.api.review import owner
from app.markup import body, empty, facts, header, image, mistake, score_chip, sentences
from opadpo.errors import NotFound, OpadpoError
from opadpo.review.desk import Desk
from opadpo.review.filters import MAX_SEARCH, Filters, Sort
from opadpo.review.messages import Card, DeskRecord

PAGE_SIZE = 24
FINISH = {"stop": "Finished", "length": "Cut at limit"}
SCORES = [("1", 1), ("2", 2), ("3", 3), ("4", 4), ("Not revised", 5)]
SORTS: list[tuple[str, Sort]] = [
    ("Lowest score first", "lowest_score"),
    ("Longest first", "longest"),
    ("As sampled", "sampled"),
]

OPEN_RECORD = """
element.addEventListener('click', event => {
  const card = event.target.closest('[data-record]');
  if (!card) return;
  element.querySelectorAll('[aria-current]').forEach(other => other.removeAttribute('aria-current'));
  card.setAttribute('aria-current', 'true');
  const url = new URL(window.location);
  url.searchParams.set('record', card.dataset.record);
  window.history.replaceState(null, '', url);
  trigger('click', { record: card.dataset.record });
});
"""


def build(desk: Desk, page: gr.Blocks) -> None:
    """Draw the tab inside an open page."""
    gr.HTML(header("Rollouts", desk.catalogue.workspace.root.name), apply_default_css=False)
    with gr.Row(elem_classes="o-page", equal_height=False):
        with gr.Column(elem_classes="o-rail", min_width=176):
            search = gr.Textbox(label="Search text", placeholder="cup", elem_id="search")
            sort = gr.Dropdown(SORTS, value=SORTS[0][1], label="Sort", elem_id="sort")
            scores = gr.CheckboxGroup(SCORES, label="Lowest score", elem_id="scores")
            finish = gr.CheckboxGroup([(v, k) for k, v in FINISH.items()], label="Finish", elem_id="finish")
        with gr.Column(elem_classes="o-center"):
            gallery = gr.HTML(apply_default_css=False, elem_id="gallery", js_on_load=OPEN_RECORD)
            with gr.Row():
                back = gr.Button("Previous page", size="sm", elem_id="previous")
                forward = gr.Button("Next page", size="sm", elem_id="next")
        with gr.Column(elem_classes="o-drawer"):
            drawer = gr.HTML(apply_default_css=False, elem_id="record")
    number = gr.State(0)
    filters = [search, scores, finish, sort]

    def show(page: int, text: str, wanted: list[int], ends: list[str], order: Sort) -> tuple[str, int]:
        try:
            filters = Filters.model_validate(
                {"text": (text or "")[:MAX_SEARCH], "score": wanted or [], "finish": ends or [], "sort": order}
            )
            return _gallery(desk, filters, page)
        except OpadpoError as error:
            return mistake(error), 0

    def first(*values):
        return show(0, *values)

    def opened(request: gr.Request) -> str:
        return record(desk, request.query_params.get("record"))

    def clicked(event: gr.EventData) -> str:
        return record(desk, event._data["record"])

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(first, filters, [gallery, number], **quiet)
    page.load(opened, None, drawer, **quiet)
    for control in filters:
        control.change(first, filters, [gallery, number], trigger_mode="always_last", **quiet)
    back.click(lambda n, *v: show(n - 1, *v), [number, *filters], [gallery, number], **quiet)
    forward.click(lambda n, *v: show(n + 1, *v), [number, *filters], [gallery, number], **quiet)
    gallery.click(clicked, None, drawer, **quiet)


def record(desk: Desk, rollout_id: str | None) -> str:
    """The open record as HTML: image, question, sentences with what was changed, where it comes from."""
    if not rollout_id:
        return empty("No record is open", "Choose one from the gallery.")
    try:
        found = desk.record(owner(), rollout_id, Filters())
    except NotFound as error:
        return empty(error.what, rollout_id)
    except OpadpoError as error:
        return mistake(error)
    rollout, prompt, revision = found.rollout, found.prompt, found.current
    text = sentences(revision) if revision else f"<p>{escape(rollout['response'])}</p>"
    heading = "Response and revision" if revision else "Response"
    reference = f'<section><h3 class="label">Reference</h3><p>{escape(prompt["reference"])}</p></section>'
    return body(
        f'<article class="panel o-record"><h2 class="mono">{escape(rollout["rollout_id"])}</h2>'
        f'<div class="well">{image(prompt["prompt_id"], "")}</div>'
        f'<section><h3 class="label">Question</h3><p>{escape(prompt["question"])}</p></section>'
        f'<section><h3 class="label">{heading}</h3>{text}</section>'
        f"{reference if prompt['reference'] else ''}{facts(_details(found))}</article>"
    )


def _details(found: DeskRecord) -> list[tuple[str, str]]:
    rollout, prompt, revision = found.rollout, found.prompt, found.current
    details = [
        ("Model", f"{rollout['model']}, {rollout['adapter']}"),
        ("Sampling", _sampling(rollout["sampling"])),
        ("Source", f"{prompt['source']}, {prompt['subset']}, sample {rollout['sample_index'] + 1}"),
        ("Length", f"{rollout['tokens']} tokens, {FINISH[rollout['finish_reason']].lower()}"),
    ]
    if revision:
        when = revision.created_at.strftime("%d %b %Y %H:%M UTC")
        details.append(("Revised by", f"{revision.author} ({revision.author_kind}), {when}"))
    return details


def _gallery(desk: Desk, filters: Filters, page: int) -> tuple[str, int]:
    found = desk.page(owner(), filters, offset=max(page, 0) * PAGE_SIZE, limit=PAGE_SIZE)
    if not found.all:
        return empty("No rollouts yet", f"Run  opadpo rollout {desk.catalogue.workspace.shown}"), 0
    if not found.total:
        return empty("No record matches these filters", "Clear the search or the filters."), 0
    pages = ceil(found.total / PAGE_SIZE)
    if page >= pages:
        return _gallery(desk, filters, pages - 1)
    page = max(page, 0)
    cards = "".join(f"<li>{_card(card)}</li>" for card in found.items)
    title = (
        f'<h1 class="num">{found.total:,} <span class="muted">of {found.all:,}, page {page + 1} of {pages}</span></h1>'
    )
    return body(f'{title}<ol class="o-cards">{cards}</ol>'), page


def _card(card: Card) -> str:
    chips = "".join(score_chip(score) for score in card.scores) if card.scores else "not revised"
    return (
        f'<button type="button" class="o-card panel" data-record="{escape(card.rollout_id)}">'
        f'<span class="pic">{image(card.prompt_id, "")}</span><span class="tx">{escape(card.response)}'
        f'</span><span class="ft muted">{chips}</span></button>'
    )


def _sampling(sampling: dict[str, Any]) -> str:
    if sampling["temperature"] == 0:
        return "greedy"
    return f"temperature {sampling['temperature']:g}, top-k {sampling['top_k']}, top-p {sampling['top_p']:g}"
