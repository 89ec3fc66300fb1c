"""Live runs simulated once more, each with the profile as it is at the pace that the machine had meanwhile, and with
as much of its time stolen."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from experiments import Experiment
from pace import Pace, PaceMeter, at_pace, beside_stolen
from sitting import Sitting
from validation_report import AS_CALIBRATED, PACE

from calibrate.neighbours import TOO_MUCH_STOLEN
from simcore.profile import ServiceProfile
from simcore.run_folder import write_document

__all__ = ["Calibrated", "validate_at_pace"]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A profile's file, what the pace meter has beside its measurement, and what its servers sleep in each step."""

    profile: str
    beside: str
    sleep_s: float


def validate_at_pace(
    sitting: Sitting, experiment: Experiment, urls: list[str], calibrated: Calibrated, meter: PaceMeter
) -> None:
    """What was found with the profile alone is kept beside what is found now. Runs that prove nothing, or beside which
    the machine's host had more of it than a calibration's sample may have, are measured once more before that."""
    folder = sitting.given.out / experiment.name
    again = [cell for cell in sorted((folder / "cells").iterdir()) if _was_disturbed(meter, cell)]
    if again:
        sitting.say(f"disturbed, and measured again: {', '.join(cell.name for cell in again)}")
        for cell in again:
            shutil.rmtree(cell)
        sitting.validate(experiment, urls, calibrated.profile)
    shutil.copy(folder / "validation.json", folder / AS_CALIBRATED)
    work_s = meter.work_s_beside(calibrated.beside)
    beside_runs = {cell.name: _beside_run(meter, cell) for cell in sorted((folder / "cells").iterdir())}
    factors = {cell: pace.work_s / work_s for cell, pace in beside_runs.items()}
    stolen = {cell: pace.mean_stolen for cell, pace in beside_runs.items()}
    found = {"work_s": work_s, "factors": factors, "stolen": stolen, "measured_again": [cell.name for cell in again]}
    write_document(folder / PACE, found)
    profiles = sitting.given.out / f"profiles-{experiment.name}"
    profiles.mkdir(exist_ok=True)
    for cell, factor in factors.items():
        paced = at_pace(ServiceProfile.load(calibrated.profile, Path()), factor, calibrated.sleep_s)
        paced = beside_stolen(paced, beside_runs[cell])
        (profiles / f"{cell}.json").write_text(paced.to_json(), encoding="utf-8")
    sitting.validate(experiment, urls, calibrated.profile, cell_profiles=profiles)


def _was_disturbed(meter: PaceMeter, cell: Path) -> bool:
    valid = json.loads((cell / "live/live.json").read_text(encoding="utf-8"))["valid"]
    return not valid or _beside_run(meter, cell).mean_stolen > TOO_MUCH_STOLEN


def _beside_run(meter: PaceMeter, cell: Path) -> Pace:
    requests = pd.read_parquet(cell / "live/requests.parquet").set_index("request_id")
    lines = (cell / "live/meta_info.jsonl").read_text(encoding="utf-8").splitlines()
    received = pd.Series({one["request_id"]: one["request_received_ts"] for one in map(json.loads, lines)})
    # When the run's clock was at 0 (Unix time): servers received requests as they were dispatched.
    began_at = float((received - requests["dispatched_at"]).median())
    return meter.between(began_at, began_at + float(requests["finished_at"].max()))
