"""How far off a simulation is, in the scale of each quantity; and what verdict that makes."""

import math

import pytest
from support.results import make_result, noisy_result

from simcore.compare.agreement import AGREEMENTS, SERIES, agreements
from simcore.compare.agreement_tables import BARS, agreement_table, breakdown_table, trust
from simcore.compare.breakdown import breakdown
from simcore.compare.side import Side
from simcore.metrics import summarise
from simcore.records import RunResult


def side(result: RunResult) -> Side:
    return Side.make("it", result, summarise(result, {}, 0.0))


def request(at: float, *, wait: float = 0.0, e2e: float = 10.0, **more: object) -> dict[str, object]:
    times = {"arrived_at": at, "dispatched_at": at + wait, "first_token_at": at + e2e / 2, "finished_at": at + e2e}
    return {**times, **more}


def runs(count: int = 40, **more: object) -> Side:
    return side(make_result([request(float(at), **more) for at in range(count)], duration_s=100.0))  # type: ignore[arg-type]


def test_a_run_agrees_with_itself() -> None:
    run = side(noisy_result(requests=200))
    found = agreements([run], [run])

    assert list(found) == list(AGREEMENTS)
    assert {one.error.value for one in found.values()} == {0.0}
    assert trust(found) == ("good", [])


def test_latencies_are_off_by_a_share_of_the_real_one() -> None:
    found = agreements([runs(e2e=10.0)], [runs(e2e=11.0)])

    for name in ("mean_e2e_s", "p50_e2e_s", "p99_e2e_s", "mean_ttft_s", "mean_tpot_s"):
        assert found[name].error.value == pytest.approx(0.1)
        assert found[name].scale == "relative"
    assert (found["mean_e2e_s"].real, found["mean_e2e_s"].simulated) == pytest.approx((10.0, 11.0))


def test_the_routers_wait_is_off_by_a_share_of_e2e_and_so_may_be_zero() -> None:
    error = agreements([runs(wait=0.0)], [runs(wait=0.5)])["mean_router_wait_s"]

    assert (error.scale, error.error.value) == ("of E2E", pytest.approx(0.05))


def test_cache_hits_are_off_in_points_and_counts_by_at_least_one() -> None:
    real, simulated = runs(cached_tokens=30), runs(cached_tokens=25)
    hits = agreements([real], [simulated])["cache_hit_rate"]
    assert (hits.scale, hits.error.value) == ("points", pytest.approx(-0.05))

    def retracted(times: int) -> Side:
        rows = [request(float(at), retractions=int(at < times)) for at in range(40)]
        return side(make_result(rows, duration_s=100.0))

    assert agreements([retracted(10)], [retracted(13)])["retractions"].error.value == pytest.approx(0.3)
    assert agreements([retracted(0)], [retracted(2)])["retractions"].error.value == pytest.approx(2.0)
    assert agreements([retracted(0)], [retracted(0)])["retractions"].error.value == 0.0


def test_repeats_are_averaged_and_make_the_interval() -> None:
    real, simulated = [runs(e2e=10.0), runs(e2e=20.0)], [runs(e2e=11.0), runs(e2e=21.0)]
    error = agreements(real, simulated)["mean_e2e_s"].error

    assert error.value == pytest.approx(1 / 15)
    assert (error.low, error.high) == pytest.approx((1 / 15, 1 / 15))


def test_draws_are_averaged_and_tell_what_is_chance() -> None:
    real = [runs(e2e=10.0), runs(e2e=20.0)]
    first, second = [runs(e2e=9.0), runs(e2e=22.0)], [runs(e2e=15.0), runs(e2e=24.0)]
    found = agreements(real, first, second)

    assert found["mean_e2e_s"].simulated == pytest.approx((12 + 23) / 2)
    error = found["mean_e2e_s"].error
    assert error.value == pytest.approx(2.5 / 15)
    # Draws of 15.5 and 19.5 s: a third one is within 12.7 times 1.2 of their standard deviation of their mean.
    assert (error.high - error.low) / 2 == pytest.approx(12.706 * 1.5**0.5 * 8**0.5 / 15, rel=1e-3)
    assert found[SERIES].error.value == pytest.approx(2.5 / 15)


def test_the_courses_of_draws_are_averaged_before_they_are_compared() -> None:
    """One draw is as much too long as the other is too short."""
    found = agreements([runs(e2e=10.0)], [runs(e2e=9.0)], [runs(e2e=11.0)])

    assert found["mean_e2e_s"].error.value == pytest.approx(0.0)
    assert found[SERIES].error.value == pytest.approx(0.0)


def test_the_course_of_e2e_is_compared_span_by_span() -> None:
    """Two courses with the same mean: one rises where the other falls."""
    up = side(make_result([request(float(at), e2e=5.0 + at / 10) for at in range(100)], duration_s=200.0))
    down = side(make_result([request(float(at), e2e=14.9 - at / 10) for at in range(100)], duration_s=200.0))
    found = agreements([up], [down])

    assert found["mean_e2e_s"].error.value == pytest.approx(0.0, abs=1e-9)
    # The spans' means are 9, 7, 5, 3, 1, 1, 3, 5, 7 and 9 apart, of a mean of 9.95.
    assert found[SERIES].error.value == pytest.approx(5.0 / 9.95, rel=0.02)


@pytest.mark.parametrize(("factor", "verdict"), [(0.99, "good"), (1.5, "usable"), (2.5, "do not trust")])
def test_the_verdict_is_by_the_worst(factor: float, verdict: str) -> None:
    """E2E alone is off: by what its bar says, times a factor."""
    off = 10.0 * (1 + BARS["mean_e2e_s"] * factor)
    simulated = [request(float(at), e2e=off, first_token_at=at + 5.0, output_tokens=1) for at in range(40)]
    real = [request(float(at), output_tokens=1) for at in range(40)]
    found = agreements([side(make_result(real, duration_s=1e4))], [side(make_result(simulated, duration_s=1e4))])
    word, reasons = trust({**found, "request_throughput_rps": found["retractions"]})

    assert word == verdict
    assert [reason.partition(" is off")[0] for reason in reasons] == ([] if verdict == "good" else ["mean E2E"])


def test_what_could_not_be_measured_is_not_judged() -> None:
    none = side(make_result([request(1.0, status="failed")]))
    found = agreements([none], [none])

    assert math.isnan(found["mean_e2e_s"].error.value)
    assert trust(found)[0] == "good"
    assert "mean E2E" not in [row[0].text for row in agreement_table(found, "it").rows]


def test_tables() -> None:
    real, simulated = runs(wait=1.0), runs(wait=2.0, cached_tokens=30)
    rows = {
        row[0].text: [cell.text for cell in row] for row in agreement_table(agreements([real], [simulated]), "it").rows
    }
    assert rows["cache hits"][4] == "+30.00 pts"
    assert rows["mean router wait"][4] == "+10%"

    parts = breakdown([real], [simulated])
    cells = {row[0].text: [cell.text for cell in row] for row in breakdown_table(parts, "it").rows}
    assert cells["router wait"][2:5] == ["1,000", "2,000", "+1,000"]
    assert cells["server ttft"][4] == "-1,000"
    assert cells["mean E2E"][4] == "0"
