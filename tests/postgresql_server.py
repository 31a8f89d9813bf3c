"""A PostgreSQL server for tests: its own data folder, on loopback, ended with the tests."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DATABASE = "postgres"


def programs() -> Path | None:
    """The folder of the newest server's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def running() -> Iterator[str]:
    """URL of a server that runs meanwhile. It refuses to run as root: then as another user, without any rights."""
    folder = programs()
    assert folder is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="opadpo-postgresql-", dir="/tmp"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
    data, log = home / "data", home / "log"
    try:
        command = [folder / "initdb", "-D", data, "-U", "opadpo", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(command, check=True, capture_output=True, cwd=home, **user)
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": 80,
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [folder / "postgres", "-D", data, "-p", str(port), *words],
                stdout=stream, stderr=stream, cwd=home, **user,
            )  # fmt: skip
        try:
            _wait(port, server, log)
            yield f"postgresql://opadpo@127.0.0.1:{port}/{DATABASE}"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for every client to go
            server.wait(60)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[Any], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 120
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="opadpo", dbname=DATABASE).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start: {log.read_text()}") from None
            time.sleep(0.05)
