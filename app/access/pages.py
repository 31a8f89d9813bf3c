"""Pages for those who are not in: the log-in form, and what to do without a link. They load nothing."""

from functools import cache
from html import escape

from starlette.responses import HTMLResponse

from app.access.headers import own_policy
from app.markup import BRAND
from app.theme import ASSETS, STYLES


@cache
def _styles() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (*STYLES, ASSETS / "door.css")]


def login(workspace: str, target: str, *, name: str = "", trouble: str = "", status: int = 200) -> HTMLResponse:
    """The log-in form; `target` is the path to go to afterwards, `trouble` what went wrong the last time."""
    alert = f'<p role="alert" id="trouble">{escape(trouble)}</p>' if trouble else ""
    described = ' aria-describedby="trouble" aria-invalid="true"' if trouble else ""
    first, second = ("", " autofocus") if name else (" autofocus", "")
    return _page(
        f"Log in - {workspace}",
        f"<h1>Log in to {escape(workspace)}</h1>{alert}"
        f'<form method="post" action="/login"><input type="hidden" name="next" value="{escape(target)}">'
        f'<label>Name<input name="name" value="{escape(name)}" autocomplete="username" autocapitalize="none"'
        f' spellcheck="false" required maxlength="64"{described}{first}></label>'
        '<label>Password<input name="password" type="password" autocomplete="current-password" required'
        f' maxlength="1000"{described}{second}></label><button>Log in</button></form>',
        status,
    )


def without_link(workspace: str, command: str) -> HTMLResponse:
    """What to do without the link's token."""
    return _page(
        f"Open with its link - {workspace}",
        "<h1>This app is opened with its link</h1>"
        "<p>Copy the link that ends with <code>?token=</code> and a random word from the terminal in which"
        f" <code>{escape(command)}</code> runs. It opens every page of the app in this browser.</p>"
        "<p>If that terminal has gone, end the app and start it again: it prints a new link. Work that has not been"
        " saved is kept in this browser.</p>",
        403,
    )


def refused(what: str, remedy: str, status: int) -> HTMLResponse:
    """Why the door stays shut."""
    return _page(what, f"<h1>{escape(what)}</h1><p>{escape(remedy)}</p>", status)


def again(path: str) -> HTMLResponse:
    """A page that asks for the same address once more.

    A browser that follows a link on another site leaves the cookie at home; asked by our own page it brings it along.
    """
    link = f'<p>Opening <a href="{escape(path)}">the page</a>.</p>'
    return _page("opadpo", link, 200, f'<meta http-equiv="refresh" content="0;url={escape(path)}">')


def _page(title: str, content: str, status: int, head: str = "") -> HTMLResponse:
    styles = "".join(f"<style>{style}</style>" for style in _styles())
    script = (ASSETS / "app.js").read_text(encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>{head}{styles}<script>{script}</script></head>"
        f'<body class="o-body o-door"><main class="panel"><span class="o-brand">{BRAND}opadpo</span>{content}'
        "</main></body></html>"
    )
    answer = HTMLResponse(page, status)
    answer.headers["Content-Security-Policy"] = own_policy(page.encode(), (style.encode() for style in _styles()))
    answer.headers["Cache-Control"] = "no-store"
    return answer
