"""Running commands and moving folders on this machine or on another one, over the OpenSSH client.

The `ssh` and `rsync` programs do the work, so that the user's configuration, agent, jump hosts and known hosts count
exactly as they do in a terminal. Nothing asks for a password, and the check of host keys is never loosened.
"""

import base64
import os
import re
import secrets
import shlex
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from opadpo.errors import DependencyMissing, StepFailed, Unreachable, UserError
from opadpo.jobs.connection_errors import explained, no_answer
from opadpo.progress import Progress

CALL_SECONDS = 60.0
"""How long a small call may take before its machine counts as gone."""
CONNECT_SECONDS = 15
ALIVE_SECONDS = 15
"""A connection that is silent is asked for a sign of life this often, and given up after three without one."""
STALLED_SECONDS = 120
"""A transfer during which nothing moves is given up."""
PIECE_BYTES = 2**23
"""Most that is read of one file in one call."""
LONGEST_SOCKETS = 25
"""Bytes of the folder's path: 108 is the most of a socket's, and ssh itself adds 75."""
SSH_FAILED = 255
RSYNC_VANISHED = 24
"""rsync: a file went away while it was read, as old checkpoints do."""

_HOST = re.compile(r"[A-Za-z0-9_.%@\[\]-]+")
_PERCENT_LINE = re.compile(rb"^\s*([\d,]+)\s+\d+%")
_TOTAL = re.compile(rb"^Total transferred file size: ([\d,]+)", re.MULTILINE)

_PIECES = """
for word in "$@"; do
    offset=${word%%:*}; word=${word#*:}; limit=${word%%:*}; path=${word#*:}
    if [ -f "$path" ] && size=$(wc -c < "$path") 2> /dev/null; then
        count=$((size - offset))
        [ "$count" -gt 0 ] || count=0
        [ "$count" -lt "$limit" ] || count=$limit
        printf 'file %d %d\\n' "$size" "$count"
        if [ "$count" -gt 0 ]; then
            { tail -c "+$((offset + 1))" "$path" 2> /dev/null; head -c "$count" /dev/zero; } | head -c "$count"
        fi
    else
        printf 'none 0 0\\n'
    fi
done
"""
"""Prints each file from an offset, with a header that says how many bytes follow.

A file that grows meanwhile, or goes, does not break the frame: what is missing is filled with zeros.
"""

_WRITE = """
umask 077; mkdir -p "$(dirname "$1")" && cat > "$1.$$" && chmod "$2" "$1.$$" && mv -f "$1.$$" "$1"
"""


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    """Its exit status."""
    out: bytes
    """Its standard output."""
    err: str
    """Its standard error."""


class Piece(NamedTuple):
    """A file from an offset to its end."""

    size: int
    """Of the whole file, bytes."""
    data: bytes
    """What it has after the offset, up to the limit."""


class Machine(ABC):
    """Somewhere that commands run."""

    name: str
    """For messages."""
    greeting = ""
    """What a shell there printed before the latest command could run."""

    @abstractmethod
    def run(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = CALL_SECONDS, cwd: str | None = None
    ) -> Ended:
        """Run an argument list and wait for its end; a command that fails is no error.

        Raises:
            Unreachable: if the machine cannot be reached, or does not answer in `timeout` seconds.
        """

    def done(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = CALL_SECONDS) -> bytes:
        """Standard output of a command that has to succeed.

        Raises:
            Unreachable: as `run`.
            DiskFull: if there was no room there.
            StepFailed: if it fails otherwise.
        """
        ended = self.run(command, stdin=stdin, timeout=timeout)
        if ended.code != 0:
            raise explained(self.name, ended.code, ended.err)
        return ended.out

    @cached_property
    def home(self) -> str:
        """The user's home folder there."""
        return self.done(["sh", "-c", 'printf %s "$HOME"']).decode()

    def expanded(self, path: str) -> str:
        """A path with `~` replaced."""
        return self.home + path[1:] if path == "~" or path.startswith("~/") else path

    def pieces(self, wanted: Mapping[str, int], limit: int = PIECE_BYTES) -> dict[str, Piece]:
        """Files (path -> offset to read from) in one call, of each at most `limit` bytes; one that is not there is not.

        They are read in the order in which they are named.
        """
        if not wanted:
            return {}
        words = [f"{offset}:{limit}:{path}" for path, offset in wanted.items()]
        out = self.done(["sh", "-c", _PIECES, "sh", *words])
        found = {}
        for path in wanted:
            header, _, out = out.partition(b"\n")
            kind, size, count = header.split()
            data, out = out[: int(count)], out[int(count) :]
            if kind == b"file":
                found[path] = Piece(int(size), data)
        return found

    def read(self, path: str, offset: int = 0) -> bytes | None:
        """A file's bytes after `offset`; None if it is not there."""
        piece = self.pieces({path: offset}).get(path)
        return piece.data if piece else None

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file whole or not at all, with the folders above it."""
        self.done(["sh", "-c", _WRITE, "sh", path, f"{mode:o}"], stdin=content)


class Here(Machine):
    """This machine."""

    name = "this machine"

    def run(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = CALL_SECONDS, cwd: str | None = None
    ) -> Ended:
        """Run an argument list.

        Raises:
            DependencyMissing: if there is no such program.
            StepFailed: if it does not end in `timeout` seconds.
        """
        try:
            ended = subprocess.run(list(command), input=stdin, capture_output=True, timeout=timeout, cwd=cwd)
        except FileNotFoundError as error:
            raise DependencyMissing(
                f"{command[0]} is not on this machine", seen=error.filename, remedy="install it, or correct the PATH"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"{command[0]} does not end", seen=f"{timeout:.0f} s") from error
        return Ended(ended.returncode, ended.stdout, ended.stderr.decode(errors="replace"))


class OverSsh(Machine):
    """Another machine, by the OpenSSH client; its calls share one connection."""

    def __init__(self, host: str, config: str | None = None) -> None:
        """`host` is an alias of the client's configuration or user@host; `config` another configuration file.

        Raises:
            UserError: if `host` cannot be one.
        """
        if not _HOST.fullmatch(host) or host.startswith("-"):
            raise UserError(
                "A host name has characters that are not allowed",
                seen=repr(host),
                remedy="use an alias of ~/.ssh/config, or user@host (a port belongs into ~/.ssh/config)",
            )
        self.name = host
        self._config = ["-F", str(Path(config).expanduser())] if config else []

    @cached_property
    def _ssh(self) -> list[str]:
        """The client with its options; what the user's configuration says about a shared connection stands."""
        try:
            asked = subprocess.run(["ssh", *self._config, "-G", "--", self.name], capture_output=True, timeout=20)
        except FileNotFoundError as error:
            raise DependencyMissing(
                "ssh is not on this machine", seen="ssh", remedy="apt-get install openssh-client"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise no_answer(self.name, 20) from error
        if asked.returncode != 0:
            raise explained(self.name, SSH_FAILED, asked.stderr.decode(errors="replace"))
        theirs = dict(line.split(" ", 1) for line in asked.stdout.decode(errors="replace").splitlines() if " " in line)
        # What the configuration says for terminals must not get in the way of commands.
        options = ["BatchMode=yes", "RemoteCommand=none", "ClearAllForwardings=yes"]
        if theirs.get("controlpath", "none") == "none":
            options += ["ControlMaster=auto", f"ControlPath={_sockets()}/%C", "ControlPersist=60"]
        if theirs.get("serveraliveinterval", "0") == "0":
            options += [f"ServerAliveInterval={ALIVE_SECONDS}", "ServerAliveCountMax=3"]
        if theirs.get("connecttimeout", "none") == "none":
            options.append(f"ConnectTimeout={CONNECT_SECONDS}")
        return ["ssh", *self._config, "-T", *(word for option in options for word in ("-o", option))]

    def run(
        self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = CALL_SECONDS, cwd: str | None = None
    ) -> Ended:
        """Run an argument list there, each argument as it is, whatever the login shell is and prints."""
        line = shlex.join(command)
        if cwd is not None:
            line = f"cd {shlex.quote(cwd)} && {line}"
        mark = f"opadpo-{secrets.token_hex(8)}"
        coded = base64.b64encode(line.encode()).decode()
        # Nothing in it means anything to sh, csh or fish; sh itself then reads the line, whose output the marks begin.
        line = f"sh -c 'echo {mark}; echo {mark} >&2; eval \"$(echo {coded} | base64 -d)\"'"
        try:
            ended = subprocess.run(
                [*self._ssh, "--", self.name, line], input=stdin, capture_output=True, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise no_answer(self.name, timeout) from error
        begin = f"{mark}\n".encode()
        greeting, began, out = ended.stdout.partition(begin)
        before, _, err = ended.stderr.partition(begin)
        said = (err if began else before).decode(errors="replace")
        if ended.returncode == SSH_FAILED:
            raise explained(self.name, SSH_FAILED, said)
        self.greeting = greeting.decode(errors="replace").strip()
        return Ended(ended.returncode, out, said)

    def close(self) -> None:
        """End the shared connection, if there is one."""
        subprocess.run([*self._ssh, "-O", "exit", "--", self.name], capture_output=True, timeout=20)

    def put(self, source: Path, there: str, progress: Progress, *options: str) -> int:
        """Copy what is in a folder into one there, only what differs; returns the bytes that went.

        What an interrupted copy has brought is not brought again. Links are not followed and not copied.

        Raises:
            Unreachable: if the machine cannot be reached, or nothing moves any more.
            DiskFull: if there is no room there.
            DependencyMissing: if rsync is missing here or there.
        """
        return self._copy(f"{source}/", f"{self.name}:{there}/", f"Sending to {self.name} (bytes)", progress, options)

    def get(self, there: str, destination: Path, progress: Progress, *options: str) -> int:
        """Copy what is in a folder there into one here; as `put`."""
        destination.mkdir(parents=True, exist_ok=True)
        what = f"Fetching from {self.name} (bytes)"
        return self._copy(f"{self.name}:{there}/", f"{destination}/", what, progress, options)

    def _copy(self, source: str, destination: str, what: str, progress: Progress, options: Sequence[str]) -> int:
        shell = " ".join(_rsync_word(word) for word in self._ssh)
        command = ["rsync", "-rpt", "-s", "--partial", f"--timeout={STALLED_SECONDS}", "-e", shell, *options]
        ends = ["--", source, destination]
        planned = b"".join(self._rsync([*command, "--dry-run", "--stats", *ends]))
        match = _TOTAL.search(planned)
        total = int(match[1].replace(b",", b"")) if match else 0
        seen = 0
        with progress.task(what, total) as task:
            for line in self._rsync([*command, "--info=progress2", "--no-inc-recursive", *ends]):
                if moved := _PERCENT_LINE.match(line):
                    now = min(int(moved[1].replace(b",", b"")), total)
                    task.advance(max(0, now - seen))
                    seen = max(seen, now)
            task.advance(total - seen)
        return total

    def _rsync(self, command: Sequence[str]) -> Iterator[bytes]:
        """Lines of rsync's output; they end in carriage returns where it shows how far it is."""
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                    env={**os.environ, "LC_ALL": "C"},
                )  # fmt: skip
            except FileNotFoundError as error:
                raise DependencyMissing(
                    "rsync is not on this machine", seen="rsync", remedy="apt-get install rsync"
                ) from error
            assert process.stdout is not None
            try:
                rest = b""
                while part := os.read(process.stdout.fileno(), 65536):
                    *lines, rest = (rest + part).replace(b"\r", b"\n").split(b"\n")
                    yield from (line + b"\n" for line in lines)
                yield rest
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                process.stdout.close()
            errors.seek(0)
            if code not in (0, RSYNC_VANISHED):
                raise explained(self.name, code, errors.read().decode(errors="replace"), program="rsync")


def python_command(machine: Machine, python: str, setup: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Arguments for the interpreter of a machine, after the lines of shell that set it up."""
    command = [machine.expanded(python), *arguments]
    if not setup:
        return command
    return ["bash", "-lc", "\n".join([*setup, 'exec "$@"']), "bash", *command]


def joined(folder: str, *names: str) -> str:
    """A path there."""
    return str(PurePosixPath(folder, *names))


def _rsync_word(word: str) -> str:
    """A word for rsync's `-e`, which knows quotes but no backslashes."""
    return "'" + word.replace("'", "''") + "'" if re.search(r"[\s'\"]", word) else word


def _sockets() -> Path:
    """A private folder with a short path: the sockets of shared connections lie in it.

    Raises:
        UserError: if somebody else has made it.
    """
    private = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")
    if not private.is_dir() or len(os.fsencode(private)) > LONGEST_SOCKETS:
        private = Path("/tmp")
    folder = private / f"opadpo-ssh-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if folder.is_symlink() or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        raise UserError(
            "The folder for shared ssh connections is not private", seen=folder, remedy="remove it, and try again"
        )
    return folder


__all__ = ["Ended", "Here", "Machine", "OverSsh", "Piece", "Unreachable", "joined", "python_command"]
