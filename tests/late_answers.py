"""Answers of the server that come late: they are held back until a test lets them through."""

import time
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Request, Route

PATIENCE = 30.0
"""Seconds."""


class Late:
    """Holds back what a page asks of addresses that match a pattern.

    `intercepted` has to come before the page is opened. As a rule the server has not seen the calls yet. With
    `answered` it has, and the answers are held back: what happens meanwhile is not in them.
    """

    def __init__(self, page: Page, pattern: str, *, method: str = "GET", answered: bool = False) -> None:
        """From now on; `method` is that of the calls to hold back, others go through."""
        self.page = page
        self.pattern = pattern
        self.method = method
        self.answered = answered
        self.seen = 0
        """How many calls there were, with those that were let through."""
        self._held: list[tuple[Request, Callable[[], Any]]] = []
        self._open = False
        page.route(pattern, self._hold)

    def _hold(self, route: Route) -> None:
        if route.request.method != self.method:
            route.fallback()
            return
        self.seen += 1
        if self._open:
            route.fallback()
        elif self.answered:
            answer = route.fetch()
            self._held.append((route.request, lambda: route.fulfill(response=answer)))
        else:
            self._held.append((route.request, route.fallback))

    def wait(self, count: int = 1) -> None:
        """Wait until so many calls are held back."""
        eventually(self.page, lambda: len(self._held) >= count)

    def release(self) -> None:
        """Let all of them through, in their order, and those that come; waits until the page has had the answers."""
        self._open = True
        held, self._held = self._held, []
        for _, go_on in held:
            go_on()
        for request, _ in held:
            if answer := request.response():
                answer.finished()
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def intercepted(page: Page) -> Page:
    """The page, which is to be opened after this.

    What an open page asks in the moment in which its first interception begins may go past it.
    """
    page.route("**/nothing-of-this-name", lambda route: route.fallback())
    return page


def eventually(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until something holds, while the page goes on."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        page.wait_for_timeout(20)
