"""Pictures of the app for the documents: `make screenshots` writes docs/images/*.png."""

import io
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import job_folders
from compared_workspace import fill as fill_compared
from desk_workspace import decide, fill
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from running_app import RunningApp

from opadpo.recipe import preset_text
from opadpo.workspace import Workspace

FOLDER = Path(__file__).parents[1] / "docs" / "images"
WIDE, NARROW = (1440, 900), (1024, 768)


def main() -> None:
    """Take every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Workspace.create(Path(folder) / "toy-world", preset_text("toy"), ["prepare.subset_size=24"])
        records = fill(workspace)
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        with RunningApp(workspace.root) as app:
            for size in (WIDE, NARROW):
                for scheme in ("light", "dark"):
                    name = f"review-{size[0]}x{size[1]}-{scheme}"
                    take(browser, app, f"/review?record={records[0]}", name, size, scheme, editing)
                    name = f"rollouts-{size[0]}x{size[1]}-{scheme}"
                    take(browser, app, f"/rollouts?record={records[0]}", name, size, scheme, opened)
            take(browser, app, "/rollouts?score=1&score=2&view=table", "rollouts-table", WIDE, "light", listed)
            take(browser, app, f"/review?record={records[0]}", "review-shortcuts", WIDE, "light", shortcuts)
            decided = partial(clashing, workspace=workspace, record=records[2])
            take(browser, app, f"/review?record={records[2]}", "review-conflict", WIDE, "light", decided)
        compared = Workspace.create(Path(folder) / "compared", preset_text("toy"))
        fill_compared(compared)
        with RunningApp(compared.root) as app:
            for size in (WIDE, NARROW):
                for scheme in ("light", "dark"):
                    name = f"compare-{size[0]}x{size[1]}-{scheme}"
                    take(browser, app, "/compare?diff=on", name, size, scheme, figured)
            take(browser, app, "/compare?mode=blind&model=base&model=opadpo", "compare-blind", WIDE, "light", voting)
        trained = Workspace.create(Path(folder) / "coco-7b", preset_text("llava-1.5-7b"))
        job_folders.show(trained, pid=os.getpid())
        with RunningApp(trained.root) as app:
            for size in (WIDE, NARROW):
                for scheme in ("light", "dark"):
                    take(browser, app, "/train", f"train-{size[0]}x{size[1]}-{scheme}", size, scheme, running, folder)
            take(browser, app, "/train", "train-new", WIDE, "light", changing, folder)
        browser.close()


def take(
    browser: Browser, app: RunningApp, path: str, name: str, size: tuple[int, int], scheme: str,
    act: Callable[[Page], None], folder: str | None = None,
) -> None:  # fmt: skip
    """Open a page, do something in it, and save its picture; a temporary `folder` is shown as one that is kept."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(
        viewport=viewport,  # pyright: ignore[reportArgumentType]
        color_scheme=scheme,  # pyright: ignore[reportArgumentType]
        base_url=app.url,
        reduced_motion="reduce",
        storage_state=app.state(),
    )
    page = context.new_page()
    if folder is not None:
        page.route("**/api/**", lambda route: _renamed(route, folder))
    page.goto(path)
    act(page)
    with Image.open(io.BytesIO(page.screenshot(caret="hide"))) as picture:
        # A palette makes the picture a third of the size; this way of choosing it keeps the small spots of colour.
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    small.save(FOLDER / f"{name}.png", optimize=True)
    context.close()
    print(FOLDER / f"{name}.png")


def _renamed(route: Route, folder: str) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, body=answer.text().replace(folder, "/data"))


def editing(page: Page) -> None:
    """The first sentence accepted, the second one open."""
    page.locator(".d-row").first.wait_for()
    page.locator(".d-row").first.focus()
    tick = page.get_by_role("button", name="Accept sentence 1")
    page.keyboard.press("a" if tick.get_attribute("aria-pressed") == "false" else "j")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("There is a green bird at the top left.")
    page.locator(".d-saved.saved").wait_for()


def figured(page: Page) -> None:
    """Captions, and figures with their differences."""
    page.locator(".c-text").first.wait_for()
    page.locator(".c-diff .good").first.wait_for()
    page.locator(".c-ranking img").first.wait_for()


def voting(page: Page) -> None:
    """A pair before the vote."""
    page.locator(".c-pair .c-text").first.wait_for()
    page.wait_for_url("**record=**")


def running(page: Page) -> None:
    """A job with its curves and the estimate of its memory."""
    page.get_by_role("img", name=re.compile("^Loss: loss")).wait_for()
    page.locator(".t-membar").wait_for(timeout=300_000)


def changing(page: Page) -> None:
    """The dialog of a clone with one setting changed."""
    page.get_by_role("button", name="Clone with anchor_coef 2.0").click()
    page.locator(".t-new .t-membar").wait_for(timeout=300_000)
    expect(page.get_by_role("button", name="Start")).to_be_enabled()


def opened(page: Page) -> None:
    """A record beside the gallery."""
    listed(page)
    page.locator(".r-well img").evaluate("image => image.decode()")


def listed(page: Page) -> None:
    """The list, with its pictures."""
    page.locator("[data-record]").first.wait_for()
    page.wait_for_load_state("networkidle")


def shortcuts(page: Page) -> None:
    """The list of keys."""
    page.locator(".d-row").first.wait_for()
    page.keyboard.press("?")


def clashing(page: Page, workspace: Workspace, record: str) -> None:
    """Somebody else decides first."""
    page.locator(".d-row").first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("A violet lamp stands at the top right.")
    page.locator(".d-saved.saved").wait_for()
    decide(workspace, record, "Jonas Berg", 1, "A lamp stands below the table at the top right.")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Enter")
    page.locator(".d-conflict").wait_for()


if __name__ == "__main__":
    main()
