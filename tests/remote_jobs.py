"""Jobs by hand for the tests of remote targets: any command, no model."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tiny_workspace
import yaml
from running_jobs import PATIENCE, until_so

from opadpo.jobs.folder import new_id, write_job
from opadpo.jobs.record import PYTHON, Attempt, Job, JobRequest, Resources
from opadpo.jobs.targets import make_target
from opadpo.jobs.targets.base import Target
from opadpo.progress import SilentProgress
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(300)"


def python(code: str) -> list[str]:
    """A command that runs this code."""
    return [PYTHON, "-u", "-c", code]


class JobByHand:
    """A job of given commands, submitted to a target without the service."""

    def __init__(self, workspace: Workspace, settings: TargetSection, *commands: Sequence[str], **fields: Any) -> None:
        at = datetime.now(UTC)
        self.target: Target = make_target("far", settings, workspace)
        job = Job(
            job_id=new_id("opa", at),
            step="opa",
            title="by hand",
            commands=[list(command) for command in commands],
            request=JobRequest(step="opa"),
            target="far",
            target_settings=settings,
            workspace=str(workspace.root),
            submitted_by="tests",
            submitted_at=at,
            state_at=at,
            attempts=[Attempt(number=1, queued_at=at)],
            **{"resources": Resources(gpus=0, time=settings.time), **fields},
        )
        self.folder = workspace.jobs() / job.job_id
        self.folder.mkdir(parents=True)
        write_job(self.folder, job)
        self.job = job

    def submit(self) -> "JobByHand":
        """Start it."""
        self.job = self.target.submit(self.job, self.folder, SilentProgress())
        return self

    def again(self) -> "JobByHand":
        """A new attempt."""
        attempt = Attempt(number=self.job.attempt.number + 1, queued_at=datetime.now(UTC))
        attempts = [*self.job.attempts, attempt]
        self.job = self.job.model_copy(update={"attempts": attempts}).moved("queued")
        (self.folder / "cancel.json").unlink(missing_ok=True)
        write_job(self.folder, self.job)
        return self.submit()

    def look(self) -> Job:
        """What has become of it."""
        self.job = self.target.status(self.job, self.folder)
        return self.job

    def until(self, what: Callable[[], bool], seconds: float = PATIENCE) -> Job:
        """Look again and again until something is so."""

        def looked() -> bool:
            self.look()
            return what()

        until_so(looked, lambda: f"{self.job.state}: {self.job.reason}\n{self.log}", seconds=seconds, every=0.2)
        return self.job

    def until_state(self, *states: str, seconds: float = PATIENCE) -> Job:
        """Look until it has one of these states."""
        return self.until(lambda: self.job.state in states, seconds)

    def cancel(self) -> None:
        """Ask it to stop."""
        self.target.cancel(self.job, self.folder, "tester")

    @property
    def log(self) -> str:
        """Its log here."""
        path = self.folder / "log.txt"
        return path.read_text() if path.exists() else ""

    @property
    def printed(self) -> str:
        """What its commands printed, here."""
        path = self.folder / "result.jsonl"
        return path.read_text() if path.exists() else ""


def made(root: Path, model: Path, **sections: Any) -> Workspace:
    """A workspace with prompts and a pinned base, without anything to train on."""
    return tiny_workspace.make(root, model, train=4, heldout=2, **sections)


def with_targets(workspace: Workspace, **targets: TargetSection) -> Workspace:
    """The workspace with these targets in its recipe."""
    path = workspace.root / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["jobs"] = {
        "targets": {name: json.loads(target.model_dump_json(exclude_defaults=True)) for name, target in targets.items()}
    }
    path.write_text(yaml.safe_dump(recipe))
    return Workspace.open(workspace.root)
