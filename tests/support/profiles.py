"""The bundled profile that was calibrated, on a machine of which something else is known."""

from pathlib import Path

from calibrate.pace import WORK
from simcore.profile import ServiceProfile
from simcore.profile_measurement import Host, Pace, Steal

__all__ = ["calibrated_beside", "calibrated_now"]


def calibrated_beside(host: Host | None) -> ServiceProfile:
    """``sglang-cpu-tiny``, had its machine been so while it was calibrated; None: had nothing been seen of it."""
    profile = ServiceProfile.load("sglang-cpu-tiny", Path())
    assert profile.measurement is not None
    return profile.model_copy(update={"measurement": profile.measurement.model_copy(update={"host": host})})


def calibrated_now() -> ServiceProfile:
    """The same, had it been calibrated with what times a machine's pace today."""
    pace = Pace(work_s=0.001, work=WORK, decode_cost=0.6, prefill_cost=0.2)
    return calibrated_beside(Host(steal=Steal(mean=0.01, cost=1.2), pace=pace))
