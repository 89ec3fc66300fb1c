"""The error of mean E2E in parts: they add up to it, and name where it is."""

from pathlib import Path

import numpy as np
import pytest
from support.engine import flat_profile, fleet, scenario
from support.results import make_result

from simcore.compare.agreement import agreements
from simcore.compare.breakdown import PARTS, breakdown, path_of
from simcore.compare.side import Side, side_of
from simcore.engine import simulate
from simcore.metrics import summarise
from simcore.records import RunResult
from simcore.scenario import PolicySpec


def side(result: RunResult) -> Side:
    return Side.make("it", result, summarise(result, {}, 0.0))


def one(**times: float) -> Side:
    return side(make_result([{"arrived_at": 0.0, **times}]))


def test_each_part_is_told_by_its_times() -> None:
    real = one(dispatched_at=1.0, server_queue_s=2.0, prefill_s=0.5, first_token_at=4.0, finished_at=10.0)
    (row,) = path_of(real).to_dict("records")

    assert row == {
        "router_wait_s": 1.0,
        "server_queue_s": 2.0,
        "prefill_s": 0.5,
        "overhead_s": 0.5,
        "server_ttft_s": 3.0,
        "decode_s": 6.0,
    }
    assert list(row) == list(PARTS)


@pytest.mark.parametrize(
    ("part", "longer"),
    [
        ("router_wait_s", {"dispatched_at": 2.0, "first_token_at": 5.0, "finished_at": 11.0}),
        ("server_queue_s", {"server_queue_s": 3.0, "first_token_at": 5.0, "finished_at": 11.0}),
        ("prefill_s", {"prefill_s": 1.5, "first_token_at": 5.0, "finished_at": 11.0}),
        ("overhead_s", {"first_token_at": 5.0, "finished_at": 11.0}),
        ("decode_s", {"finished_at": 11.0}),
    ],
)
def test_the_error_is_where_the_time_went(part: str, longer: dict[str, float]) -> None:
    times = {"dispatched_at": 1.0, "server_queue_s": 2.0, "prefill_s": 0.5, "first_token_at": 4.0, "finished_at": 10.0}
    errors = {found.name: found.error_s for found in breakdown([one(**times)], [one(**times | longer)])}

    assert errors.pop(part) == pytest.approx(1.0)
    assert set(errors.values()) == {0.0}


def random_run(seed: int, *, told: bool = True) -> Side:
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1.0, (60, 4))
    rows = [
        {
            "arrived_at": float(number),
            "dispatched_at": number + a,
            "server_queue_s": 0.3 * b if told else np.nan,
            "prefill_s": 0.5 * b if told else np.nan,
            "first_token_at": number + a + b,
            "finished_at": number + a + b + c,
            "status": "finished" if d < 2 else "failed",
        }
        for number, (a, b, c, d) in enumerate(gaps)
    ]
    return side(make_result(rows))


@pytest.mark.parametrize("told", [True, False])
def test_the_parts_add_up_to_the_error_of_mean_e2e(told: bool) -> None:
    real, simulated = [random_run(seed, told=told) for seed in (1, 2)], [random_run(seed) for seed in (3, 4)]
    parts = breakdown(real, simulated)
    found = agreements(real, simulated)["mean_e2e_s"]

    assert sum(part.error_s for part in parts) == pytest.approx(found.simulated - found.real, abs=1e-12)
    assert sum(part.real_s for part in parts) == pytest.approx(found.real, abs=1e-12)
    names = [part.name for part in parts]
    if told:
        assert names == ["router_wait_s", "server_queue_s", "prefill_s", "overhead_s", "decode_s"]
    else:
        assert names == ["router_wait_s", "server_ttft_s", "decode_s"]


@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_a_simulated_run_tells_its_parts(batching: str, tmp_path: Path) -> None:
    """One slot, steps of 1 ms: the second request waits at the server for the first one's 10 tokens."""
    profile = flat_profile(requests={"ingress_s": 0.002, "egress_s": 0.003}, batching=batching)
    workload = {
        "arrivals": {"kind": "closed_loop", "max_concurrency": 2},
        "requests": 2,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 10}, "output": {"kind": "fixed", "tokens": 10}},
    }
    given = scenario(fleet(tmp_path, profile), workload)
    path = path_of(side_of("it", simulate(given, PolicySpec(name="random"), 0), given))

    assert path["server_queue_s"].tolist() == pytest.approx([0.0, 0.010])
    assert path["prefill_s"].tolist() == pytest.approx([0.001, 0.001])
    assert path["overhead_s"].tolist() == pytest.approx([0.005, 0.005])
    assert path["decode_s"].tolist() == pytest.approx([0.009, 0.009])
