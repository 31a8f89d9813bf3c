"""The owner of several processes: starts them, or finds those that a launcher has started, and hears what they say."""

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from opadpo import errors
from opadpo.errors import OpadpoError, StepFailed, UserError
from opadpo.processes.channel import HOSTED_VARIABLE, Channel
from opadpo.processes.here import SERVING_VARIABLE, launched_outside, processes_here
from opadpo.processes.serving import LAST, POLL_SECONDS
from opadpo.processes.signals import Stopped, Wish, heeding, pass_on
from opadpo.progress import Progress, Task

T = TypeVar("T")

_GRACE_SECONDS = 20.0
_FAREWELL_SECONDS = 60.0
_AHEAD = 2
"""Work items on offer for each process: enough that none waits."""


@dataclass
class _Leader:
    """The first process of several that a launcher has started."""

    channel: Channel
    team: "Team | None" = None


_leaders: list[_Leader] = []
"""One inside `leading`, else none."""


def processes_wanted(configured: int) -> int:
    """How many processes a step gets: those that a launcher has started, else those of the recipe."""
    return processes_here() if launched_outside() else configured


@contextmanager
def leading() -> Iterator[None]:
    """Around a command that a launcher started several times, in its first process: the others serve it until the end.

    Without a launcher it does nothing.
    """
    if not launched_outside():
        yield
        return
    leader = _Leader(Channel.host())
    os.environ[HOSTED_VARIABLE] = "True"
    _leaders.append(leader)
    status = 1
    try:
        yield
        status = 0
    except OpadpoError as error:
        status = error.exit_status
        raise
    finally:
        _leaders.remove(leader)
        leader.channel.end(status)
        if leader.team is not None:
            leader.team.wait()
        others = processes_here() - (leader.team is None)
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while leader.channel.have_left() < others and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


@contextmanager
def team(count: int) -> Iterator["Team"]:
    """Processes that work together until the end of the block: `count` new ones on this machine, or the launcher's.

    Raises:
        UserError: if a launcher started several processes, but not of the command line.
    """
    if launched_outside():
        yield _launched_team()
        return
    channel, meeting = Channel.host_here()
    shared = {
        **meeting,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
    }
    made = Team(channel, count, [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)])
    status = 1
    try:
        yield made
        status = 0
    finally:
        channel.end(status)
        made.wait()


def _launched_team() -> "Team":
    if not _leaders:
        raise UserError(
            "A launcher started several processes, and this one does not know of the others",
            seen=f"RANK {os.environ.get('RANK')}, WORLD_SIZE {os.environ.get('WORLD_SIZE')}",
            remedy="let the launcher start the command line: `torchrun ... -m opadpo ...`; see docs/clusters.md",
        )
    leader = _leaders[-1]
    if leader.team is None:
        # The first process works in one of its own: this one stays free to hear the others, and to end when one
        # fails, while the work waits inside a collective call.
        leader.team = Team(leader.channel, processes_here(), [{}])
    return leader.team


class Team:
    """Made by `team`."""

    def __init__(self, channel: Channel, count: int, environments: list[dict[str, str]]) -> None:
        self.count = count
        self._channel = channel
        self._orders = 0
        ours = {SERVING_VARIABLE: "1", HOSTED_VARIABLE: "True"}
        self._children = [
            subprocess.Popen(
                [sys.executable, "-m", "opadpo.processes.serving"],
                env={"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, **ours, **environment},
            )
            for environment in environments
        ]

    def everyone(self, worker: str, payload: str, progress: Progress) -> list[Any]:
        """Let every process do the same order; returns what each made of it, in the order of their ranks.

        A first SIGINT or SIGTERM is handed on to the processes, which stop where that is good; a second one ends them.

        Raises:
            OpadpoError: the failure of a process, as the class that it was there.
            StepFailed: if one ended without saying why (killed).
            Stopped: after a signal; or whatever the signal's handler raises.
        """
        results: dict[int, Any] = {}
        try:
            with heeding() as wish:
                self._order(worker, payload)
                with closing(self._events(progress, wish)) as events:
                    while len(results) < self.count:
                        event = next(events)
                        results[event["finished"]] = event["result"]
        except Stopped as stopped:
            pass_on(stopped.number, str(stopped))
        return [results[rank] for rank in range(self.count)]

    def spread(
        self, worker: str, payload: str, items: Iterable[tuple[T, Any]], progress: Progress
    ) -> Iterator[tuple[T, Any]]:
        """Let the processes share work items out among them.

        `items` are pairs: what stays here, and what the worker gets. Yields (what stayed here, answer) as they come,
        in any order.

        Raises:
            OpadpoError: as `everyone`.
        """
        self._order(worker, payload)
        waiting = iter(enumerate(items))
        offered: dict[int, T] = {}
        finished, exhausted = 0, False
        with closing(self._events(progress)) as events:
            while finished < self.count:
                while not exhausted and len(offered) < _AHEAD * self.count:
                    if (following := next(waiting, None)) is None:
                        exhausted = True
                        self._channel.offer(LAST)
                    else:
                        number, (offered[number], item) = following
                        self._channel.offer({"number": number, "item": item})
                event = next(events)
                if "item" in event:
                    yield offered.pop(event["item"]), event["answer"]
                finished += "finished" in event
        self._channel.take()  # the mark behind the last item

    def wait(self) -> None:
        """Wait until our own processes have ended, as they do when they are told; not for ever."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for stop in (subprocess.Popen[bytes].terminate, subprocess.Popen[bytes].kill):
            for process in self._children:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    stop(process)
            deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._children:
            process.wait()

    def _order(self, worker: str, payload: str) -> None:
        self._channel.order(self._orders, {"worker": worker, "payload": payload})
        self._orders += 1

    def _events(self, progress: Progress, wish: Wish | None = None) -> Generator[dict[str, Any]]:
        """What the processes tell; their progress is shown, a failure raised, and a wish to stop handed on."""
        tasks: list[Task] = []
        asked = False
        with ExitStack() as open_tasks:
            while True:
                if wish is not None and wish.number and not asked:
                    self._channel.ask_to_stop(wish.number)
                    asked = True
                # Asked before the events are read: one that has ended has told everything by then.
                statuses = [process.poll() for process in self._children]
                for event in self._channel.heard():
                    if "failed" in event:
                        raise _failure(event["failed"])
                    if "stopped" in event:
                        raise Stopped(event["stopped"])
                    if "finished" in event or "item" in event:
                        yield event
                    else:
                        _show(event, progress, tasks, open_tasks)
                if gone := [status for status in statuses if status is not None]:
                    raise StepFailed(
                        "A process ended without saying why",
                        seen=f"exit status {gone[0]}" + ", killed: often because memory ran out" * (gone[0] == -9),
                        remedy="see its output above; run the command again: it continues where it was",
                    )
                time.sleep(POLL_SECONDS)


def _show(event: dict[str, Any], progress: Progress, tasks: list[Task], open_tasks: ExitStack) -> None:
    if event.get("task") is not None:
        tasks.append(open_tasks.enter_context(progress.task(event["task"], event["total"], done=event["done"])))
    elif "task" in event:
        open_tasks.close()
        tasks.clear()
    elif "advance" in event and tasks:
        tasks[-1].advance(event["advance"])
    elif "note" in event and tasks:
        tasks[-1].note(event["note"])
    elif "say" in event:
        progress.say(event["say"])
    elif "warn" in event:
        progress.warn(event["warn"])


def _failure(told: dict[str, Any]) -> OpadpoError:
    kind = getattr(errors, told["class"], StepFailed)
    if not issubclass(kind, OpadpoError) or kind is errors.RecipeError:
        kind = StepFailed
    return kind(told["what"], seen=told["seen"], remedy=told["remedy"])
