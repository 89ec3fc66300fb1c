"""How fast the machine itself is, from second to second, and a profile as it is at another pace.

On a machine with other tenants the same work takes a quarter longer in one minute than in the next, and what servers
on it compute too, and its host has some of its time for others ("steal"). No profile can foretell either. So a small
piece of work is timed beside calibrations and live runs alike, the stolen time is read, and each live run is simulated
with step times as they are at the pace that the machine had, with as much stolen.
"""

import csv
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import TracebackType

import numpy as np
import pandas as pd

from calibrate.drift import scaled_profile
from calibrate.neighbours import ProcessorTime
from calibrate.work_done import TERMS
from simcore.profile import ServiceProfile

_INTERVAL_S = 0.2
_WORK_BYTES = 4_000_000
"""A pass over memory, as a decode step makes over the weights; 1 ms, so that it takes half a percent of a core."""
_STOLEN_EVERY_S = 1.0
"""Spells in which the host has a fifth of the machine's time for others last for some seconds."""
_COLUMNS = ("at", "core", "work_s", "stolen_s", "cores_s", "beside")
"""``stolen_s`` of ``cores_s`` is what the machine's host had for others (steal), since the machine began, all cores."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``work_s``: seconds on a core that the work took; ``stolen``: from when on (seconds), which share of its time the
    machine's host had for others."""

    work_s: float
    stolen: tuple[tuple[float, float], ...]

    @property
    def mean_stolen(self) -> float:
        return mean(share for _, share in self.stolen)


class PaceMeter(AbstractContextManager["PaceMeter"]):
    """Times the work on each core in turn while the block runs; ``file`` has what was measured, since an earlier block
    with ``resume``.

    It is the time on the core that counts, without what others had of it.
    """

    def __init__(self, file: Path, *, resume: bool = False) -> None:
        self._file = file
        self._resume = resume
        self._beside = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)

    def __enter__(self) -> "PaceMeter":
        if not (self._resume and self._file.exists()):
            self._file.write_text(",".join(_COLUMNS) + "\n", encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """What is measured while the block runs is found by ``name``."""
        self._beside = name
        try:
            yield
        finally:
            self._beside = ""

    def _measure(self) -> None:
        memory = np.zeros(_WORK_BYTES, np.int8)
        cores = sorted(os.sched_getaffinity(0))
        with self._file.open("a", encoding="utf-8", newline="", buffering=1) as lines:
            rows = csv.writer(lines)
            while True:
                for core in cores:
                    if self._ended.wait(_INTERVAL_S):
                        return
                    # Of this thread alone.
                    os.sched_setaffinity(0, {core})
                    began = time.thread_time()
                    memory.sum()
                    took_s, machine = time.thread_time() - began, ProcessorTime.now()
                    seconds = round(machine.stolen_s, 2), round(machine.cores_s, 2)
                    rows.writerow((round(time.time(), 3), core, round(took_s, 7), *seconds, self._beside))

    def work_s_beside(self, name: str) -> float:
        """Seconds that the work took in the blocks of ``name``. Raises ValueError where nothing was measured."""
        rows = self._read()
        return _typical_s(rows[rows["beside"] == name], name)

    def between(self, start: float, end: float) -> Pace:
        """What it was then (Unix time), since ``start``. Raises ValueError where nothing was measured."""
        rows = self._read()
        rows = rows[rows["at"].between(start, end)]
        work_s = _typical_s(rows, f"{start} to {end}")
        spell = (rows["at"] - start) // _STOLEN_EVERY_S * _STOLEN_EVERY_S
        spells = rows.groupby(spell)[["stolen_s", "cores_s"]].first()
        until_next = spells.diff().shift(-1).iloc[:-1]
        stolen = (until_next["stolen_s"] / until_next["cores_s"]).round(4)
        return Pace(work_s, tuple(zip(stolen.index.tolist(), stolen.tolist(), strict=True)))

    def _read(self) -> pd.DataFrame:
        return pd.read_csv(self._file, keep_default_na=False)


def _typical_s(rows: pd.DataFrame, what: str) -> float:
    """The mean over the cores of their medians: any of them may have a neighbour."""
    if rows.empty:
        raise ValueError(f"no pace was measured: {what}")
    return float(rows.groupby("core")["work_s"].median().mean())


def at_pace(profile: ServiceProfile, factor: float, sleep_s: float) -> ServiceProfile:
    """The profile where all but ``sleep_s`` of each step, which servers sleep, takes ``factor`` times as long."""
    paced = scaled_profile(profile, [factor] * len(TERMS))
    decode, prefill, still_s = paced.steps.decode, paced.steps.prefill, (1 - factor) * sleep_s
    steps = paced.steps.model_copy(
        update={
            "decode": decode.model_copy(update={"base_s": tuple(base_s + still_s for base_s in decode.base_s)}),
            "prefill": prefill.model_copy(update={"base_s": prefill.base_s + still_s}),
        }
    )
    return paced.model_copy(update={"steps": steps})


def beside_stolen(profile: ServiceProfile, pace: Pace) -> ServiceProfile:
    """The profile with steps as much longer, second by second of a run, as its calibration found for the share of the
    machine's time that was stolen; as it is where that found nothing stolen."""
    steal = profile.steal
    if steal is None:
        return profile
    return profile.model_copy(update={"slowdowns": tuple(steal.slowdown(at_s, share) for at_s, share in pace.stolen)})
