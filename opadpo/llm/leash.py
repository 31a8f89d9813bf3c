"""`python -m opadpo.llm.leash COMMAND...`: run a server that must not outlive the one who started it.

The starter keeps a pipe to standard input open. When it closes, because the starter is done or was killed in
whatever way, the process group of this program ends: politely first, then not.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

_PATIENCE_SECONDS = 5.0


def main(command: Sequence[str]) -> int:
    """Run `command` until it ends or standard input closes; returns its exit status."""
    # SIGTERM to the group is meant for the server: this process stays to see it end. A handler, unlike SIG_IGN, is
    # not inherited by the server.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", flush=True)
        return 127
    threading.Thread(target=_end_with_starter, args=(server,), daemon=True).start()
    status = server.wait()
    return status if status >= 0 else 128 - status


def _end_with_starter(server: "subprocess.Popen[bytes]") -> None:
    # Not sys.stdin: its lock, held by this thread, would abort the interpreter's own end.
    while os.read(0, 1):
        pass
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    try:
        server.wait(_PATIENCE_SECONDS)
    finally:
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
