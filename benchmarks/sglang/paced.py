"""Live runs simulated once more, each with the profile as it is at the pace that the machine had meanwhile, with as
much of its time stolen, and beside neighbours that are as busy as the first simulation has them; and several times, as
what a run of some seconds finds near saturation is as much chance as policy."""

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from crowding import Crowding
from experiments import Experiment
from pace import PaceLog, RunPace
from sitting import Sitting
from validation_report import AS_CALIBRATED, PACE

from calibrate.host import beside
from calibrate.neighbours import TOO_MUCH_STOLEN
from simcore.profile import ServiceProfile
from simcore.run_folder import write_document

__all__ = ["validate_at_pace"]

_DRAWS = 8
_AGAIN = 24
"""One of so many runs, or one, is measured a second time where it needs it: on a busy machine more take too long."""
_AGAIN_BEFORE_MIN = 29
"""Of a sitting: one that is later than that is not made later still."""


def validate_at_pace(
    sitting: Sitting,
    experiment: Experiment,
    urls: list[str],
    profile: str,
    log: PaceLog,
    crowding: Crowding | None = None,
) -> None:
    """What was found with the profile alone is kept beside what is found now. Of the runs that prove nothing, or beside
    which the machine's host had more of it than a calibration's sample may have, a few are measured once more before
    that, if the sitting is in time."""
    folder = sitting.given.out / experiment.name
    in_time = sitting.minutes() < _AGAIN_BEFORE_MIN
    again = _to_measure_again(log, _cells(folder)) if in_time else []
    if again:
        sitting.say(f"disturbed, and measured again: {', '.join(cell.name for cell in again)}")
        for cell in again:
            shutil.rmtree(cell)
        sitting.validate(experiment, urls, profile)
    shutil.copy(folder / "validation.json", folder / AS_CALIBRATED)
    calibrated = ServiceProfile.load(profile, Path())
    profiles = sitting.given.out / f"profiles-{experiment.name}"
    profiles.mkdir(exist_ok=True)
    found = {cell.name: _pace_of(log, cell) for cell in _cells(folder)}
    for cell, pace in found.items():
        then = beside(calibrated, pace.spells)
        if crowding is not None:
            simulated = pd.read_parquet(folder / "cells" / cell / "sim/requests.parquet")
            then = crowding.beside(then, simulated, len(urls))
        then = _with_noise(then)
        (profiles / f"{cell}.json").write_text(then.to_json(), encoding="utf-8")
    document = {
        "host": None if calibrated.host is None else calibrated.host.model_dump(),
        "crowding": None if crowding is None else asdict(crowding),
        "work_s": {cell: pace.work_s for cell, pace in found.items()},
        "stolen": {cell: pace.mean_stolen for cell, pace in found.items()},
        "measured_again": [cell.name for cell in again],
    }
    write_document(folder / PACE, document)
    sitting.validate(experiment, urls, profile, cell_profiles=profiles, draws=_DRAWS)


def _with_noise(profile: ServiceProfile) -> ServiceProfile:
    """Steps vary as much as the visits of its calibration do around what was fitted to them, taken for normal."""
    assert profile.residuals.decode is not None
    cv = profile.residuals.decode.mape * math.sqrt(math.pi / 2)
    return profile.model_copy(update={"steps": profile.steps.model_copy(update={"noise_cv": cv})})


def _cells(folder: Path) -> list[Path]:
    return sorted((folder / "cells").iterdir())


def _to_measure_again(log: PaceLog, cells: list[Path]) -> list[Path]:
    """The worst: those that prove nothing first, then those beside which most was stolen."""
    stolen = {cell: _pace_of(log, cell).mean_stolen for cell in cells}
    valid = {cell: json.loads((cell / "live/live.json").read_text(encoding="utf-8"))["valid"] for cell in cells}
    disturbed = [cell for cell in cells if not valid[cell] or stolen[cell] > TOO_MUCH_STOLEN]
    disturbed.sort(key=lambda cell: (valid[cell], -stolen[cell]))
    return disturbed[: max(len(cells) // _AGAIN, 1)]


def _pace_of(log: PaceLog, cell: Path) -> RunPace:
    requests = pd.read_parquet(cell / "live/requests.parquet").set_index("request_id")
    lines = (cell / "live/meta_info.jsonl").read_text(encoding="utf-8").splitlines()
    received = pd.Series({one["request_id"]: one["request_received_ts"] for one in map(json.loads, lines)})
    # When the run's clock was at 0 (Unix time): servers received requests as they were dispatched.
    began_at = float((received - requests["dispatched_at"]).median())
    return log.between(began_at, began_at + float(requests["finished_at"].max()))
