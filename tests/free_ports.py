"""Ports for servers that have to be told theirs before they start."""

import random
import socket
from contextlib import ExitStack, suppress

NEVER_GIVEN = range(10_000, 20_000)
"""Below those that the system gives to whoever asks for any: none of these is taken while its server is away."""


def free_ports(count: int) -> list[int]:
    """Ports at which nobody listens."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            tried = stack.enter_context(socket.socket())
            with suppress(OSError):
                tried.bind(("127.0.0.1", random.SystemRandom().choice(NEVER_GIVEN)))
                found.append(tried.getsockname()[1])
        return found
