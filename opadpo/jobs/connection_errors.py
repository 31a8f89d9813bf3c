"""What the messages of ssh and rsync mean, and what to do about each."""

import re
from typing import NamedTuple

from opadpo.errors import DependencyMissing, DiskFull, OpadpoError, StepFailed, Unreachable

SSH_FAILED = 255
COMMAND_NOT_FOUND = 127
RSYNC_NOT_WRITTEN = 11
"""Exit status of rsync after an error in file I/O."""
SILENT_SHELL = (
    "let ~/.bashrc there print nothing in a shell that is not interactive; `ssh {host} true` then prints nothing"
)
"""What to do about a shell that greets."""


MORE_SPACE = (
    "free some space there (or here, when fetching), or name another `folder` in the target; what was copied stays"
)
"""What to do about a full disk."""


class _Meaning(NamedTuple):
    pattern: str
    what: str
    remedy: str
    kind: type[OpadpoError] = Unreachable


_CONNECTING = (
    _Meaning(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        "The key of {host} is another one than it was",
        "if the machine was set up anew, remove its old key with `ssh-keygen -R HOST`, check the new one with its"
        " administrators, and connect once with ssh; else somebody may be in between",
    ),
    _Meaning(
        r"Host key verification failed|No .* host key is known",
        "The key of {host} is not known here",
        "connect once with `ssh {host}`, compare the fingerprint that it shows with the machine's, and accept it",
    ),
    _Meaning(
        r"Could not resolve hostname|Name or service not known|Temporary failure in name resolution",
        "There is no machine of this name: {host}",
        "correct `host` of the target, or add it to ~/.ssh/config; is the network (or the VPN) up?",
    ),
    _Meaning(
        r"Permission denied \(|Permission denied, please|Too many authentication failures|no mutual signature",
        "{host} does not let you in",
        "no password is asked for here: load your key into the agent (`ssh-add`), add its public part there"
        " (`ssh-copy-id {host}`), or name it as IdentityFile in ~/.ssh/config; `ssh {host}` then asks nothing",
    ),
    _Meaning(
        r"Connection refused",
        "{host} refuses connections",
        "is sshd running there, and are host and port right (~/.ssh/config)? A job that runs there goes on",
    ),
    _Meaning(
        r"timed? ?out|No route to host|Network is unreachable|not responding|Operation now in progress",
        "{host} does not answer",
        "is it up, and is the network (or the VPN) there? Through a gateway: ProxyJump in ~/.ssh/config. A job that"
        " runs there goes on",
    ),
    _Meaning(
        r"Bad (configuration|owner)|Can't open user config|terminating, \d+ bad configuration|unsupported option",
        "The configuration of ssh is wrong",
        "correct the file that the message names",
    ),
    _Meaning(
        r"closed by|reset by|Broken pipe|send disconnect|kex_exchange_identification|read from master|"
        r"connection unexpectedly closed|Connection closed|error in rsync protocol data stream",
        "The connection to {host} was lost",
        "try again; a job that runs there goes on, and what was copied is not copied again",
    ),
)

_THERE = (
    _Meaning(
        r"No space left on device|Disk quota exceeded",
        "No space is left for a copy between here and {host}",
        MORE_SPACE,
        DiskFull,
    ),
    _Meaning(
        r"rsync: (command )?not found|rsync: No such file|command not found: rsync|rsync.*: not found",
        "rsync is not on {host}",
        "install it there (apt-get install rsync), or name a shared file system (`shared` of the target)",
        DependencyMissing,
    ),
    _Meaning(
        r"is your shell clean|protocol version mismatch",
        "The shell of {host} prints something when it starts",
        SILENT_SHELL,
    ),
    _Meaning(
        r"Permission denied|Read-only file system|cannot create directory|Not a directory",
        "{host} does not let you write there",
        "name another `folder` in the target, or correct who owns it",
        StepFailed,
    ),
)


def explained(host: str, code: int, err: str, *, program: str = "ssh") -> OpadpoError:
    """The error for a call that failed with this exit status and these messages."""
    # A lost connection makes rsync complain about everything else too, so what the other side said comes first.
    connecting = code == SSH_FAILED or (program == "rsync" and code in (10, 12, 30, 35, 255))
    meanings = (*_THERE[:3], *_CONNECTING) if connecting else _THERE
    for meaning in meanings:
        if re.search(meaning.pattern, err, re.IGNORECASE):
            return meaning.kind(
                meaning.what.format(host=host),
                seen=_shown(err, meaning.pattern),
                remedy=meaning.remedy.format(host=host),
            )
    if program == "rsync" and code == RSYNC_NOT_WRITTEN:
        # The other side may have said why, and ended before its words had come.
        return DiskFull(
            f"A copy between here and {host} could not be written",
            seen=f"{_shown(err)} (exit status {code}, mostly for lack of space)".strip(),
            remedy=MORE_SPACE,
        )
    if connecting:
        return Unreachable(
            f"{host} cannot be reached", seen=_shown(err) or f"{program} ended with {code}", remedy=f"try `ssh {host}`"
        )
    return StepFailed(f"A command failed on {host}", seen=f"{_shown(err)} (exit status {code})".strip())


def no_answer(host: str, seconds: float) -> Unreachable:
    """The error for a machine that was silent for too long."""
    return Unreachable(
        f"{host} does not answer",
        seen=f"nothing for {seconds:.0f} s",
        remedy="is the network there? A job that runs there goes on; try again",
    )


def _shown(err: str, pattern: str = "") -> str:
    """The line that matters of some messages, else the last ones."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    hits = [line for line in lines if pattern and re.search(pattern, line, re.IGNORECASE)]
    return (hits[0] if hits else " / ".join(lines[-2:]))[:300]
