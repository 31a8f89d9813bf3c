"""The page of jobs in a real browser: jobs on another machine, over a real sshd, and on a real Slurm."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect
from remote_jobs import JobByHand, with_targets
from running_app import OFTEN, RunningApp
from running_jobs import toy_workspace
from slurm_cluster import SlurmCluster
from ssh_server import ALIAS, SshServer, script
from watched_page import watched

from opadpo.jobs.folder import FETCHED_FILE
from opadpo.jobs.record import PYTHON
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

pytestmark = [pytest.mark.browser, pytest.mark.slow]

UNTIL = """
import json, pathlib, sys, time
folder, enough = map(pathlib.Path, sys.argv[1:])
step = 0
while not enough.exists():
    step += 1
    print(f"step {step} of many", file=sys.stderr)
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"run": "opa", "step": step, "loss": 1 / step}) + "\\n")
    time.sleep(0.2)
"""
"""A program that does as training does, without a model, until a file is there."""
MAKES = """
import datetime, pathlib, sys
from opadpo.manifest import Manifest
adapter = pathlib.Path(sys.argv[1], "adapters/opa")
adapter.mkdir(parents=True)
(adapter / "weights").write_text("made there")
at = datetime.datetime.now(datetime.UTC)
made = Manifest(artefact="adapters/opa", step="train", settings={}, inputs={}, started_at=at, finished_at=at)
(adapter / "manifest.json").write_text(made.model_dump_json())
"""
"""A program that leaves an adapter, as a training does."""
SPY = """
window.told = [];
window.Notification = class { constructor(title) { window.told.push(title); } };
window.Notification.requestPermission = async () => "granted";
"""


class World(NamedTuple):
    """The app on a workspace with two targets: `far` over ssh, and `closed`, where no job ever starts, with Slurm."""

    workspace: Workspace
    app: RunningApp
    far: TargetSection
    hold: Path
    """While this file is there, what the app copies stops halfway."""


@pytest.fixture(scope="module")
def world(sshd: SshServer, cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("elsewhere")
    hold, copy = place / "hold", f'exec {shutil.which("rsync")} "$@"'
    slow = ["printf ' 1  50%%\\r'", f"while [ -e '{hold}' ]; do sleep 0.1; done"]  # it says how far it is, and waits
    (place / "tools").mkdir()
    script(place / "tools/rsync", f'case "$*" in *--dry-run*) {copy};; esac', *slow, copy)
    far = TargetSection(
        kind="ssh", host=ALIAS, ssh_config=str(sshd.client_config), python=sys.executable, grace_seconds=5
    )
    workspace = with_targets(
        toy_workspace(place / "far off"), far=far, closed=TargetSection(kind="slurm", partition="closed")
    )
    patch = pytest.MonkeyPatch()
    for name, value in {**cluster.environment, "HOME": str(place), "OPADPO_RUNTIME": str(place / "line")}.items():
        patch.setenv(name, value)
    patch.setenv("PATH", str(place / "tools"), prepend=os.pathsep)
    with RunningApp(workspace.root, before=OFTEN) as app:
        yield World(workspace, app, far, hold)
    patch.undo()


@pytest.fixture
def page(browser: Browser, world: World) -> Iterator[Page]:
    with watched(browser, world.app, usual="status of 409") as page:
        page.set_default_timeout(60_000)
        yield page


def test_a_job_on_another_machine_is_followed_through_a_lost_connection_to_its_end(
    page: Page, world: World, sshd: SshServer, tmp_path: Path
):
    enough = tmp_path / "enough"
    command = [PYTHON, "-u", "-c", UNTIL, "{job}/", str(enough)]
    job = JobByHand(world.workspace, world.far, command, runs=["opa"]).submit()
    page.add_init_script(SPY)
    page.goto(f"/train?job={job.folder.name}")
    log, banner = page.get_by_role("region", name="Lines of the log"), page.locator(".t-banner.warn")
    expect(log).to_contain_text("step 2 ")
    expect(page.get_by_role("img", name=re.compile("Loss: loss"))).to_be_visible()
    page.get_by_role("button", name="Tell me when it ends").click()
    page.get_by_label("State").select_option("running")
    sshd.refuse()
    try:
        assert sshd.cut() > 0
        expect(banner).to_contain_text("far by SSH cannot be reached since")
        expect(page.locator(".t-jobs .t-sub.warn")).to_contain_text("the job goes on there")
        enough.touch()
    finally:
        sshd.start()
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Succeeded")
    expect(banner).to_have_count(0)
    expect(log).to_contain_text("exit 0")
    page.wait_for_function("window.told.length")
    assert page.evaluate("window.told") == ["by hand: Succeeded"]


def test_results_are_seen_coming_and_come_after_all(page: Page, world: World):
    world.hold.touch()
    job = JobByHand(world.workspace, world.far, [PYTHON, "-c", MAKES, "{workspace}"], writes=["adapters/opa"]).submit()
    page.goto(f"/train?job={job.folder.name}")
    expect(page.locator(".t-jobhead .t-state")).to_have_text("Succeeded")
    coming, late = page.locator(".t-banner.plain"), page.locator(".t-banner.warn")
    expect(coming).to_contain_text(re.compile(r"Its results come: Fetching from node, \d+ %"))
    expect(page.locator(f".t-jobs [data-job='{job.folder.name}'] .t-sub")).to_contain_text("its results come")
    with world.workspace.lock("adapters/opa"):
        world.hold.unlink()
        expect(late).to_contain_text("What it has made does not come from far by SSH since")
        expect(late).to_contain_text("adapters/opa")
        expect(coming).to_have_count(0)
        assert not world.workspace.adapter("opa").exists()
    expect(late).to_have_count(0)
    assert (world.workspace.adapter("opa") / "weights").read_text() == "made there"
    assert (job.folder / FETCHED_FILE).read_text() == "adapters/opa"


def test_a_job_waits_in_the_queue_of_a_cluster_is_cancelled_resumed_and_cloned(page: Page):
    page.goto("/train")
    page.get_by_role("button", name="New job").first.click()
    dialog, state = page.get_by_role("dialog"), page.locator(".t-jobhead .t-state")
    dialog.get_by_role("button", name="Prepare").click()
    dialog.get_by_label("target", exact=True).select_option(label="closed, Slurm")
    dialog.get_by_role("button", name="Start").click()
    expect(page.locator(".t-banner")).to_contain_text("The job does not start: the partition closed is closed")
    expect(state).to_have_text("Queued")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".t-banner")).to_contain_text("before it started")
    expect(state).to_have_text("Cancelled")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("list", name="Attempts")).to_contain_text("Attempt 2")
    expect(page.locator(".t-tries")).to_contain_text(re.compile(r"Attempt 2Slurm \d+"))
    page.get_by_role("button", name="Clone").click()
    expect(dialog.get_by_label("target", exact=True)).to_have_value("closed")
    dialog.get_by_role("button", name="Start").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Another job writes prompts")
    dialog.get_by_role("button", name="Close").first.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(state).to_have_text("Cancelled")
