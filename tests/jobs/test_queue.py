"""The line for devices: in order, nobody starves, the dead count for nothing."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_jobs import until_so

from opadpo.jobs.queue import Queue, Wish

GPUS = ("gpu-0", "gpu-1", "gpu-2")
ALL = Wish(GPUS, 3)
wishes = st.one_of(
    st.sets(st.sampled_from(GPUS), min_size=1).map(lambda names: Wish(tuple(sorted(names)), len(names))),
    st.integers(1, 3).map(lambda count: Wish(GPUS, count)),
)


def join(folder: Path, title: str, wish: Wish) -> Queue:
    return Queue.join(title, wish, folder)


def test_who_comes_first_is_served_first_and_told_who_is_before_him(tmp_path: Path):
    one, two = join(tmp_path, "one", Wish(("gpu-0",), 1)), join(tmp_path, "two", Wish(("gpu-0", "gpu-1"), 2))
    three, four = join(tmp_path, "three", Wish(("gpu-1",), 1)), join(tmp_path, "four", Wish(("gpu-2",), 1))
    assert one.try_take() == (["gpu-0"], "")
    assert two.try_take() == ([], "gpu-0 is used by one")
    # gpu-1 is free, but two wants it and came first: else somebody who wants several would wait for ever.
    assert three.try_take() == ([], "second in line for gpu-1")
    assert four.try_take() == (["gpu-2"], "")
    one.leave()
    assert three.try_take()[0] == []
    assert two.try_take() == (["gpu-0", "gpu-1"], "")
    two.leave()
    assert three.try_take() == (["gpu-1"], "")


def test_who_leaves_the_line_is_in_nobodys_way(tmp_path: Path):
    one, two, three = (join(tmp_path, name, ALL) for name in ("one", "two", "three"))
    assert one.try_take()[0]
    assert two.try_take()[0] == []
    two.leave()
    one.leave()
    assert three.try_take()[0] == list(GPUS)


def test_the_dead_hold_nothing(tmp_path: Path):
    child = os.fork()
    if child == 0:
        held = join(tmp_path, "dead", ALL)
        held.try_take()
        time.sleep(60)
        os._exit(0)
    until_so(lambda: list(tmp_path.glob("*.ticket")))
    late = join(tmp_path, "late", Wish(GPUS, 1))
    assert late.try_take()[0] == []
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert late.try_take()[0] == ["gpu-0"]


@pytest.mark.slow
@given(st.lists(wishes, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_everybody_gets_what_he_wants_and_no_device_has_two_users(wanted: list[Wish], order):
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        waiting = [(join(Path(name), str(number), wish), wish) for number, wish in enumerate(wanted)]
        running: list[tuple[Queue, list[str]]] = []
        served = 0
        for _ in range(10 * len(wanted)):
            order.shuffle(waiting)
            for pair in list(waiting):
                devices, reason = pair[0].try_take()
                assert bool(devices) != bool(reason)
                if devices:
                    assert len(devices) == pair[1].count
                    assert set(devices) <= set(pair[1].devices)
                    waiting.remove(pair)
                    running.append((pair[0], devices))
                    held = [device for _, each in running for device in each]
                    assert len(held) == len(set(held))
            if running:
                running.pop(order.randrange(len(running)))[0].leave()
                served += 1
            if not waiting and not running:
                break
        assert served == len(wanted)


def test_who_finds_no_room_for_a_ticket_is_in_nobodys_way(tmp_path: Path):
    first = join(tmp_path, "first", ALL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            join(tmp_path, "no room", ALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert first.try_take()[0] == list(GPUS)
    assert len(list(tmp_path.glob("*.ticket"))) == 1


def test_far_behind_in_a_long_line_one_looks_seldom(tmp_path: Path):
    line = [join(tmp_path, str(number), ALL) for number in range(12)]
    for each in line:
        each.try_take()
    assert [line[place].pause for place in (1, 4, 11)] == [0.5, 1.5, 5.0]
