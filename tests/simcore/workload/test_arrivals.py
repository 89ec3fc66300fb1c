import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from simcore.workload.arrivals import (
    ArrivalSpec,
    BurstyArrivals,
    ClosedLoopArrivals,
    ConstantArrivals,
    GammaArrivals,
    PoissonArrivals,
    arrival_times,
)

OPEN: list[ArrivalSpec] = [
    PoissonArrivals(rate_rps=20),
    GammaArrivals(rate_rps=20, cv=2),
    ConstantArrivals(rate_rps=20),
    BurstyArrivals(rate_rps=8, burst_rate_rps=56, on_s=1, off_s=3),
]


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("spec", OPEN, ids=lambda spec: spec.kind)
def test_the_mean_rate_is_the_one_asked_for(spec: ArrivalSpec) -> None:
    times = arrival_times(spec, rng(), count=200_000)
    assert len(times) / times[-1] == pytest.approx(20, rel=0.03)


@pytest.mark.parametrize("spec", OPEN, ids=lambda spec: spec.kind)
def test_the_first_request_arrives_at_once_and_none_before_the_one_before(spec: ArrivalSpec) -> None:
    times = arrival_times(spec, rng(), count=5_000)
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("spec", OPEN, ids=lambda spec: spec.kind)
def test_a_duration_keeps_the_arrivals_before_it(spec: ArrivalSpec) -> None:
    times = arrival_times(spec, rng(), duration_s=100)
    more = arrival_times(spec, rng(), count=5_000)
    assert times[-1] < 100 <= more[len(times)]
    np.testing.assert_allclose(times, more[: len(times)], rtol=1e-12)


@pytest.mark.parametrize(("spec", "cv"), [(OPEN[0], 1.0), (OPEN[1], 2.0)])
def test_gaps_vary_as_much_as_asked_for(spec: ArrivalSpec, cv: float) -> None:
    gaps = np.diff(arrival_times(spec, rng(), count=200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_constant_arrivals_do_not_drift() -> None:
    assert arrival_times(ConstantArrivals(rate_rps=10), rng(), count=100_001)[-1] == 10_000
    assert len(arrival_times(ConstantArrivals(rate_rps=10), rng(), duration_s=2)) == 20


def test_bursts_have_both_rates() -> None:
    times = arrival_times(BurstyArrivals(rate_rps=0, burst_rate_rps=100, on_s=5, off_s=15), rng(), duration_s=4_000)
    per_second = np.histogram(times, bins=4_000, range=(0, 4_000))[0]
    assert per_second.mean() == pytest.approx(25, rel=0.15)
    assert 0.6 < (per_second == 0).mean() < 0.8
    assert per_second[per_second > 60].mean() == pytest.approx(100, rel=0.05)


def test_bursts_that_last_as_long_as_the_silence_is_short_are_poisson() -> None:
    spec = BurstyArrivals(rate_rps=20, burst_rate_rps=20, on_s=1, off_s=1)
    gaps = np.diff(arrival_times(spec, rng(), count=100_000))
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.03)


def test_the_first_state_is_drawn_from_the_long_run_shares() -> None:
    spec = BurstyArrivals(rate_rps=1e-6, burst_rate_rps=1e6, on_s=3, off_s=1)
    starts_on = [arrival_times(spec, rng(seed), count=2)[1] < 1e-3 for seed in range(400)]
    assert np.mean(starts_on) == pytest.approx(0.75, abs=0.06)


def test_a_silent_duration_still_has_the_first_request() -> None:
    spec = BurstyArrivals(rate_rps=0, burst_rate_rps=5, on_s=1e-3, off_s=1e6)
    assert arrival_times(spec, rng(), duration_s=10).tolist() == [0]


def test_a_closed_loop_is_ready_at_once() -> None:
    assert arrival_times(ClosedLoopArrivals(max_concurrency=4), rng(), count=3).tolist() == [0, 0, 0]


@given(
    rate=st.floats(0.01, 1e4), burst=st.floats(0.01, 1e4), on_s=st.floats(0.1, 1e3), off_s=st.floats(0.1, 1e3),
    count=st.integers(1, 300), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_every_bursty_process_gives_the_count(
    rate: float, burst: float, on_s: float, off_s: float, count: int, seed: int
) -> None:
    spec = BurstyArrivals(rate_rps=rate, burst_rate_rps=burst, on_s=on_s, off_s=off_s)
    times = arrival_times(spec, rng(seed), count=count)
    assert len(times) == count
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize(
    ("arrivals", "field"),
    [
        ({"kind": "poisson", "rate_rps": -1}, "rate_rps"),
        ({"kind": "poisson", "rate_rps": float("nan")}, "rate_rps"),
        ({"kind": "poisson", "rate_rps": float("inf")}, "rate_rps"),
        ({"kind": "gamma", "rate_rps": 1, "cv": 0}, "cv"),
        ({"kind": "bursty", "rate_rps": 1, "burst_rate_rps": 2, "on_s": 0, "off_s": 1}, "on_s"),
        ({"kind": "closed_loop", "max_concurrency": 0}, "max_concurrency"),
        ({"kind": "constant", "rate_rps": 1, "cv": 1}, "cv"),
    ],
)
def test_nonsense_is_refused_by_its_name(arrivals: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter[ArrivalSpec](ArrivalSpec).validate_python(arrivals)
    assert [error["loc"][-1] for error in caught.value.errors()] == [field]


def test_a_count_or_a_duration_and_not_both() -> None:
    with pytest.raises(ValueError, match="not both"):
        arrival_times(OPEN[0], rng(), count=1, duration_s=1)
    with pytest.raises(ValueError, match="needs a count"):
        arrival_times(ClosedLoopArrivals(max_concurrency=1), rng(), duration_s=1)
