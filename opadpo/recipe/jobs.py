"""Settings of jobs: where long work runs, when to raise an alarm, whom to tell at the end."""

from typing import Literal

from opadpo.recipe.base import Section, setting

AlarmKind = Literal["not_finite", "exploding", "rewards_falling", "gpu_idle", "disk_full", "no_progress"]

LOCAL = "local"
"""The target that is always there: this machine."""


class TargetSection(Section):
    """A place where jobs run; give each a name of your own."""

    kind: Literal["local", "ssh", "slurm"] = setting(
        "local",
        "`local`: this machine; `ssh`: another one, by OpenSSH with its configuration and agent; `slurm`: a cluster, by"
        " sbatch.",
        outcome=False,
    )
    host: str | None = setting(
        None,
        "ssh: the machine, an alias of ~/.ssh/config or USER@HOST. slurm: the login node; none: sbatch runs on this"
        " machine.",
        outcome=False,
    )
    ssh_config: str | None = setting(
        None, "A file to read instead of ~/.ssh/config and the system's configuration of ssh.", outcome=False
    )
    folder: str = setting(
        "~/opadpo-workspaces", "Folder on the machine below which workspaces are mirrored.", outcome=False, min_length=1
    )
    shared: bool | str | None = setting(
        None,
        "Whether the machine sees this workspace on a shared file system: `true` at the same path, or the path there."
        " Else what a job needs is copied there and its results are brought back.",
        outcome=False,
    )
    python: str | None = setting(
        None,
        "The interpreter there that has this package; none: python3, on this machine the running one.",
        outcome=False,
    )
    setup: list[str] = setting(
        [], "Lines of shell before the interpreter starts there, for example [module load cuda].", outcome=False
    )
    gpus: list[int] | int | None = setting(
        None,
        "GPUs of a job: their indexes, or how many (whichever are free; 0: the CPU). none: all of the machine,"
        " or the CPU where it has none.",
        outcome=False,
    )
    env: list[str] = setting(
        [],
        "Names of environment variables that are handed on to the machine, for example [OPENAI_API_KEY]; their values"
        " are never written into the job.",
        outcome=False,
    )
    partition: str | None = setting(None, "slurm: the partition; none: the cluster's default.", outcome=False)
    account: str | None = setting(None, "slurm: the account that pays.", outcome=False)
    qos: str | None = setting(None, "slurm: quality of service.", outcome=False)
    nodes: int = setting(1, "slurm: number of nodes.", outcome=False, ge=1)
    gpus_per_node: int | None = setting(
        None, "slurm: GPUs of each node; none: as `gpus`, if that is a number.", outcome=False, ge=0
    )
    cpus_per_task: int | None = setting(None, "slurm: cores of each node's task.", outcome=False, ge=1)
    memory: str | None = setting(None, "slurm: memory of each node, as in `64G`.", outcome=False)
    time: int | None = setting(None, "slurm: longest run in minutes.", outcome=False, ge=1)
    extra: list[str] = setting(
        [], "slurm: further options of sbatch, one a line, for example [--exclude=node7].", outcome=False
    )
    grace_seconds: float = setting(
        60.0,
        "Seconds that a cancelled job has for saving a checkpoint before its processes are killed.",
        outcome=False,
        ge=0,
        le=3600,
    )
    checkpoints: bool = setting(
        False, "Bring checkpoints back while the job runs, not only its results at the end.", outcome=False
    )

    @property
    def mirrored(self) -> bool:
        """Whether jobs run in a copy of the workspace on another machine."""
        return not self.shared and (self.kind == "ssh" or (self.kind == "slurm" and self.host is not None))


class AlarmsSection(Section):
    """What is told about a job before the night is lost."""

    exploding_factor: float = setting(
        4.0, "Alarm when the loss is this many times its running median; 0: never.", outcome=False, ge=0
    )
    falling_steps: int = setting(
        20,
        "Alarm when the rewards of chosen and rejected responses fall together over this many updates; 0: never.",
        outcome=False,
        ge=0,
    )
    idle_minutes: float = setting(
        10.0, "Alarm when the GPUs are idle this many minutes; 0: never.", outcome=False, ge=0
    )
    idle_below: float = setting(5.0, "A GPU below this utilisation (percent) is idle.", outcome=False, ge=0, le=100)
    disk_free_gb: float = setting(
        2.0, "Alarm when the workspace's disk has less room than this (10⁹ bytes).", outcome=False, ge=0
    )
    no_progress_minutes: float = setting(
        30.0, "Alarm when a job has done nothing countable this many minutes; 0: never.", outcome=False, ge=0
    )
    stop_on: list[AlarmKind] = setting(
        [], "Alarms that stop the job, after it has saved a checkpoint; for example [not_finite].", outcome=False
    )


class JobsSection(Section):
    """Where long work runs, and what is told about it."""

    target: str = setting(LOCAL, "Where jobs run that name no other place.", outcome=False)
    targets: dict[str, TargetSection] = setting(
        {},
        "Places where jobs run, by names of your own. `local`, this machine, is always there; name it to change its"
        " settings.",
        outcome=False,
    )
    alarms: AlarmsSection = setting(AlarmsSection(), "When to raise an alarm.", outcome=False)
    webhook_env: str | None = setting(
        None,
        "Environment variable that holds the address to which a job's end is posted (JSON), for a chat or a pager.",
        outcome=False,
    )

    def named(self) -> dict[str, TargetSection]:
        """All targets by name, `local` first."""
        return {LOCAL: TargetSection(), **self.targets}
