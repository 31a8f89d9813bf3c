"""What targets on another machine have in common: its interpreter, its fitness, and handing a job over to it."""

import json
import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from opadpo import __version__, errors
from opadpo.checks import Check
from opadpo.errors import DependencyMissing, ModelError, OpadpoError, StepFailed, UserError, disk_errors
from opadpo.files import atomic_write
from opadpo.jobs import logs
from opadpo.jobs.connection_errors import SILENT_SHELL, explained
from opadpo.jobs.folder import CANCEL_FILE, JOB_FILE, LOG_FILE, RECIPE_FILE, RESOLVED_FILE
from opadpo.jobs.machines import Machine, OverSsh, joined, python_command
from opadpo.jobs.mirrored_folder import give_back
from opadpo.jobs.record import Job, last_checkpoint
from opadpo.jobs.sync import STAGING, Mirror, check_steps, folder_name, needed, verbs
from opadpo.progress import Progress, SilentProgress
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import RECIPE_FILE as WORKSPACE_RECIPE
from opadpo.workspace import Workspace

DOCTOR_SECONDS = 300.0
ARRIVE_SECONDS = 3600.0
"""The first time, a base model of many gigabytes is hashed there."""
PIN_FILE = "base.json"
BROUGHT_FILE = "checkpoint_brought"
"""In the job's folder here: the update of the last checkpoint that was brought while the job runs."""
NEEDS_GIB = 2.0
SECRETS_FOLDER = "~/.cache/opadpo/secrets"
ASKED_HERE = ("expert", "sampling server", "key of the expert", "chromium")
"""Findings of the doctor that do not matter on a machine that only trains, captions and evaluates."""

_VERSION = """
import json, platform, sys
try:
    import opadpo
    version = opadpo.__version__
except ImportError as error:
    version = None
print(json.dumps({"opadpo": version, "python": platform.python_version(), "executable": sys.executable}))
"""


_COPY_DATABASE = """
import os, sqlite3, sys
os.makedirs(sys.argv[2])
to = sqlite3.connect(os.path.join(sys.argv[2], sys.argv[3]))
sqlite3.connect(sys.argv[1]).backup(to)
to.close()
"""


class OverThere:
    """The machine of a target, seen from one workspace."""

    def __init__(self, name: str, settings: TargetSection, workspace: Workspace, machine: Machine) -> None:
        self.name, self.settings, self.workspace, self.machine = name, settings, workspace, machine

    @cached_property
    def root(self) -> str:
        """The workspace's folder there."""
        if self.settings.shared is True or not isinstance(self.machine, OverSsh):
            return str(self.workspace.root)
        if self.settings.shared:
            return self.machine.expanded(self.settings.shared)
        return joined(self.machine.expanded(self.settings.folder), folder_name(self.workspace))

    @cached_property
    def mirror(self) -> Mirror | None:
        """The mirror there; None where both see the same files."""
        if self.settings.shared or not isinstance(self.machine, OverSsh):
            return None
        return Mirror(self.workspace, self.machine, self.root)

    def folder(self, job: Job) -> str:
        """The job's folder there."""
        return joined(self.root, "jobs", job.job_id)

    def python(self, *arguments: str) -> list[str]:
        """Arguments that start the target's interpreter there."""
        return python_command(self.machine, self.settings.python or "python3", self.settings.setup, arguments)

    # -- is it fit? -----------------------------------------------------------------------------------------------

    def check_version(self) -> Check:
        """Whether the interpreter there has this package, in this version.

        Raises:
            Unreachable: if the machine cannot be reached.
        """
        python = shlex.quote(self.settings.python or "python3")
        where = f"{self.name} ({self.machine.name})"
        install = f"install opadpo {__version__} there, and name its interpreter as `python` of the target {self.name}"
        ended = self.machine.run(self.python("-c", _VERSION))
        try:
            told = json.loads(ended.out.splitlines()[-1])
            seen = f"{told['opadpo']} on Python {told['python']} ({told['executable']})"
        except (IndexError, ValueError, KeyError, TypeError):
            said = ended.err.strip().splitlines()[-1:] or [f"exit status {ended.code}"]
            cost = "no job can run there"
            return Check(f"python on {where}", "missing", f"{python}: {said[0][:200]}", cost, install, required=True)
        if told["opadpo"] is None:
            cost = "no job can run there"
            seen = f"not installed for Python {told['python']} ({told['executable']})"
            return Check(f"opadpo on {where}", "missing", seen, cost, install, required=True)
        if told["opadpo"] != __version__:
            cost = f"here it is {__version__}: the two may not understand each other"
            return Check(f"opadpo on {where}", "missing", seen, cost, install, required=True)
        return Check(f"opadpo on {where}", "ok", seen, required=True)

    def check(self, recipe: Path | None) -> list[Check]:
        """Everything that `opadpo doctor` finds there, after the version of the package.

        Raises:
            Unreachable: if the machine cannot be reached.
        """
        version = self.check_version()
        checks = [version, self._check_disk()]
        if isinstance(self.machine, OverSsh) and self.mirror is not None:
            checks += [self._check_rsync(), self._check_shell()]
        if version.state != "ok":
            return checks
        options: list[str] = []
        path = joined(self.machine.expanded(SECRETS_FOLDER), f"recipe-{secrets.token_hex(8)}.yaml")
        if recipe is not None:
            self.machine.write(path, recipe.read_bytes())
            options = ["--recipe", path]
        try:
            ended = self.machine.run(self.python("-m", "opadpo", "doctor", "--json", *options), timeout=DOCTOR_SECONDS)
        finally:
            if recipe is not None:
                self.machine.run(["rm", "-f", "--", path])
        try:
            found = [Check(**each) for each in json.loads(ended.out.splitlines()[-1])["checks"]]
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise StepFailed(
                f"The doctor fails on {self.machine.name}", seen=ended.err.strip()[-500:] or ended.out[-500:]
            ) from error
        return checks + [each for each in found if not each.name.startswith(ASKED_HERE)]

    def _check_disk(self) -> Check:
        script = 'p=$1; while [ ! -d "$p" ]; do p=$(dirname "$p"); done; df -Pk "$p" | tail -n 1'
        fields = self.machine.done(["sh", "-c", script, "sh", self.root]).split()
        free = int(fields[3]) * 1024 / 2**30
        name, seen = f"disk on {self.machine.name}", f"{free:.1f} GiB free at {self.root}"
        if free < NEEDS_GIB:
            remedy = "free some space there, or name another `folder` in the target"
            return Check(name, "warning", seen, "a job may stop for lack of room", remedy)
        return Check(name, "ok", seen)

    def _check_rsync(self) -> Check:
        name = f"rsync on {self.machine.name}"
        ended = self.machine.run(["sh", "-c", "command -v rsync"])
        if ended.code == 0:
            return Check(name, "ok", ended.out.decode().strip())
        remedy = "install it there (apt-get install rsync), or name a shared file system"
        return Check(name, "missing", "not on the PATH", "nothing can be copied there", remedy, required=True)

    def _check_shell(self) -> Check:
        """Whether rsync gets through: unlike our own calls, it cannot tell a greeting from an answer."""
        name, said = f"shell on {self.machine.name}", self.machine.greeting
        if not said:
            return Check(name, "ok", "prints nothing by itself")
        cost, remedy = "nothing can be copied there", SILENT_SHELL.format(host=self.machine.name)
        return Check(name, "missing", f"prints {said.splitlines()[0][:80]!r} by itself", cost, remedy, required=True)

    def require_fit(self) -> None:
        """Refuse a machine on which no job of this package could run, before anything is copied.

        Raises:
            Unreachable: if it cannot be reached.
            DependencyMissing: if interpreter, package or version are not there.
        """
        found = self.check_version()
        if found.state == "missing":
            raise DependencyMissing(f"{found.name}: {found.cost}", seen=found.seen, remedy=found.remedy)

    # -- handing over ---------------------------------------------------------------------------------------------

    def stage(self, job: Job, folder: Path, progress: Progress) -> dict[str, Any]:
        """Copy what the job needs into staging folders there; the arrival that puts it in place.

        Raises:
            Unreachable, DiskFull, DependencyMissing: if nothing could be copied.
            UserError: if a step of the job cannot run there.
        """
        staged: dict[str, str] = {}
        if self.mirror is not None:
            check_steps(job, self.machine.name)
            self._require_base()
            staged = self.mirror.push(needed(self.workspace, job), progress)
            for name in job.runs:
                self.mirror.push_run(name, progress)
            give_back(self.mirror.machine, self.folder(job), folder, progress)
        pin = self.workspace.root / PIN_FILE
        files = [JOB_FILE, RECIPE_FILE, RESOLVED_FILE]
        return {
            "root": self.root,
            "recipe": (self.workspace.root / WORKSPACE_RECIPE).read_text(encoding="utf-8"),
            "pin": pin.read_text(encoding="utf-8") if self.mirror is not None and pin.exists() else None,
            "staged": staged,
            "job_id": job.job_id,
            "files": {name: (folder / name).read_text("utf-8") for name in files if (folder / name).exists()},
            "stale": [CANCEL_FILE],
            "start": False,
        }

    def _require_base(self) -> None:
        """Refuse a job whose base model is a folder that is not there, before anything is copied.

        Raises:
            ModelError: if it is not there.
        """
        base = self.workspace.recipe.model.base
        if not Path(base).expanduser().is_dir():
            return
        path = self.machine.expanded(base) if base.startswith("~") else str(Path(base).resolve())
        if self.machine.run(["test", "-d", path]).code != 0:
            raise ModelError(
                f"The base model is not on {self.machine.name}",
                seen=path,
                remedy="copy its folder to this path there, or name a hub id in model.base",
            )

    def arrive(self, arrival: dict[str, Any]) -> Job:
        """Let the machine take in what was staged; the job as it is there then.

        Raises:
            Unreachable: if the connection was lost: whether it was taken in is not known.
            UserError: if the machine cannot run it.
            StepFailed: if the runner did not start.
        """
        return Job.model_validate_json(self._call("opadpo.steps.arriving", arrival)["job"])

    def logs(self, job: Job, folder: Path, offset: int) -> bytes:
        """As `Target.logs`: what has come, then what has been added over there since."""
        here = logs.after(folder / LOG_FILE, offset)
        if here or self.mirror is None:
            return here
        return self.machine.read(joined(self.folder(job), LOG_FILE), offset) or b""

    def bring_checkpoints(self, job: Job, folder: Path) -> None:
        """Bring the newest checkpoint of a job that runs, if the target asks for that and it is not here yet."""
        step, path = last_checkpoint(folder), folder / BROUGHT_FILE
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        if self.mirror is None or not self.settings.checkpoints or job.terminal or step is None or known == str(step):
            return
        for name in job.runs:
            self.mirror.fetch_run(name, SilentProgress())
        atomic_write(path, str(step))

    def fetch(self, job: Job, progress: Progress) -> list[str]:
        """Bring runs and artefacts of a job; none where both see the same files."""
        if self.mirror is None:
            return []
        came = [f"runs/{name}" for name in job.runs if self.mirror.fetch_run(name, progress)]
        came += self.mirror.fetch(job.writes, progress)
        return [*came, *self._fetch_judgements(self.mirror, progress)] if "evaluate" in verbs(job) else came

    def _fetch_judgements(self, mirror: Mirror, progress: Progress) -> list[str]:
        """Take over what a judge answered there, so that nobody pays for it again; its file if any of it is new."""
        from opadpo.llm.store import RequestStore

        judge = self.workspace.judge_db
        name = str(judge.relative_to(self.workspace.root))
        there, staged = joined(self.root, name), f"{STAGING}/fetch--judge--{secrets.token_hex(4)}"
        if self.machine.run(["test", "-f", there]).code != 0:
            return []
        copies, here = joined(self.root, staged), self.workspace.root / staged
        try:
            # A state of one moment: another job there may be asking.
            self.machine.done(self.python("-c", _COPY_DATABASE, there, copies, judge.name))
            with disk_errors(here):
                mirror.machine.get(copies, here, progress)
            with RequestStore.open(judge) as store:
                return [name] if store.take_over(here / judge.name) else []
        finally:
            self.machine.run(["rm", "-rf", "--", copies])
            shutil.rmtree(here, ignore_errors=True)

    def _call(self, module: str, question: dict[str, Any]) -> dict[str, Any]:
        """Ask a module of this package there: JSON to its standard input, JSON back."""
        command = self.python("-m", module)
        ended = self.machine.run(command, stdin=json.dumps(question).encode(), timeout=ARRIVE_SECONDS)
        try:
            told = json.loads(ended.out.splitlines()[-1])
        except (IndexError, ValueError) as error:
            failed = explained(self.machine.name, ended.code, ended.err)
            raise failed if isinstance(failed, OpadpoError) else error from error
        if "error" in told:
            wrong = told["error"]
            kind = getattr(errors, wrong["kind"], StepFailed)
            raise kind(f"On {self.machine.name}: {wrong['what']}", seen=wrong["seen"], remedy=wrong["remedy"])
        return told

    def write_secrets(self, job: Job) -> str | None:
        """Hand the environment variables of the target on, by a file that only its owner can read; its path there.

        Raises:
            UserError: if one of them is not set here.
        """
        names: Sequence[str] = [*self.settings.env, *([job.webhook_env] if job.webhook_env else [])]
        missing = [name for name in self.settings.env if name not in os.environ]
        if missing:
            raise UserError(
                "An environment variable that the target hands on is not set here",
                seen=", ".join(missing),
                remedy=f"export it before you submit, or take it out of `env` of the target {self.name}",
            )
        values = {name: os.environ[name] for name in names if name in os.environ}
        if not values:
            return None
        folder = self.machine.expanded(SECRETS_FOLDER)
        path = joined(folder, f"{job.job_id}-{secrets.token_hex(8)}.json")
        self.machine.write(path, json.dumps(values).encode(), mode=0o600)
        return path

    def forget_secrets(self, path: str | None) -> None:
        """Delete what `write_secrets` has left and no runner will read."""
        if path is not None:
            self.machine.run(["rm", "-f", "--", path])
