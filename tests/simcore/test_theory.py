"""Queueing theory: servers of one slot wait as M/D/1, M/M/1 and M/G/1 queues do, and servers behind the router's queue
as M/M/c.

A request of n output tokens takes n steps of a millisecond, so that the law of service times is that of the lengths
drawn, whole numbers of tokens, whose moments enter the formulas exactly.
"""

import heapq
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from support.engine import STEP_S, fleet, run, scenario, write_table

from simcore.records import RunResult

Floats = npt.NDArray[np.float64]
MEAN_TOKENS = 1000.0
REQUESTS = {0.5: 40_000, 0.7: 80_000, 0.9: 200_000}
HALF_WIDTH = 0.1
"""Most of the 99% interval, relative to the theory's value: M/D/1 and M/M/1 differ by a factor of two."""


@dataclass(frozen=True)
class Service:
    """A law of service times: the ``lengths:`` that give it, and its moments in seconds."""

    output: dict[str, Any]
    mean_s: float
    square_s2: float

    @classmethod
    def of(cls, output: dict[str, Any], tokens: Floats, probabilities: Floats) -> "Service":
        assert probabilities.sum() == pytest.approx(1, abs=1e-9)
        seconds = tokens * STEP_S
        return cls(output, float(seconds @ probabilities), float(seconds**2 @ probabilities))


def constant(_: Path) -> Service:
    output = {"kind": "fixed", "tokens": int(MEAN_TOKENS)}
    return Service.of(output, np.array([MEAN_TOKENS]), np.ones(1))


def uniform(_: Path) -> Service:
    output = {"kind": "uniform", "max_tokens": int(2 * MEAN_TOKENS)}
    return Service.of(output, np.arange(1, 2 * MEAN_TOKENS + 1), np.full(int(2 * MEAN_TOKENS), 1 / (2 * MEAN_TOKENS)))


def exponential(folder: Path) -> Service:
    """From a table of quantiles, up to the one that one request in 10^9 exceeds."""
    levels = np.concatenate([np.linspace(0, 0.99, 2000), 1 - np.geomspace(0.01, 1e-9, 1000)[1:], [1.0]])
    values = np.append(-MEAN_TOKENS * np.log1p(-levels[:-1]), 21 * MEAN_TOKENS) + 1e-9
    tokens = np.arange(1, 21 * MEAN_TOKENS + 1)
    below = np.interp(tokens + 0.5, values, levels)
    output = {"kind": "empirical", "table": write_table(folder, levels, values)}
    return Service.of(output, tokens, np.diff(below, prepend=0.0))


def lognormal(_: Path) -> Service:
    """More variable than the exponential."""
    cv, longest = 1.5, 20 * MEAN_TOKENS
    variance = math.log1p(cv**2)
    law = stats.lognorm(math.sqrt(variance), scale=MEAN_TOKENS * math.exp(-variance / 2))
    tokens = np.arange(1, longest + 1)
    below = np.append(law.cdf(tokens[:-1] + 0.5), 1.0)
    output = {"kind": "lognormal", "mean_tokens": MEAN_TOKENS, "cv": cv, "max_tokens": int(longest)}
    return Service.of(output, tokens, np.diff(below, prepend=0.0))


def simulated(
    folder: Path,
    service: Service,
    utilisation: float,
    *,
    requests: int | None = None,
    servers: int = 1,
    policy: str = "round_robin",
    **sections: Any,
) -> RunResult:
    workload = {
        "arrivals": {"kind": "poisson", "rate_rps": utilisation * servers / service.mean_s},
        "requests": requests or REQUESTS[utilisation],
        "lengths": {"prompt": {"kind": "fixed", "tokens": 1}, "output": service.output},
    }
    return run(scenario(fleet(folder, count=servers), workload, **sections), policy, seed=1)


def service_s(result: RunResult) -> Floats:
    return np.asarray(result.requests["output_tokens"] * STEP_S, dtype=np.float64)


def wait_s(result: RunResult) -> Floats:
    """At the router and at the server together."""
    table = result.requests
    return np.asarray(table["finished_at"] - table["arrived_at"], dtype=np.float64) - service_s(result)


def interval(result: RunResult, service: Service, rate_rps: float) -> tuple[float, float]:
    """The mean wait and the half width of its 99% interval: means of 50 batches, with the arrivals' and the services'
    means, whose expectation is known, as control variates."""
    batches = 50
    gaps = np.diff(result.requests["arrived_at"], append=result.requests["arrived_at"].iloc[-1] + 1 / rate_rps)
    wait, gap, work = (
        values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
        for values in (wait_s(result), gaps - 1 / rate_rps, service_s(result) - service.mean_s)
    )
    design = np.column_stack([np.ones(batches), gap, work] if np.ptp(work) > 1e-9 else [np.ones(batches), gap])
    fit = np.linalg.lstsq(design, wait)[0]
    freedom = batches - design.shape[1]
    variance = np.sum((wait - design @ fit) ** 2) / freedom * np.linalg.inv(design.T @ design)[0, 0]
    return float(fit[0]), float(stats.t.ppf(0.995, freedom) * math.sqrt(variance))


def check(result: RunResult, service: Service, utilisation: float, servers: int, expected_s: float) -> None:
    mean_s, half_s = interval(result, service, utilisation * servers / service.mean_s)
    print(f"rho {utilisation}: theory {expected_s:.4f} s, measured {mean_s:.4f} +- {half_s:.4f} s")
    assert half_s < HALF_WIDTH * expected_s, "the interval says nothing"
    assert abs(mean_s - expected_s) < half_s


@pytest.mark.parametrize("utilisation", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("law", [constant, exponential, uniform])
def test_pollaczek_and_khinchine(law: Any, utilisation: float, tmp_path: Path) -> None:
    """The mean wait at a server of one slot is rate * E[S^2] / (2 (1 - utilisation))."""
    service = law(tmp_path)
    result = simulated(tmp_path, service, utilisation)
    assert (result.requests["dispatched_at"] == result.requests["arrived_at"]).all(), "it waits at the server"
    rate_rps = utilisation / service.mean_s
    check(result, service, utilisation, 1, rate_rps * service.square_s2 / (2 * (1 - utilisation)))


def test_service_more_variable_than_exponential(tmp_path: Path) -> None:
    service = lognormal(tmp_path)
    result = simulated(tmp_path, service, 0.5, requests=80_000)
    check(result, service, 0.5, 1, 0.5 / service.mean_s * service.square_s2)


@pytest.mark.parametrize("utilisation", [0.5, 0.7, 0.9])
def test_erlang_c(utilisation: float, tmp_path: Path) -> None:
    """Servers of one slot behind the router's queue: the chance that an arrival waits, times the mean wait then."""
    servers, service = 3, exponential(tmp_path)
    # Fewer wait than at one server, so it takes more requests to know how long.
    requests = max(REQUESTS[utilisation], 80_000)
    router = {"max_running_requests": 1}
    result = simulated(
        tmp_path, service, utilisation, requests=requests, servers=servers, policy="random", router=router
    )
    router_wait_s = result.requests["dispatched_at"] - result.requests["arrived_at"]
    np.testing.assert_allclose(router_wait_s, wait_s(result), atol=1e-6, err_msg="it waits at the router")
    load = utilisation * servers
    all_busy = load**servers / math.factorial(servers) / (1 - utilisation)
    waits = all_busy / (sum(load**k / math.factorial(k) for k in range(servers)) + all_busy)
    check(result, service, utilisation, servers, waits * service.mean_s / (servers * (1 - utilisation)))


def test_every_wait_is_lindleys(tmp_path: Path) -> None:
    """Not on average but request by request: a request waits as long as the one before, plus its service, less the time
    between the two."""
    result = simulated(tmp_path, exponential(tmp_path), 0.9, requests=10_000)
    arrived, wait, expected = result.requests["arrived_at"].tolist(), 0.0, [0.0]
    for (earlier, later), service in zip(pairwise(arrived), service_s(result)[:-1], strict=True):
        wait = max(wait + service - (later - earlier), 0.0)
        expected.append(wait)
    np.testing.assert_allclose(wait_s(result), expected, atol=1e-7)


def test_every_wait_is_kiefers_and_wolfowitzs(tmp_path: Path) -> None:
    """The same for servers behind one queue: a request starts when it has come and the first of them is free."""
    result = simulated(
        tmp_path, exponential(tmp_path), 0.9, requests=10_000, servers=4, router={"max_running_requests": 1}
    )
    free_at, expected = [0.0] * 4, []
    for arrived, service in zip(result.requests["arrived_at"], service_s(result), strict=True):
        starts = max(arrived, heapq.heappop(free_at))
        heapq.heappush(free_at, starts + service)
        expected.append(starts)
    np.testing.assert_allclose(result.requests["dispatched_at"], expected, atol=1e-7)


def test_littles_law(tmp_path: Path) -> None:
    """The mean number in flight that the timeline shows is the arrival rate times the mean time in flight."""
    service, servers = exponential(tmp_path), 10
    result = simulated(tmp_path, service, 0.5, servers=servers, policy="random")
    table, timeline = result.requests, result.timeline
    during = timeline[timeline["t_s"].between(50, table["arrived_at"].max())]
    in_flight = servers * during["in_flight"].mean()
    rate_rps = len(table) / table["arrived_at"].max()
    assert in_flight == pytest.approx(rate_rps * (table["finished_at"] - table["dispatched_at"]).mean(), rel=0.06)
    # Random routing splits a Poisson process: ten M/M/1 queues, with rho / (1 - rho) requests each.
    assert in_flight == pytest.approx(servers, rel=0.08)


def test_the_timeline_counts_what_the_records_say(tmp_path: Path) -> None:
    result = simulated(tmp_path, exponential(tmp_path), 0.7, requests=2000, servers=3)
    for server_id, samples in result.timeline.groupby("server_id"):
        there = result.requests[result.requests["server_id"] == server_id]
        for t_s, in_flight in zip(samples["t_s"], samples["in_flight"], strict=True):
            # At time 0 the sample is taken before the first request arrives.
            expected = (there["dispatched_at"] < t_s) & (t_s < there["finished_at"])
            assert in_flight == expected.sum()
        assert (samples["running"] + samples["queued"] == samples["in_flight"]).all()
        assert samples["running"].max() == 1
