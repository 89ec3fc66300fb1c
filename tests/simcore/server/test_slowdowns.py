"""A server that becomes slower and faster at known times."""

from pathlib import Path

import pytest
from support.engine import column, fixed_lengths, flat_profile, fleet, replay, run, scenario
from support.servers import request, step_bench

from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.profile_parts import Slowdown

NAMES = ("dispatched_at", "finished_at")
SLOWDOWNS = (Slowdown(at_s=3.0, decode=2.0, prefill=1.5), Slowdown(at_s=20.5, decode=0.5, prefill=1.0))


@pytest.mark.parametrize("exact_steps", [False, True])
def test_a_step_takes_as_long_as_it_does_when_it_begins(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, slowdowns=SLOWDOWNS)
    # Prefill to 10 s at its time of the beginning; then steps of 2 s, the last from 20 to 22; then of half a second.
    bench.send(request(0, 8, 12), request(1, 8, 1, at=40.0))
    log = bench.run()
    assert log.first == {0: 10.0, 1: 50.0}
    assert log.ended_at[0] == pytest.approx(22.0 + 5 * 0.5)


def test_a_prefill_that_begins_in_a_slowdown_takes_longer() -> None:
    bench = step_bench(slowdowns=SLOWDOWNS)
    bench.send(request(0, 8, 1, at=3.0))
    assert bench.run().first[0] == pytest.approx(3.0 + 15.0)


def test_a_profile_brings_its_slowdowns_into_a_run(tmp_path: Path) -> None:
    steady = flat_profile()
    slowed = ServiceProfile.model_validate(
        steady.model_dump() | {"slowdowns": [{"at_s": 1.0, "decode": 3.0, "prefill": 2.0}]}
    )
    arrivals = replay(tmp_path, [(0.0, 1, 2), (1.5, 1, 2)])
    latencies = []
    for profile in (steady, slowed):
        result = run(scenario(fleet(tmp_path, profile), arrivals))
        latencies.append([end - start for start, end in zip(*(column(result, name) for name in NAMES), strict=True)])
    before, after = latencies
    assert after[0] == pytest.approx(before[0])
    assert 2 * before[1] < after[1] < 3 * before[1]


def test_static_batches_know_no_slowdowns(tmp_path: Path) -> None:
    static = flat_profile(batching="static", max_running_requests=2, radix_cache=False)
    slowed = static.model_copy(update={"slowdowns": SLOWDOWNS})
    workload = {"lengths": fixed_lengths(1, 2), "arrivals": {"kind": "poisson", "rate_rps": 1.0}, "requests": 2}
    with pytest.raises(UserError, match="slowdowns are for continuous batching"):
        run(scenario(fleet(tmp_path, slowed), workload))


def test_slowdowns_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(flat_profile().model_copy(update={"slowdowns": SLOWDOWNS[::-1]}).to_json())
    with pytest.raises(UserError, match="at_s must rise"):
        ServiceProfile.load(str(path), Path())
