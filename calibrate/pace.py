"""How fast a machine is, from moment to moment: a small piece of work, timed on each core in turn.

On a machine with other tenants the very same step takes half as long again in one minute as in the next, though nothing
else of ours runs and its host takes none of its time ("steal"): cores share caches, memory and execution units with
cores that others use. Work that is always the same tells.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from types import TracebackType
from typing import Final

import numpy as np
from scipy.stats import trim_mean

__all__ = ["WORK", "PaceMeter", "Timed", "typical_work_s"]

WORK: Final = 3
"""Which work it is, and what is typical of its times: they are not to be compared with those of another."""
_INTERVAL_S = 0.0125
_NUMBERS = 1_000_000
_PLACES = 10_000
_ENTRIES = 125
_CALLS = 50
_LEFT_OUT = 0.1  # of the times at either end


@dataclass(frozen=True, slots=True)
class Timed:
    """One piece of work. ``at`` is Unix time."""

    at: float
    core: int
    work_s: float
    """Seconds on the core, without what others had of it."""


class PaceMeter(AbstractContextManager["PaceMeter"]):
    """Measures while the block runs, in a thread of its own, which tells ``on_timed``."""

    def __init__(self, on_timed: Callable[[Timed], None]) -> None:
        self._on_timed = on_timed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="pace", daemon=True)

    def __enter__(self) -> "PaceMeter":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _measure(self) -> None:
        work, cores = _Work(), _cores()
        while True:
            for core in cores:
                if self._ended.wait(_INTERVAL_S):
                    return
                _move_to(core)
                began = time.thread_time()
                work.do()
                self._on_timed(Timed(time.time(), core, time.thread_time() - began))


class _Work:
    """As a server's step: numbers from all over more memory than a core's own caches hold, objects that come and go,
    and many small calls into a library. 1 ms in all, 4% of each of two cores.

    Work in the core's own caches tells less. In a trial on one machine the mean decode step over 8 s varied by 10%:
    work of these three kinds left 2.7% of that, and a loop of additions and a pass over 1 MB left 5.5%. The pace
    changes within a second: in another, over 2 s, work every 12.5 ms left 2.9%, every 25 ms 3.3%, every 50 ms 3.7%.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._numbers = rng.integers(0, 9, _NUMBERS)
        # Others than last time, which may be in the caches still.
        self._places = cycle(rng.integers(0, _NUMBERS, (8, _PLACES)))
        self._document = [{"id": entry, "name": str(entry), "values": [entry, entry / 2]} for entry in range(_ENTRIES)]
        self._row = np.ones(8)

    def do(self) -> None:
        self._numbers[next(self._places)].sum()
        json.loads(json.dumps(self._document))
        for _ in range(_CALLS):
            np.concatenate([np.tanh(self._row), self._row.reshape(2, 4).T.sum(axis=1)])


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def _move_to(core: int) -> None:
    """This thread alone, where the system lets it choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def typical_work_s(found: Iterable[Timed]) -> float | None:
    """The mean over the cores of their means, seconds: any of them may have a neighbour. None without any.

    Of each core a tenth of the times is left out at either end: single pieces are interrupted. The median would be that
    of the pace which the machine had for more than half of the time, and steps are of both; beside long runs it was
    another than the mean of those of short ones.
    """
    by_core: dict[int, list[float]] = {}
    for timed in found:
        by_core.setdefault(timed.core, []).append(timed.work_s)
    if not by_core:
        return None
    return float(np.mean([trim_mean(times, _LEFT_OUT) for times in by_core.values()]))
