"""A real sshd for tests: on loopback, with keys, configuration and a home folder of its own, ended with the tests."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
from free_ports import free_ports

ROOT = Path(__file__).parents[1]
SSHD = "/usr/sbin/sshd"
ALIAS = "node"
"""What the client's configuration calls the server."""


class SshServer:
    """A server, and what a client needs to reach it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Keys and configuration go into `folder`; `environment` is what sessions there get."""
        self.folder = folder
        self.home = folder / "home there"
        """`$HOME` of the sessions: a name with a space, as some have."""
        self.client_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.key = folder / "key"
        (self.port,) = free_ports(1)
        self._server: subprocess.Popen[bytes] | None = None
        self._sessions: set[int] = set()
        self.home.mkdir()
        for name in ("host_key", "key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", folder / name], check=True
            )
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        self.trust(folder / "host_key.pub")
        self._write_configuration({"HOME": str(self.home), **environment})

    def _write_configuration(self, environment: Mapping[str, str]) -> None:
        words = " ".join(f'"{name}={value}"' for name, value in environment.items())
        (self.folder / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.folder}/host_key
AuthorizedKeysFile {self.folder}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
MaxStartups 100:30:200
MaxSessions 100
SetEnv {words}
Subsystem sftp internal-sftp
"""
        )
        self.client_config.write_text(
            f"""Host {ALIAS}
    HostName 127.0.0.1
    Port {self.port}
    IdentityFile {self.key}
    IdentitiesOnly yes
    UserKnownHostsFile {self.known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
"""
        )

    def trust(self, public_key: Path) -> None:
        """Let the client know the server by this key only."""
        kind, key, *_ = public_key.read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> None:
        """Listen, again after `stop` too, on the same port."""
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen([SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._server.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "sshd does not listen"
                time.sleep(0.02)

    def refuse(self) -> None:
        """Listen no more; open connections stay."""
        if self._server is None:
            return
        self._sessions |= {process.pid for process in self.connections()}
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(60)
        self._server = None

    def cut(self) -> int:
        """End every open connection from the server's side; what runs there stays. Returns how many there were."""
        connections = self.connections()
        for process in connections:
            _kill(process)
        self._sessions.clear()
        return len(connections)

    def stop(self) -> None:
        """End the server and every connection."""
        connections = self.connections()
        self.refuse()
        for process in connections:
            _kill(process)
        self._sessions.clear()

    def connections(self) -> list[psutil.Process]:
        """Processes that serve a connection: children of the server, or of one that has gone."""
        found: list[psutil.Process] = []
        for pid in self._sessions:
            if psutil.pid_exists(pid):
                found.append(psutil.Process(pid))
        if self._server is not None:
            found += psutil.Process(self._server.pid).children()
        nested = [below for process in found for below in _children(process)]
        return [process for process in (*nested, *found) if _name(process).startswith("sshd")]


@contextmanager
def running(environment: Mapping[str, str] | None = None) -> Iterator[SshServer]:
    """A server that runs meanwhile; `environment` is given to the sessions there."""
    folder = Path(tempfile.mkdtemp(prefix="opadpo-sshd-", dir="/tmp"))
    server = SshServer(folder, environment or {})
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """What sessions there need to find this package."""
    return {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def script(path: Path, *lines: str) -> Path:
    """An executable shell script."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def bare_python(path: Path, python: str) -> Path:
    """A Python that has none of the packages: a node that was never set up."""
    return script(path, f'exec {shlex.quote(python)} -I -S "$@"')


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
