"""How fast a machine is, from moment to moment: a small piece of work, timed on each core in turn.

On a machine with other tenants the very same step takes half as long again in one minute as in the next, though nothing
else of ours runs and its host takes none of its time ("steal"): cores share caches, memory and execution units with
cores that others use. Work that is always the same tells.
"""

import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import numpy as np
from scipy.stats import trim_mean

__all__ = ["WORK", "PaceMeter", "Timed", "typical_work_s"]

WORK: Final = 4
"""Which work it is, where it is done, and what is typical of its times: not to be compared with those of another."""
_COMMAND = (sys.executable, "-m", "calibrate.timed_work")
_LEFT_OUT = 0.1  # of the times at either end


@dataclass(frozen=True, slots=True)
class Timed:
    """One piece of work. ``at`` is Unix time."""

    at: float
    core: int
    work_s: float
    """Seconds on the core, without what others had of it."""


class PaceMeter(AbstractContextManager["PaceMeter"]):
    """Measures while the block runs, in a process of its own. ``on_timed`` is told of each piece, by a thread, from
    before the block begins. Raises RuntimeError where the process ended by itself, which says why on stderr."""

    def __init__(self, on_timed: Callable[[Timed], None]) -> None:
        self._on_timed = on_timed

    def __enter__(self) -> "PaceMeter":
        # In a session of its own, so that it is left alone by Ctrl-C.
        self._process = subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self._pieces = self._read()
        first = next(self._pieces, None)
        if first is None:
            raise self._ended()
        self._on_timed(first)
        self._thread = threading.Thread(target=self._tell, name="pace", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        by_itself = self._process.poll() is not None
        self._process.terminate()
        self._thread.join()
        if by_itself and error is None:
            raise self._ended()
        self._process.wait()

    @property
    def pid(self) -> int:
        """The process that works."""
        return self._process.pid

    def _read(self) -> Iterator[Timed]:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                at, core, work_s = line.split()
                yield Timed(float(at), int(core), float(work_s))

    def _tell(self) -> None:
        for timed in self._pieces:
            self._on_timed(timed)

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"{shlex.join(_COMMAND)} ended by itself, with {self._process.wait()}")


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
