"""The app serving a filled workspace in a process of its own, and a browser."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from compared_workspace import fill as fill_compared
from desk_workspace import fill as fill_desk
from filled_workspace import HOSTILE, fill
from PIL import Image
from running_app import RunningApp

from opadpo.recipe import preset_text
from opadpo.workspace import Workspace


@pytest.fixture(scope="session")
def filled_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.create(
        tmp_path_factory.mktemp("app") / "birds", preset_text("toy"), ["prepare.subset_size=60"]
    )
    fill(workspace)
    return workspace


@pytest.fixture(scope="session")
def app(filled_workspace: Workspace) -> Iterator[RunningApp]:
    """The app, served by the command line in its own process."""
    with RunningApp(filled_workspace.root) as app:
        yield app


@pytest.fixture(scope="module")
def browser():
    """Chromium from the system packages; closed with the module, since Playwright keeps an event loop running."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # for a machine that does much else; nothing waits longer than it has to
    chromium = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"],
        )
        yield running
        running.close()


PLAIN = "A cup stands on the table. A dog sits on the sofa. The sky is blue."


class DeskWorld(NamedTuple):
    """The app on a workspace with records of every kind."""

    workspace: Workspace
    app: RunningApp
    records: list[str]
    """Rollout ids. 0: hostile texts; 1: a word of 10,000 letters; 2: marks that turn the direction of writing or have
    no width; 3: an image of 1 x 2000; 4: one of 4000 x 10; 5: no text at all; 6 to 11: three sentences, all kept; the
    rest: toy captions with mistakes."""


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeskWorld]:
    """A desk in a process of its own; whoever kills it starts it again."""
    workspace = Workspace.create(
        tmp_path_factory.mktemp("desk") / "desk", preset_text("toy"), ["prepare.subset_size=60"]
    )
    strange = {
        0: f"There is a cup. {HOSTILE}",
        1: f"{'x' * 10_000} is here. There is a cup.",
        2: "\u202eThis runs backwards. \u200bNo\u200bwidth\u200d at all. \u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628.",
        5: " ",
    }
    images = {3: _png(1, 2000), 4: _png(4000, 10)}
    records = fill_desk(workspace, 40, images=images, texts=strange | dict.fromkeys(range(6, 12), PLAIN))
    with RunningApp(workspace.root) as app:
        yield DeskWorld(workspace, app, records)


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 80, 40)).save(file, "PNG")
    return file.getvalue()


class ComparedWorld(NamedTuple):
    """The app on a workspace with scored captions of three models."""

    workspace: Workspace
    app: RunningApp
    prompts: list[str]
    """Prompt ids. What `opadpo` says of the first: 0: hostile texts; 1: a word of 10,000 letters; 2: marks that turn
    the direction of writing; 3: no text; 4 has an image of 1 x 2000."""


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComparedWorld]:
    workspace = Workspace.create(tmp_path_factory.mktemp("compared") / "compared", preset_text("toy"))
    strange = {
        0: f"There is a cup. {HOSTILE}",
        1: f"{'x' * 10_000} is here. There is a cup.",
        2: "\u202eThis runs backwards. \u05d0\u05d1\u05d2 A cup \U0001f600\U0001f600 and a fish.",
        3: " ",
    }
    prompts = fill_compared(workspace, texts=strange, images={4: _png(1, 2000)})
    with RunningApp(workspace.root) as app:
        yield ComparedWorld(workspace, app, prompts)
