"""The scenario by which a live run is simulated."""

from collections.abc import Sequence

from simcore.profile import ServiceProfile
from simcore.scenario import Scenario

__all__ = ["twin_of"]


def twin_of(scenario: Scenario, profiles: Sequence[ServiceProfile], *, emulated: bool) -> Scenario:
    """As the live run's, but for the load reports: real servers' are as stale as calibration found them to be.

    A profile that was not measured does not tell; the scenario's own ``report_delay_s`` stands then, as it does for
    emulators, whose reports are of the moment.
    """
    measurement = profiles[0].measurement
    report = measurement.load_report if measurement is not None else None
    if emulated or report is None:
        return scenario
    router = scenario.router.model_copy(update={"report_delay_s": report.delay_s})
    return scenario.model_copy(update={"router": router})
