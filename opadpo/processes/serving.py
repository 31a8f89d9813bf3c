"""A process that serves a team: it does what the owner orders, and ends when the owner has ended.

python -m opadpo.processes.serving        with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torchrun sets them
"""

import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opadpo.errors import OpadpoError
from opadpo.processes.channel import HOSTED_VARIABLE, Channel
from opadpo.processes.here import SERVING_VARIABLE, rank_here
from opadpo.processes.signals import Stopped, Wish, serve_wishes

WORKERS = {
    "train": "opadpo.training.run:work",
    "respond": "opadpo.steps.speakers:work",
}
"""What can be ordered. Nothing else can be: the network brings names from this list, never code."""
POLL_SECONDS = 0.05
LAST = "last"
"""Stands behind the last work item."""
_SHOW_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0
_LOST = 1


class Service:
    """What a worker has of its team."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.rank = rank_here()
        self.progress = TeamProgress(channel)
        self.kept: dict[str, Any] = {}
        """What workers keep from one order to the next."""

    def answer_items(self, answer: Callable[[Any], Any]) -> None:
        """Answer work items, whichever this process gets, until the last one is taken."""
        while (item := self.channel.take()) != LAST:
            if item is None:
                time.sleep(POLL_SECONDS)
                continue
            self.channel.tell(item=item["number"], answer=answer(item["item"]))
        self.channel.offer(LAST)  # for the next process


class TeamProgress:
    """Progress that is shown where the team's owner shows it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @contextmanager
    def task(self, description: str, total: int | None, *, done: int = 0) -> "Iterator[_TeamTask]":
        """A task of the owner's progress."""
        self._channel.tell(task=description, total=total, done=done)
        counter = _TeamTask(self._channel)
        yield counter
        counter.tell()
        self._channel.tell(task=None)

    def say(self, message: str) -> None:
        """Tell the user something."""
        self._channel.tell(say=message)

    def warn(self, message: str) -> None:
        """Tell the user something that they should act on."""
        self._channel.tell(warn=message)


class _TeamTask:
    def __init__(self, channel: Channel) -> None:
        self._channel, self._untold, self._told_at = channel, 0, time.monotonic()

    def advance(self, amount: int = 1) -> None:
        self._untold += amount
        if time.monotonic() - self._told_at >= _SHOW_SECONDS:
            self.tell()

    def note(self, text: str) -> None:
        self._channel.tell(note=text)

    def tell(self) -> None:
        if self._untold:
            self._channel.tell(advance=self._untold)
        self._untold, self._told_at = 0, time.monotonic()


def serve() -> None:
    """Do what is ordered until nothing more will be.

    What fails is told to the owner, which tells the user and ends the command with its status. This process then ends
    with 0: a launcher that saw it fail first would end the owner before the user has been told.

    Raises:
        StepFailed: if the owner cannot be reached.
    """
    wish = serve_wishes()
    os.environ[SERVING_VARIABLE] = "1"
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost owner is told in pages of C++ frames
    from torch.distributed import DistNetworkError

    channel = Channel.join()
    os.environ[HOSTED_VARIABLE] = "True"
    done = threading.Event()
    watched = (Channel.join(), os.getppid(), wish, done)
    watch = threading.Thread(target=_end_with_owner, args=watched, daemon=True)
    watch.start()
    service = Service(channel)
    try:
        _serve(service)
        done.set()
        watch.join()  # the owner may go as soon as this process has left
        channel.leave()
    except DistNetworkError:  # the owner has gone
        os._exit(_LOST)


def _serve(service: Service) -> None:
    number = 0
    while service.channel.ended() is None:
        order = service.channel.ordered(number)
        if order is None:
            time.sleep(POLL_SECONDS)
        elif _carry_out(order, service):
            number += 1
        else:
            return


def _carry_out(order: dict[str, str], service: Service) -> bool:
    """Do one order; False if that failed or was stopped."""
    module, _, function = WORKERS[order["worker"]].partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(order["payload"], service)
    except OpadpoError as error:
        failure = {"class": type(error).__name__, "what": error.what, "seen": error.seen, "remedy": error.remedy}
        service.channel.tell(failed={k: v if v is None else str(v) for k, v in failure.items()})
        return False
    except Stopped as stopped:
        service.channel.tell(stopped=stopped.number)
        return False
    except Exception as error:
        # A process whose neighbour has failed fails too, in words of the network: it is ended while it waits here.
        time.sleep(_PATIENCE_SECONDS)
        told = {"class": "StepFailed", "what": "A process failed in a way that nobody thought of"}
        told |= {"seen": f"{type(error).__name__}: {error}", "remedy": "report it with the traceback above or below"}
        service.channel.tell(failed=told)
        service.channel.leave()
        raise
    service.channel.tell(finished=service.rank, result=result)
    return True


def _end_with_owner(channel: Channel, parent: int, wish: Wish, done: threading.Event) -> None:
    """End this process when the team has failed or its owner has gone: no process goes on by itself.

    Where it is asked to stop and does nothing that can stop well, the owner learns it at once, and ends the team.
    """
    told = False
    while not done.wait(4 * POLL_SECONDS):
        try:
            failed = bool(channel.ended())
            if failed:
                channel.leave()
            elif number := channel.asked_to_stop():
                wish.ask(number)
            if wish.number and not wish.heeded and not told:
                channel.tell(stopped=wish.number)
                told = True
        except RuntimeError:  # the store has gone
            os._exit(_LOST)
        if failed or os.getppid() != parent:
            os._exit(0 if failed else _LOST)


if __name__ == "__main__":
    try:
        serve()
    except OpadpoError as error:
        sys.exit(f"Error: {error}")
