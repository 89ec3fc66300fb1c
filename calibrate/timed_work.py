"""A small piece of work that is always the same, timed on each core in turn, in a process that does nothing else.

usage: python -m calibrate.timed_work        (until its reader is gone; a line a piece: Unix time, core, seconds)

In a process that streams tokens as well, caches were warmer: in turns of 4 s the same work took 3.6% (± 0.6%) less
time there than in an idle process, beside four busy servers on two cores.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import cycle

import numpy as np

__all__ = ["timed_pieces"]

_INTERVAL_S = 0.0125
_NUMBERS = 1_000_000
_PLACES = 10_000
_ENTRIES = 125
_CALLS = 50


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


def timed_pieces() -> Iterator[tuple[float, int, float]]:
    """When a piece was done (Unix time), on which core, and its seconds on the core, without what others had of it."""
    work = _Work()
    for core in cycle(_cores()):
        time.sleep(_INTERVAL_S)
        _move_to(core)
        began = time.thread_time()
        work.do()
        yield time.time(), core, time.thread_time() - began


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def _move_to(core: int) -> None:
    """Where the system lets a thread choose."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _tell() -> None:
    try:
        for at, core, work_s in timed_pieces():
            # In one piece, also with PYTHONUNBUFFERED: a process that is ended leaves no part of a line.
            print(f"{at} {core} {work_s}\n", end="", flush=True)
    except BrokenPipeError:
        # The reader was killed. Python would flush what is left at its end, in vain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    _tell()
