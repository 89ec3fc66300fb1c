"""A small piece of work, timed on each core in turn."""

import os
import threading

import pytest

from calibrate import pace
from calibrate.pace import PaceMeter, Timed, typical_work_s


def test_each_core_is_timed_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_INTERVAL_S", 0.001)
    cores, found, enough = os.sched_getaffinity(0), list[Timed](), threading.Event()

    def on_timed(timed: Timed) -> None:
        found.append(timed)
        if len(found) >= 2 * len(cores):
            enough.set()

    with PaceMeter(on_timed):
        assert enough.wait(30)
    assert {timed.core for timed in found} == cores
    assert all(0 < timed.work_s < 1 for timed in found)
    assert [timed.at for timed in found] == sorted(timed.at for timed in found)
    # Its thread is gone, and it alone was moved from core to core.
    assert not [thread for thread in threading.enumerate() if thread.name == "pace"]
    assert os.sched_getaffinity(0) == cores


def test_where_threads_cannot_be_moved_there_is_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(pace, "_INTERVAL_S", 0.001)
    found, some = list[Timed](), threading.Event()

    def on_timed(timed: Timed) -> None:
        found.append(timed)
        some.set()

    with PaceMeter(on_timed):
        assert some.wait(30)
    assert {timed.core for timed in found} == {0}


def test_a_core_with_a_neighbour_counts_as_much_as_one_without() -> None:
    timed = [Timed(float(at), at % 2, 0.003 if at % 2 else 0.001) for at in range(24)]
    # One that was interrupted does not count.
    assert typical_work_s([*timed, Timed(24.0, 0, 0.5)]) == pytest.approx(0.002)
    assert typical_work_s([]) is None


def test_a_pace_of_a_quarter_of_the_time_counts_a_quarter() -> None:
    timed = [Timed(float(at), 0, 0.002 if at % 4 == 0 else 0.001) for at in range(80)]
    # As in the mean over as many short spells, of which each has one pace; a tenth at either end is left out.
    assert typical_work_s(timed) == pytest.approx((52 * 0.001 + 12 * 0.002) / 64)
