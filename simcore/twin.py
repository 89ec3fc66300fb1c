"""The scenario by which a live run is simulated."""

from collections.abc import Sequence

from simcore.remote_profile import AnyProfile, own_profiles
from simcore.scenario import Scenario

__all__ = ["twin_of"]


def twin_of(scenario: Scenario, profiles: Sequence[AnyProfile], *, emulated: bool) -> Scenario:
    """As the live run's, but for the load reports: real servers' are as stale as calibration found them to be.

    A profile that was not measured does not tell; the scenario's own ``report_delay_s`` and ``report_age_s`` stand
    then, as they do for emulators, whose reports are of the moment.
    """
    measurements = [profile.measurement for profile in own_profiles(profiles)]
    report = measurements[0].load_report if measurements and measurements[0] is not None else None
    if emulated or report is None:
        return scenario
    router = scenario.router.model_copy(update={"report_delay_s": report.round_trip_s, "report_age_s": report.delay_s})
    return scenario.model_copy(update={"router": router})
