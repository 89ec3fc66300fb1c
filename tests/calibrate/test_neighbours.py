"""What is seen of other work on the server's machine, and of the time that its host has for others."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from typing import ClassVar, NamedTuple

import psutil
import pytest

from calibrate import neighbours
from calibrate.neighbours import Meanwhile, Neighbours
from calibrate.pace import Timed


class LinuxTimes(NamedTuple):
    user: float
    system: float
    idle: float
    iowait: float
    steal: float
    guest: float
    guest_nice: float


class OtherTimes(NamedTuple):
    """As on macOS, which knows no steal."""

    user: float
    nice: float
    system: float
    idle: float


def seen(monkeypatch: pytest.MonkeyPatch, before: object, after: object, ours_s: float) -> Meanwhile:
    """Between two readings, 10 s apart, in which the meter and the server used ``ours_s`` of processor time."""
    times, clock = iter((before, after)), iter((100.0, 110.0))
    ours: Iterator[float] = iter((0.0, 0.0, 0.0, ours_s / 2, 0.0, ours_s / 2))
    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [psutil.Process()])
    monkeypatch.setattr(neighbours, "_processor_s", lambda _: next(ours))
    monkeypatch.setattr(neighbours.psutil, "cpu_times", lambda: next(times))
    with Neighbours("http://127.0.0.1:1") as watching:
        monkeypatch.setattr(neighbours.time, "monotonic", lambda: next(clock))
        watching.start()
        found = watching.meanwhile()
        monkeypatch.undo()
    return found


def test_stolen_time_is_a_share_of_all_and_not_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = LinuxTimes(50.0, 5.0, 100.0, 2.0, 1.0, 3.0, 0.0)
    # 20 s of two cores: 7 busy, of which 4 are ours; 2 stolen, 1 waiting. A guest's 2 are in user already.
    after = LinuxTimes(56.0, 6.0, 110.0, 3.0, 3.0, 5.0, 0.0)
    found = seen(monkeypatch, before, after, ours_s=4.0)
    assert found.others_cores == pytest.approx(0.3)
    # Half of it was the server's, over 10 s.
    assert found.server_cores == pytest.approx(0.2)
    assert found.stolen == pytest.approx(0.1)
    assert found.calm


def test_where_no_steal_is_known_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, OtherTimes(50, 0, 5, 100), OtherTimes(60, 0, 5, 110), ours_s=4.0)
    assert (found.others_cores, found.stolen) == (pytest.approx(0.6), 0.0)


@pytest.mark.parametrize(("cores", "stolen", "calm"), [(0.3, 0.1, True), (0.31, 0.0, False), (0.0, 0.11, False)])
def test_too_much_of_either_is_not_calm(cores: float, stolen: float, calm: bool) -> None:
    assert Meanwhile(cores, stolen).calm is calm


@pytest.mark.parametrize(("busy_s", "waits"), [(1.0, 0), (9.0, 1)])
def test_after_a_sample_that_was_calm_there_is_no_waiting(
    monkeypatch: pytest.MonkeyPatch, busy_s: float, waits: int
) -> None:
    def after(at: int) -> LinuxTimes:
        return LinuxTimes(busy_s * at, 0.0, 10.0 * at, 0.0, 0.0, 0.0, 0.0)

    times, clock, slept = map(after, count()), map(float, count(0, 10)), list[float]()

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [psutil.Process()])
    monkeypatch.setattr(neighbours, "_processor_s", lambda _: 0.0)
    monkeypatch.setattr(neighbours.psutil, "cpu_times", lambda: next(times))
    monkeypatch.setattr(neighbours.asyncio, "sleep", sleep)
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: next(clock))
    with Neighbours("http://127.0.0.1:1") as watching:
        monkeypatch.setattr(neighbours, "_CALM_WAIT_S", 15.0)
        monkeypatch.setattr(neighbours, "_CALM_SHARE", 1.0)
        watching.start()
        watching.meanwhile()
        # Without an event loop, whose clock this would be too.
        with pytest.raises(StopIteration):
            watching.calm().send(None)
        monkeypatch.undo()
    assert len(slept) == waits


def test_of_a_server_elsewhere_nothing_is_seen() -> None:
    with Neighbours("http://192.0.2.1:30000") as elsewhere:
        elsewhere.start()
        assert elsewhere.meanwhile() == Meanwhile(0.0, 0.0, None)


class Meter(AbstractContextManager["Meter"]):
    """Takes the place of the meter, and times nothing by itself."""

    tell: ClassVar[Callable[[Timed], None]]
    pid = os.getpid()

    def __init__(self, on_timed: Callable[[Timed], None]) -> None:
        Meter.tell = on_timed

    def __exit__(self, *_: object) -> None:
        pass


def test_the_pace_is_that_of_the_sample_and_of_one_second_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [psutil.Process()])
    monkeypatch.setattr(neighbours, "PaceMeter", Meter)
    monkeypatch.setattr(neighbours.time, "time", lambda: now)
    with Neighbours("http://127.0.0.1:1") as watching:
        Meter.tell(Timed(98.6, 0, 0.009))
        Meter.tell(Timed(99.4, 0, 0.001))
        watching.start()
        assert watching.meanwhile().work_s == pytest.approx(0.001)
        now = 100.5
        Meter.tell(Timed(100.1, 0, 0.003))
        Meter.tell(Timed(100.3, 1, 0.004))
        # What is more than 1 s ago no longer counts; the mean over cores of their means.
        assert watching.meanwhile().work_s == pytest.approx(0.0035)
        now = 130.0
        Meter.tell(Timed(129.0, 0, 0.005))
        # All of a sample that takes longer.
        assert watching.meanwhile().work_s == pytest.approx(0.004)
