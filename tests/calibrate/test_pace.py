"""A small piece of work, timed on each core in turn."""

import os
import signal
import subprocess
import sys
import threading
from itertools import islice

import pytest

from calibrate import pace
from calibrate.pace import PaceMeter, Timed, typical_work_s
from calibrate.timed_work import timed_pieces


def test_each_core_is_timed_until_the_block_ends() -> None:
    cores, found, enough = os.sched_getaffinity(0), list[Timed](), threading.Event()

    def on_timed(timed: Timed) -> None:
        found.append(timed)
        if len(found) >= 2 * len(cores):
            enough.set()

    with PaceMeter(on_timed) as meter:
        # Something is known from the start on.
        assert found
        assert enough.wait(30)
    assert {timed.core for timed in found} == cores
    assert all(0 < timed.work_s < 1 for timed in found)
    assert [timed.at for timed in found] == sorted(timed.at for timed in found)
    # Its process and its thread are gone, and it alone was moved from core to core.
    with pytest.raises(ProcessLookupError):
        os.kill(meter.pid, 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "pace"]
    assert os.sched_getaffinity(0) == cores


def test_a_meter_that_ends_by_itself_is_an_error() -> None:
    def block(error: Exception | None) -> None:
        with PaceMeter(lambda _: None) as meter:
            os.kill(meter.pid, signal.SIGKILL)
            os.waitid(os.P_PID, meter.pid, os.WEXITED | os.WNOWAIT)
            if error is not None:
                raise error

    with pytest.raises(RuntimeError, match=r"timed_work ended by itself, with -9"):
        block(None)
    # What went wrong first is what is told.
    with pytest.raises(ValueError, match="first"):
        block(ValueError("first"))


def test_a_meter_that_cannot_begin_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(RuntimeError, match=r"ended by itself, with 3"), PaceMeter(lambda _: None):
        pass


def test_work_ends_without_a_word_when_its_reader_is_gone() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(pace._COMMAND, stdout=writing, stderr=subprocess.PIPE) as work:
        os.close(writing)
        assert os.read(reading, 1)
        os.close(reading)
        assert work.communicate(timeout=30) == (None, b"")
    assert work.returncode == 0


def test_lines_are_whole_where_output_is_unbuffered() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(pace._COMMAND, stdout=writing, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as work:
        os.close(writing)
        told = [os.read(reading, 4096) for _ in range(20)]
        work.terminate()
    os.close(reading)
    assert all(lines.endswith(b"\n") for lines in told)


def test_where_threads_cannot_be_moved_there_is_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert {core for _, core, _ in islice(timed_pieces(), 3)} == {0}


def test_a_core_with_a_neighbour_counts_as_much_as_one_without() -> None:
    timed = [Timed(float(at), at % 2, 0.003 if at % 2 else 0.001) for at in range(24)]
    # One that was interrupted does not count.
    assert typical_work_s([*timed, Timed(24.0, 0, 0.5)]) == pytest.approx(0.002)
    assert typical_work_s([]) is None


def test_a_pace_of_a_quarter_of_the_time_counts_a_quarter() -> None:
    timed = [Timed(float(at), 0, 0.002 if at % 4 == 0 else 0.001) for at in range(80)]
    # As in the mean over as many short spells, of which each has one pace; a tenth at either end is left out.
    assert typical_work_s(timed) == pytest.approx((52 * 0.001 + 12 * 0.002) / 64)
