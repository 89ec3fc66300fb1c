"""How fast the machine itself is while a validation goes on.

On a machine with other tenants the same work takes a quarter longer in one minute than in the next, and what servers
on it compute too, and its host has some of its time for others ("steal"). No profile can foretell either. So both are
measured beside live runs as they are beside a calibration, and each live run is simulated with step times as the
calibration found them to be at such a pace, with as much stolen.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TextIO

import pandas as pd

from calibrate.host import Spell
from calibrate.neighbours import ProcessorTime
from calibrate.pace import PaceMeter, Timed, typical_work_s

_SPELL_S = 1.0
"""Times in which the host has a fifth of the machine's time for others last for some seconds."""
_COLUMNS = ("at", "core", "work_s", "stolen_s", "cores_s")
"""``stolen_s`` of ``cores_s`` is what the machine's host had for others (steal), since the machine began, all cores."""


@dataclass(frozen=True, slots=True)
class RunPace:
    """``work_s``: seconds on a core that the work took in all of the run."""

    work_s: float
    spells: tuple[Spell, ...]

    @property
    def mean_stolen(self) -> float:
        return mean(spell.stolen for spell in self.spells)


class PaceLog:
    """``file`` has what is measured while ``measuring`` blocks run, since an earlier log with ``resume``."""

    def __init__(self, file: Path, *, resume: bool = False) -> None:
        self._file = file
        if not (resume and file.exists()):
            file.write_text(",".join(_COLUMNS) + "\n", encoding="utf-8")

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Not beside a calibration, which measures for itself: the work of both would make its steps 2% longer than
        those of live runs, beside which there is one."""
        with (
            self._file.open("a", encoding="utf-8", newline="", buffering=1) as lines,
            PaceMeter(partial(_write, lines)),
        ):
            yield

    def between(self, start: float, end: float) -> RunPace:
        """What it was then (Unix time), since ``start``. Raises ValueError where nothing was measured."""
        rows = pd.read_csv(self._file)
        rows["at"] -= start
        rows = rows[rows["at"].between(0, end - start)]
        work_s = _work_s(rows)
        if work_s is None:
            raise ValueError(f"no pace was measured: {start} to {end}")
        by_spell = rows.groupby(rows["at"] // _SPELL_S * _SPELL_S)
        begun = by_spell[["stolen_s", "cores_s"]].first()
        until_next = begun.diff().shift(-1).iloc[:-1]
        stolen = (until_next["stolen_s"] / until_next["cores_s"]).round(4)
        spells = (Spell(at_s, share, _work_s(by_spell.get_group(at_s))) for at_s, share in stolen.items())
        return RunPace(work_s, tuple(spells))


def _work_s(rows: pd.DataFrame) -> float | None:
    return typical_work_s(Timed(row.at, row.core, row.work_s) for row in rows.itertuples())


def _write(lines: TextIO, timed: Timed) -> None:
    machine = ProcessorTime.now()
    times = round(timed.work_s, 7), round(machine.stolen_s, 2), round(machine.cores_s, 2)
    csv.writer(lines).writerow((round(timed.at, 3), timed.core, *times))
