"""Pieces of HTML that the pages share. Every text goes through `escape`: nothing of a model's or user's ever runs."""

from html import escape

BRAND = (
    '<svg viewBox="0 0 20 20" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round"'
    ' aria-hidden="true"><circle cx="10" cy="10" r="7.5"/><path d="M6.5 10.5l2.5 2.5 4.5-5.5"/></svg>'
)
PAGES = {"Workspace": "/", "Rollouts": "/rollouts", "Review": "/review", "Train": "/train", "Compare": "/compare"}


def header(current: str, workspace_name: str) -> str:
    """Brand, tabs and the light/dark switch."""
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if name == current else ""}>{name}</a>' for name, path in PAGES.items()
    )
    return (
        f'<div class="o-body"><header class="o-header"><a class="o-brand" href="/">{BRAND}opadpo</a>'
        f'<span class="muted">{escape(workspace_name)}</span><nav aria-label="Main">{links}</nav>'
        '<span class="grow"></span><span class="o-user" data-user></span>'
        '<button class="o-theme" type="button" data-theme-switch>Light / dark</button>'
        "</header></div>"
    )


def body(content: str) -> str:
    """A piece of page in our own type and colours."""
    return f'<div class="o-body">{content}</div>'


def badge(state: str) -> str:
    """State of an artefact: a shape and a word, never colour alone."""
    return f'<span class="o-badge {escape(state)}">{escape(state)}</span>'
