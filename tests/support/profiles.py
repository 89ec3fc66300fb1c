"""The bundled profile that was calibrated, on a machine of which something else is known."""

from pathlib import Path

from simcore.profile import ServiceProfile
from simcore.profile_measurement import Host

__all__ = ["calibrated_beside"]


def calibrated_beside(host: Host | None) -> ServiceProfile:
    """``sglang-cpu-tiny``, had its machine been so while it was calibrated; None: had nothing been seen of it."""
    profile = ServiceProfile.load("sglang-cpu-tiny", Path())
    assert profile.measurement is not None
    return profile.model_copy(update={"measurement": profile.measurement.model_copy(update={"host": host})})
