"""`opadpo jobs check`: whether a machine is fit for jobs, and what to do if not; over a real sshd."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Run
from remote_jobs import with_targets
from running_jobs import toy_workspace
from ssh_server import ALIAS, SshServer, bare_python

from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A toy workspace."""
    return toy_workspace(tmp_path / "w")


def far(workspace: Workspace, sshd: SshServer, **fields: Any) -> Path:
    """The workspace, with the machine as its target `far`."""
    given = {"kind": "ssh", "host": ALIAS, "ssh_config": str(sshd.client_config), "python": sys.executable}
    return with_targets(workspace, far=TargetSection(**{**given, **fields})).root


@pytest.mark.slow
def test_a_machine_that_is_fit(run: Run, workspace: Workspace, sshd: SshServer):
    fit = run("jobs", "check", far(workspace, sshd, setup=["export A=1"]), "--target", "far", "--json")
    states = {check["name"]: check["state"] for check in fit.result["checks"]}
    ours = {name: states[f"{name} on {ALIAS}"] for name in ("disk", "rsync", "shell")}
    assert set(ours.values()) == {"ok"}
    assert states[f"opadpo on far ({ALIAS})"] == "ok"
    assert "torch" in states
    assert fit.status == 0


@pytest.mark.slow
def test_interpreters_that_are_missing_or_bare(run: Run, workspace: Workspace, sshd: SshServer, tmp_path: Path):
    bare = str(bare_python(tmp_path / "bare", sys.executable))
    for interpreter, said in ((bare, "not installed for Python"), (str(tmp_path / "none"), "No such file|not found")):
        root = far(workspace, sshd, python=interpreter)
        found = run("jobs", "check", root, "--target", "far", "--json")
        assert found.status == 1
        assert re.search(said, found.result["checks"][0]["seen"])
        told = " ".join(run("jobs", "check", root, "--target", "far").out.split())
        assert "name its interpreter as `python` of the target far" in told


@pytest.mark.slow
def test_a_small_disk_and_a_shell_that_greets(run: Run, workspace: Workspace, sshd: SshServer, tmp_path: Path):
    small, profile = tmp_path / "small", sshd.home / ".bashrc"
    small.mkdir()
    bare = str(bare_python(tmp_path / "bare", sys.executable))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    profile.write_text("echo Welcome to the node\n")
    try:
        root = far(workspace, sshd, folder=str(small / "not yet"), python=bare)
        found = run("jobs", "check", root, "--target", "far", "--json")
    finally:
        profile.unlink()
        subprocess.run(["umount", "-l", small], check=True)
    checks = {check["name"]: check for check in found.result["checks"]}
    disk, shell = checks[f"disk on {ALIAS}"], checks[f"shell on {ALIAS}"]
    assert disk["state"] == "warning"
    assert disk["seen"].startswith(f"0.0 GiB free at {small / 'not yet'}/")
    assert "another `folder`" in disk["remedy"]
    assert shell["state"] == "missing"
    assert "Welcome to the node" in shell["seen"]
    assert "~/.bashrc" in shell["remedy"]


@pytest.mark.slow
def test_a_machine_that_cannot_be_reached_and_one_without_slurm(
    run: Run, workspace: Workspace, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bare = str(bare_python(tmp_path / "bare", sys.executable))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none"))
    found = run("jobs", "check", far(workspace, sshd, kind="slurm", python=bare), "--target", "far", "--json")
    slurm = {check["name"]: check for check in found.result["checks"]}["slurm"]
    assert (found.status, slurm["state"]) == (1, "missing")
    assert "`host` of the target" in slurm["remedy"]
    sshd.stop()
    try:
        refused = run("jobs", "check", far(workspace, sshd), "--target", "far")
    finally:
        sshd.start()
    assert refused.status == 2
    assert "refuses connections" in refused.err
