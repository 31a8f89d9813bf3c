"""The app serving a filled workspace in a process of its own, and a browser."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filled_workspace import fill

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
def app_url(filled_workspace: Workspace) -> Iterator[str]:
    """Address of the app, served by the command line in its own process."""
    command = [sys.executable, "-m", "opadpo", "app", str(filled_workspace.root), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as app:
        try:
            assert app.stdout is not None
            line = app.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, f"the app did not say where it listens: {line!r}"
            yield found[0]
        finally:
            app.send_signal(signal.SIGINT)
            app.wait(20)


@pytest.fixture(scope="module")
def browser():
    """Chromium from the system packages; closed with the module, since Playwright keeps an event loop running."""
    from playwright.sync_api import sync_playwright

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
