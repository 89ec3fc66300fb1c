"""Live runs simulated once more, each with the profile as it is at the pace that the machine had meanwhile."""

import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from experiments import Experiment
from pace import PaceMeter, at_pace
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
    factors = {cell.name: _work_s_beside_run(meter, cell) / work_s for cell in sorted((folder / "cells").iterdir())}
    write_document(folder / "pace.json", {"work_s": work_s, "factors": factors})
    profiles = sitting.given.out / f"profiles-{experiment.name}"
    profiles.mkdir(exist_ok=True)
    for cell, factor in factors.items():
        paced = at_pace(ServiceProfile.load(calibrated.profile, Path()), factor, calibrated.sleep_s)
        (profiles / f"{cell}.json").write_text(paced.to_json(), encoding="utf-8")
    sitting.validate(experiment, urls, calibrated.profile, cell_profiles=profiles)


def _work_s_beside_run(meter: PaceMeter, cell: Path) -> float:
    manifest = json.loads((cell / "live/manifest.json").read_text(encoding="utf-8"))
    start, end = (datetime.fromisoformat(manifest[name]).timestamp() for name in ("started_at", "finished_at"))
    return meter.work_s_between(start, end)
