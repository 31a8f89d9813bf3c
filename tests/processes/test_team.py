"""Processes that a launcher has started: they meet, one speaks, all end together; and the messages between them."""

import os
import socket
import subprocess
import sys
import time

import pytest

from opadpo.errors import StepFailed, UserError
from opadpo.processes.channel import Channel
from opadpo.processes.team import leading, processes_wanted, team


@pytest.fixture
def channels(monkeypatch):
    """Both ends of a channel."""
    owner, meeting = Channel.host_here()
    for key, value in meeting.items():
        monkeypatch.setenv(key, value)
    return owner, Channel.join()


def until(ready):
    deadline = time.monotonic() + 60
    while not (value := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return value


def test_messages_arrive_in_order_and_items_once(channels):
    owner, member = channels
    assert member.ordered(0) is None
    assert member.take() is None
    assert member.ended() is None
    owner.order(0, {"worker": "train", "payload": "é" * 100_000})
    assert until(lambda: member.ordered(0)) == {"worker": "train", "payload": "é" * 100_000}
    owner.offer({"number": 0})
    owner.offer({"number": 1})
    assert [until(member.take), until(member.take)] == [{"number": 0}, {"number": 1}]
    assert member.take() is None
    for number in range(20):
        member.tell(advance=number)
    heard = []
    until(lambda: heard.extend(owner.heard()) or len(heard) == 20)
    assert heard == [{"advance": number} for number in range(20)]
    owner.end(2)
    assert until(lambda: member.ended() is not None)
    assert member.ended() == 2


@pytest.mark.slow
def test_a_message_too_large_for_the_store_is_refused(channels):
    with pytest.raises(StepFailed, match="too large"):
        channels[1].tell(answer=os.urandom(9_000_000).hex())


def test_a_launcher_wins_over_the_recipe_and_must_start_the_command_line(monkeypatch):
    assert processes_wanted(3) == 3
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes_wanted(3) == 2
    with pytest.raises(UserError, match="does not know of the others"), team(3):
        pass
    with pytest.raises(StepFailed, match="MASTER_ADDR not set, MASTER_PORT not set"), leading():
        pass


@pytest.mark.slow
def test_a_mistake_is_told_once_and_ends_every_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "opadpo", "rollout", str(tmp_path)],
            env=os.environ | meeting | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    told = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [2, 0]
    assert "This is not a workspace" in told[0][1]
    assert told[0][0] + told[1][0] + told[1][1] == ""
