"""Live runs simulated once more, each with the profile as it is at the pace that the machine had meanwhile, and with
as much of its time stolen."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pandas as pd
from experiments import Experiment
from pace import Pace, PaceMeter, at_pace, beside_stolen
from sitting import Sitting
from validation_report import AS_CALIBRATED

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
    """What was found with the profile alone is kept beside what is found now."""
    folder = sitting.given.out / experiment.name
    shutil.copy(folder / "validation.json", folder / AS_CALIBRATED)
    work_s = meter.work_s_beside(calibrated.beside)
    beside_runs = {cell.name: _beside_run(meter, cell) for cell in sorted((folder / "cells").iterdir())}
    factors = {cell: pace.work_s / work_s for cell, pace in beside_runs.items()}
    stolen = {cell: mean(share for _, share in pace.stolen) for cell, pace in beside_runs.items()}
    write_document(folder / "pace.json", {"work_s": work_s, "factors": factors, "stolen": stolen})
    profiles = sitting.given.out / f"profiles-{experiment.name}"
    profiles.mkdir(exist_ok=True)
    for cell, factor in factors.items():
        paced = at_pace(ServiceProfile.load(calibrated.profile, Path()), factor, calibrated.sleep_s)
        paced = beside_stolen(paced, beside_runs[cell])
        (profiles / f"{cell}.json").write_text(paced.to_json(), encoding="utf-8")
    sitting.validate(experiment, urls, calibrated.profile, cell_profiles=profiles)


def _beside_run(meter: PaceMeter, cell: Path) -> Pace:
    requests = pd.read_parquet(cell / "live/requests.parquet").set_index("request_id")
    lines = (cell / "live/meta_info.jsonl").read_text(encoding="utf-8").splitlines()
    received = pd.Series({one["request_id"]: one["request_received_ts"] for one in map(json.loads, lines)})
    # When the run's clock was at 0 (Unix time): servers received requests as they were dispatched.
    began_at = float((received - requests["dispatched_at"]).median())
    return meter.between(began_at, began_at + float(requests["finished_at"].max()))
