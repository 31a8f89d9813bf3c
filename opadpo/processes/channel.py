"""What the processes of a team tell each other: orders, work items and events, in a key-value store on the network.

The store is PyTorch's own (`TCPStore`), the one over which the processes find each other for training. Like any
launcher's it takes whatever reaches its port: a cluster's nodes are to be reached from the cluster only.
"""

import json
import os
import socket
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from opadpo.errors import StepFailed

if TYPE_CHECKING:
    from torch.distributed import TCPStore

HOSTED_VARIABLE = "TORCHELASTIC_USE_AGENT_STORE"
"""`True` where the store is there already, so that PyTorch lets no process make a second one."""
_LARGEST = 8 * 2**20 - 1024
_PATIENCE = timedelta(minutes=5)
_EVENTS, _ITEMS, _END, _LEFT = "opadpo/events", "opadpo/items", "opadpo/end", "opadpo/left"
_STOP = "opadpo/stop"


class Channel:
    """One connection to the store of a team. Not for two threads: each takes its own."""

    def __init__(self, store: "TCPStore") -> None:
        """Use `host`, `host_here` or `join`."""
        self._store = store

    @classmethod
    def host(cls) -> "Channel":
        """Make the store at `MASTER_ADDR`:`MASTER_PORT`, unless the launcher has; this process keeps it alive."""
        if os.environ.get(HOSTED_VARIABLE) == "True":
            return cls.join()
        from torch.distributed import DistNetworkError, TCPStore

        address, port = _address()
        try:
            store = TCPStore(address, port, is_master=True, wait_for_workers=False, timeout=_PATIENCE)
        except DistNetworkError as error:
            raise StepFailed(
                "The processes cannot meet",
                seen=f"MASTER_ADDR {address}, MASTER_PORT {port}: {str(error).splitlines()[0]}",
                remedy="the first process must run on MASTER_ADDR, and MASTER_PORT must be free there",
            ) from error
        return cls(store)

    @classmethod
    def host_here(cls) -> tuple["Channel", dict[str, str]]:
        """Make a store that only this machine can reach; also what its processes need in their environment."""
        from torch.distributed import TCPStore

        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
        return cls(store), {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    @classmethod
    def join(cls) -> "Channel":
        """Connect to the store; waits minutes for it to come.

        Raises:
            StepFailed: if it does not.
        """
        from torch.distributed import DistError, TCPStore

        address, port = _address()
        try:
            return cls(TCPStore(address, port, is_master=False, timeout=_PATIENCE))
        except DistError as error:
            raise StepFailed(
                "The first process cannot be reached",
                seen=f"MASTER_ADDR {address}, MASTER_PORT {port}: {str(error).splitlines()[0]}",
                remedy="see what the first process says, and that its node can be reached at that address",
            ) from error

    # -- orders, from the owner to every process ------------------------------------------------------------------

    def order(self, number: int, order: dict[str, str]) -> None:
        """Give every process something to do."""
        self._store.set(f"opadpo/order/{number}", json.dumps(order))

    def ordered(self, number: int) -> dict[str, str] | None:
        """That order, once it is there."""
        key = f"opadpo/order/{number}"
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def end(self, status: int) -> None:
        """Nothing more will be ordered; a status other than 0 ends processes in the middle of their work."""
        self._store.set(_END, str(status))

    def ended(self) -> int | None:
        """The status, once there is one."""
        return int(self._store.get(_END)) if self._store.check([_END]) else None

    def ask_to_stop(self, number: int) -> None:
        """Ask every process to stop at its next good moment, for this signal."""
        self._store.set(_STOP, str(number))

    def asked_to_stop(self) -> int:
        """The signal; 0 while nobody has asked."""
        return int(self._store.get(_STOP)) if self._store.check([_STOP]) else 0

    def leave(self) -> int:
        """Say that this process needs the store no more; returns how many have said so."""
        return self._store.add(_LEFT, 1)

    def have_left(self) -> int:
        """How many processes need the store no more."""
        return self._store.add(_LEFT, 0)

    # -- work items, each for whoever takes it first, and events, from any process to the owner ---------------------

    def offer(self, item: Any) -> None:
        """Put an item where the next process that is free takes it."""
        self._push(_ITEMS, item)

    def take(self) -> Any | None:
        """An item that nobody else gets, or None if there is none now."""
        return self._pop(_ITEMS)

    def tell(self, **event: Any) -> None:
        """Tell the owner of the team something."""
        self._push(_EVENTS, event)

    def heard(self) -> Iterator[dict[str, Any]]:
        """What was told since the last time, in order."""
        while (event := self._pop(_EVENTS)) is not None:
            yield event

    def _push(self, queue: str, value: Any) -> None:
        data = zlib.compress(json.dumps(value, ensure_ascii=False).encode(), 1)
        if len(data) > _LARGEST:
            raise StepFailed(
                "A message between processes is too large",
                seen=f"{len(data)} bytes",
                remedy="lower batch_size of the step",
            )
        self._store.queue_push(queue, data)  # pyright: ignore[reportArgumentType]

    def _pop(self, queue: str) -> Any | None:
        from torch.distributed import QueueEmptyError

        try:
            return json.loads(zlib.decompress(self._store.queue_pop(queue, False)))
        except QueueEmptyError:
            return None


def _address() -> tuple[str, int]:
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not address or not port.isdigit():
        raise StepFailed(
            "Several processes were started, but not told where the first one is",
            seen=f"MASTER_ADDR {address or 'not set'}, MASTER_PORT {port or 'not set'}",
            remedy="set both for every process, or start them with torchrun, which does; see docs/clusters.md",
        )
    return address, int(port)
