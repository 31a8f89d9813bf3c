"""Jobs on another machine, over the OpenSSH client."""

from pathlib import Path

from opadpo.checks import Check
from opadpo.errors import Unreachable, UserError
from opadpo.jobs import mirrored_folder
from opadpo.jobs.folder import CANCEL_FILE, read_job, wish_to_stop, write_job
from opadpo.jobs.machines import OverSsh, joined
from opadpo.jobs.over_there import OverThere
from opadpo.jobs.record import Job, observe
from opadpo.jobs.targets.base import Target
from opadpo.progress import Progress
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace


class SshTarget(Target):
    """The runner works there in a mirror of the workspace, or in the same one on a shared file system.

    The folder here is a copy that `status` brings up to date. A connection is needed to ask, never for the
    job to go on.
    """

    def __init__(self, name: str, settings: TargetSection, workspace: Workspace) -> None:
        """Raises UserError if the target names no host."""
        super().__init__(name, settings, workspace)
        if not settings.host:
            raise UserError("The target names no host", seen=name, remedy=f"set jobs.targets.{name}.host in the recipe")
        self.machine = OverSsh(settings.host, settings.ssh_config)
        self.there = OverThere(name, settings, workspace, self.machine)

    def check(self, recipe: Path | None) -> list[Check]:
        """As `Target.check`."""
        return self.there.check(recipe)

    def submit(self, job: Job, folder: Path, progress: Progress) -> Job:
        """As `Target.submit`."""
        self.there.require_fit()
        arrival = self.there.stage(job, folder, progress)
        secret = self.there.write_secrets(job)
        try:
            told = self.there.arrive({**arrival, "start": True, "secrets": secret})
        except Unreachable as lost:
            # It may have started all the same: what it is, the next look at it will tell.
            told = job.moved("queued", f"The connection broke while it was handed over ({lost.what})")
        except BaseException:
            self.there.forget_secrets(secret)
            raise
        if self.there.mirror is not None:
            write_job(folder, told)
        return told

    def status(self, job: Job, folder: Path) -> Job:
        """As `Target.status`."""
        if self.there.mirror is None:
            return observe(read_job(folder), folder)
        told, dead = mirrored_folder.bring(self.machine, self.there.folder(job), folder, job)
        told = mirrored_folder.keep(folder, job, told, dead)
        self.there.bring_checkpoints(told, folder)
        return told

    def logs(self, job: Job, folder: Path, offset: int) -> bytes:
        """As `Target.logs`."""
        return self.there.logs(job, folder, offset)

    def cancel(self, job: Job, folder: Path, by: str) -> None:
        """As `Target.cancel`: the runner looks for the wish twice a second."""
        self.machine.write(joined(self.there.folder(job), CANCEL_FILE), wish_to_stop(by).encode())

    def fetch(self, job: Job, folder: Path, progress: Progress) -> list[str]:
        """As `Target.fetch`."""
        return self.there.fetch(job, progress)
