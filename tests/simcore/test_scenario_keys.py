import pytest

from simcore.scenario import Scenario
from simcore.scenario_keys import hint


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        (("sevrers",), "servers"),
        (("workload", "duration"), "duration_s"),
        (("workload", "arrivals", "poisson", "rate"), "rate_rps"),
        (("workload", "arrivals", "bursty", "burst_rate"), "burst_rate_rps"),
        (("servers", 0, "counts"), "count"),
        (("servers", 0, "launch", "max_running"), "max_running_requests"),
        (("policies", 0, "param"), "params"),
        (("workload", "trace", "mooncake", "limits"), "limit"),
    ],
)
def test_the_key_that_looks_most_like_it(location: tuple[int | str, ...], meant: str) -> None:
    assert hint(Scenario, location) == f"; did you mean {meant}?"


@pytest.mark.parametrize("location", [("zzz",), ("workload", "arrivals", "constant", "burst"), ("slo", "count")])
def test_nothing_where_nothing_looks_like_it(location: tuple[int | str, ...]) -> None:
    """Keys of other places and other kinds are no help."""
    assert hint(Scenario, location) == ""
