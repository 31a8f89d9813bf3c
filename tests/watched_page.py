"""A page of the app in a browser that is watched: nothing hostile may run, and nothing go wrong unseen."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page
from running_app import RunningApp

NEVER = "(?!)"
"""Matches nothing."""


@contextmanager
def watched(
    browser: Browser, app: RunningApp, *, usual: str = NEVER, size: tuple[int, int] = (1440, 900), gradio: bool = False
) -> Iterator[Page]:
    """A page that has come in. At the end the console is clean, and no request has left the app.

    `usual` matches errors in the console that the tests bring about. `gradio`: events may go through its queue, which
    only its own page asks.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, base_url=app.url, color_scheme="light",
        storage_state=app.state(), reduced_motion="reduce",  # without a GPU, what turns for ever costs much
    )  # fmt: skip
    page = context.new_page()
    page.set_default_timeout(20_000)
    seen: list[str] = []
    page.on("console", lambda m: seen.append(m.text) if m.type == "error" and not re.search(usual, m.text) else None)
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((app.url, "data:", "blob:")) else seen.append(r.url))
    page.on("request", lambda r: seen.append(r.url) if not gradio and "/gradio_api/queue/" in r.url else None)
    yield page
    assert page.evaluate("window.hacked") is None
    assert seen == []
    context.close()
