"""Pieces of HTML that the pages share. Every text goes through `escape`: nothing of a model's or user's ever runs."""

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from opadpo.errors import OpadpoError
from opadpo.records import Revision
from opadpo.text.worddiff import word_diff

BRAND = (
    '<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round"'
    ' aria-hidden="true"><circle cx="10" cy="10" r="7.5"/><path d="M6.5 10.5l2.5 2.5 4.5-5.5"/></svg>'
)
PAGES = {"Workspace": "/", "Rollouts": "/rollouts", "Review": "/review"}


def header(current: str, workspace_name: str) -> str:
    """Brand, tabs and the light/dark switch."""
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if name == current else ""}>{name}</a>' for name, path in PAGES.items()
    )
    return (
        f'<div class="o-body"><header class="o-header"><a class="o-brand" href="/">{BRAND}opadpo</a>'
        f'<span class="muted">{escape(workspace_name)}</span><nav aria-label="Main">{links}</nav>'
        '<span class="grow"></span><button class="o-theme" type="button" data-theme-switch>Light / dark</button>'
        "</header></div>"
    )


def body(content: str) -> str:
    """A piece of page in our own type and colours."""
    return f'<div class="o-body">{content}</div>'


def badge(state: str) -> str:
    """State of an artefact: a shape and a word, never colour alone."""
    return f'<span class="o-badge {escape(state)}">{escape(state)}</span>'


def score_chip(score: int | None) -> str:
    """The score of a sentence; a plus sign for an added one."""
    if score is None:
        return '<span class="o-score added"><span class="sr">added</span>+</span>'
    return f'<span class="o-score s{score}"><span class="sr">score </span>{score}</span>'


def diff(before: str, after: str) -> str:
    """Words struck through where deleted, underlined where inserted."""
    tags = {"equal": "{}", "delete": "<del>{}</del>", "insert": "<ins>{}</ins>"}
    return "".join(tags[op].format(escape(text)) for op, text in word_diff(before, after))


def sentences(revision: Revision) -> str:
    """The revision's sentences in a column, each with score, changed words and reason."""
    rows = []
    for sentence in revision.sentences:
        why = "; ".join(
            filter(None, [sentence.error_type.replace("_", " "), ", ".join(sentence.objects), sentence.reason])
        )
        note = f'<span class="why">{escape(why)}</span>' if sentence.kind != "kept" else ""
        rows.append(
            f"<li>{score_chip(sentence.score)}<div>{diff(sentence.original, sentence.revised)}{note}</div></li>"
        )
    return f'<ol class="o-sentences">{"".join(rows)}</ol>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    return '<dl class="o-facts">' + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs) + "</dl>"


def empty(title: str, remedy: str) -> str:
    """What to do next where there is nothing to see."""
    return body(f'<div class="o-empty"><b>{escape(title)}</b>{escape(remedy)}</div>')


def mistake(error: OpadpoError) -> str:
    """An error in the place of what could not be shown, with its remedy."""
    return body(f'<pre class="panel o-next">{escape(str(error))}</pre>')


def image(prompt_id: str, alt: str) -> str:
    """An image by the id of its record."""
    return f'<img src="/images?{urlencode({"prompt": prompt_id})}" alt="{escape(alt)}" loading="lazy">'
