"""A real Slurm for tests: munged, slurmctld and the slurmd of two nodes on this machine, on ports of their own.

The first node has a GPU that is none: a device node stands for it. All run as the user of the tests, and end with them.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from free_ports import free_ports

NODES = ("node1", "node2")
"""Both on this machine, as a Slurm that was built with MULTIPLE_SLURMD allows; Debian's was."""
PARTS = ("munged", "slurmctld", *NODES)
PARTITIONS = ("main", "short", "closed")
"""`main` runs anything, `short` ends jobs after a minute, `closed` never starts one."""
CPUS = 8


class SlurmCluster:
    """A cluster of two nodes, the first with a GPU."""

    def __init__(self, folder: Path) -> None:
        """Keys, configuration, state and logs go into `folder`."""
        self.folder = folder
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "logs"):
            (folder / name).mkdir()
        _make_device(folder / "gpu0")
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        self._write_configuration()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def _write_configuration(self) -> None:
        host = socket.gethostname().partition(".")[0]
        user = pwd.getpwuid(os.getuid()).pw_name
        controller, *ports = free_ports(1 + len(NODES))
        limits = {"main": "INFINITE", "short": "1", "closed": "INFINITE"}
        partitions = "\n".join(
            f"PartitionName={name} Nodes={','.join(NODES)} MaxTime={limits[name]} DefaultTime={limits[name]}"
            f" Default={'YES' if name == 'main' else 'NO'} State={'DOWN' if name == 'closed' else 'UP'}"
            for name in PARTITIONS
        )
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Boards=1"
            f" SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory=1000"
            f"{' Gres=gpu:1' if name == NODES[0] else ''} State=UNKNOWN"
            for name, port in zip(NODES, ports, strict=True)
        )
        (self.folder / "slurm.conf").write_text(
            f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldLogFile={self.folder}/logs/slurmctld
SlurmdLogFile={self.folder}/logs/%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
KillWait=3
MessageTimeout=100
TCPTimeout=30
BatchStartTimeout=120
OverTimeLimit=0
MinJobAge=300
ReturnToService=2
SlurmdTimeout=0
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
{partitions}
"""
        )
        (self.folder / "gres.conf").write_text(
            f"AutoDetect=off\nNodeName={NODES[0]} Name=gpu File={self.folder}/gpu0\n"
        )

    def start(self) -> None:
        """Start all parts and wait until the nodes are idle."""
        munge = self.folder / "munge"
        self._start(
            "munged", "--foreground", "--force", f"--key-file={munge}.key", f"--socket={munge}.socket",
            f"--pid-file={munge}.pid", f"--log-file={munge}.log", f"--seed-file={munge}.seed", "--num-threads=2",
        )  # fmt: skip
        self._until(lambda: (self.folder / "munge.socket").exists(), "munged makes no socket")
        self._start("slurmctld", "-D", "-c")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node, name=node)
        self._until(self._idle, "the nodes do not become idle")

    def _idle(self) -> bool:
        states = self.ask("sinfo", "--noheader", "--Node", f"--partition={PARTITIONS[0]}", "--format=%t").split()
        return states == ["idle"] * len(NODES)

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert found, f"{program} is not installed"
        name = name or program
        with (self.folder / "logs" / f"{name}.out").open("ab") as log:
            self._parts[name] = subprocess.Popen(
                [found, *arguments], stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def ask(self, *command: str) -> str:
        """What a Slurm command prints; empty if it fails."""
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.environment})
        return ended.stdout.strip() if ended.returncode == 0 else ""

    def state(self, job: str) -> str:
        """`PENDING`, `RUNNING`, ... of a job; empty if it is forgotten."""
        return self.ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def wait_for(self, job: str, *states: str, seconds: float = 120) -> str:
        """Wait until a job has one of these states."""
        self._until(lambda: self.state(job) in states, f"job {job} does not become {' or '.join(states)}", seconds)
        return self.state(job)

    def end_part(self, name: str) -> None:
        """End one of them."""
        part = self._parts.pop(name, None)
        if part is None:
            return
        part.send_signal(signal.SIGTERM)
        try:
            part.wait(30)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait(30)

    def stop(self) -> None:
        """End what still runs of the jobs, then all parts."""
        self.ask("scancel", "--full", "--signal=KILL", f"--user={pwd.getpwuid(os.getuid()).pw_name}")
        left = self._steps()
        for name in reversed(PARTS):
            self.end_part(name)
        for process in left:
            if process.is_running():
                process.kill()

    def _steps(self) -> list[psutil.Process]:
        """`slurmstepd` processes of this cluster's nodes: they detach from slurmd."""
        found = []
        for process in psutil.process_iter(["name"]):
            try:
                if process.name().startswith("slurmstepd") and str(self.folder) in " ".join(process.environ().values()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _until(self, true: Callable[[], bool], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"{what}\n{self._logs()}"
            time.sleep(0.05)

    def _logs(self) -> str:
        texts = [
            f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in (self.folder / "logs").iterdir()
        ]
        return "\n".join(texts)


@contextmanager
def running() -> Iterator[SlurmCluster]:
    """A cluster that runs meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="opadpo-slurm-", dir="/tmp"))
    folder.chmod(0o755)  # munged wants its socket reachable
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_device(path: Path) -> None:
    """What Slurm takes for a GPU's device file. Who may not make one uses the null device itself."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        path.symlink_to(os.devnull)
