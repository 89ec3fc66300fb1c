"""The router's caps, and changing them while requests run."""

from pathlib import Path

import numpy as np
import pytest
from support.engine import STEP_S, column, flat_profile, fleet, replay, run, scenario

from simcore.records import RunResult
from simcore.scenario import Scenario


def in_flight(result: RunResult, server_id: str = "s0") -> list[tuple[float, int]]:
    """(time, requests in flight from then on) at every time at which the number on a server changes."""
    there = result.requests[result.requests["server_id"] == server_id]
    begins = [(at, 1) for at in there["dispatched_at"]]
    ends = [(at, -1) for at in there["finished_at"]]
    counts: dict[float, int] = {}
    for at, change in sorted(begins + ends):
        counts[at] = counts.get(at, 0) + change
    return list(zip(counts, np.cumsum(list(counts.values())).tolist(), strict=True))


def waves(folder: Path, *, cap: int | None, control: list[dict[str, object]], servers: int = 1) -> Scenario:
    """Forty requests of one second, the first tokens of which come together; the server has slots for all."""
    profile = flat_profile(max_running_requests=64, max_prefill_tokens=10**6)
    workload = replay(folder, [(0.0, 1, 1000)] * 40)
    router = {"max_running_requests": cap}
    return scenario(fleet(folder, profile, count=servers), workload, router=router, control=control)


def test_a_cap_is_never_exceeded_and_always_used(tmp_path: Path) -> None:
    result = run(waves(tmp_path, cap=8, control=[]))
    assert in_flight(result)[0] == (0, 8)
    assert max(count for _, count in in_flight(result)) == 8
    assert result.servers["peak_running"].tolist() == [8]
    assert min(column(result, "dispatched_at")) == 0
    steps = result.servers["steps"].sum()
    assert result.duration_s == pytest.approx(steps * STEP_S)
    assert 5 * 1000 <= steps < 5 * 1000 + 40, "five waves, and prefills that come between"


def test_each_server_has_the_cap_for_itself(tmp_path: Path) -> None:
    result = run(waves(tmp_path, cap=8, control=[], servers=2))
    assert [max(count for _, count in in_flight(result, name)) for name in ("s0", "s1")] == [8, 8]


def test_lowering_a_cap_preempts_nothing(tmp_path: Path) -> None:
    """Ten run when the cap falls to 3: all go on, and the next is sent when fewer than 3 are left."""
    outputs = [1000 + 100 * number for number in range(10)] + [500] * 4
    servers = fleet(tmp_path, flat_profile(max_running_requests=64, max_prefill_tokens=10**6))
    control = [{"at_s": 0.5, "max_running_requests": 3}]
    workload = replay(tmp_path, [(0.0, 1, output) for output in outputs])
    result = run(scenario(servers, workload, router={"max_running_requests": 10}, control=control))
    finished = column(result, "finished_at")
    # The first request's prefill has a step of its own, as it comes to an idle server.
    expected = [1.001 + 0.1 * number for number in range(8)]
    assert finished[:8] == pytest.approx(expected, abs=1e-9), "as if the cap had not fallen"
    dispatched = column(result, "dispatched_at")
    assert dispatched[:10] == [0.0] * 10
    assert dispatched[10] == finished[7], "the eighth end leaves two"
    assert column(result, "retractions") == [0] * 14
    assert all(count <= 3 for at, count in in_flight(result) if at >= finished[6])


def test_raising_a_cap_admits_at_once(tmp_path: Path) -> None:
    result = run(waves(tmp_path, cap=2, control=[{"at_s": 0.25, "max_running_requests": 5}]))
    assert in_flight(result)[:2] == [(0.0, 2), (0.25, 5)]


def test_lifting_a_cap_admits_all(tmp_path: Path) -> None:
    result = run(waves(tmp_path, cap=2, control=[{"at_s": 0.25, "max_running_requests": None}]))
    assert in_flight(result)[:2] == [(0.0, 2), (0.25, 40)]


def test_a_cap_may_come_later(tmp_path: Path) -> None:
    workload = replay(tmp_path, [(0.0, 1, 1000), (0.0, 1, 1000), (0.5, 1, 1)])
    servers = fleet(tmp_path, flat_profile(max_running_requests=64))
    control = [{"at_s": 0.4, "max_running_requests": 2}]
    result = run(scenario(servers, workload, control=control))
    assert column(result, "dispatched_at") == [0, 0, column(result, "finished_at")[0]]


def test_one_servers_cap(tmp_path: Path) -> None:
    """What s0 lets go, s1 does not: 5 more go to s0 alone."""
    control = [{"at_s": 0.25, "server": "s0", "max_running_requests": 7}]
    result = run(waves(tmp_path, cap=2, control=control, servers=2))
    assert in_flight(result, "s0")[:2] == [(0.0, 2), (0.25, 7)]
    assert max(count for _, count in in_flight(result, "s1")) == 2


def test_actions_at_one_time_come_in_their_order(tmp_path: Path) -> None:
    control = [{"at_s": 0.25, "max_running_requests": 9}, {"at_s": 0.25, "max_running_requests": 4}]
    result = run(waves(tmp_path, cap=2, control=control))
    assert in_flight(result)[1] == (0.25, 9), "what the first let go is not called back"
    later = [count for at, count in in_flight(result) if at > 1 + 10 * STEP_S]
    assert max(later) == 4


def test_an_action_after_the_end_does_not_prolong_the_run(tmp_path: Path) -> None:
    result = run(waves(tmp_path, cap=None, control=[{"at_s": 1e6, "max_running_requests": 4}]))
    assert result.duration_s == max(column(result, "finished_at"))


def test_the_routers_cap_is_not_the_servers(tmp_path: Path) -> None:
    """The server runs 4; the router has 6 in flight there, so that 2 wait at the server and not in the router's queue;
    and the clients' limit keeps all others outside, where they have not arrived yet."""
    profile = flat_profile(max_running_requests=4, max_prefill_tokens=10**6)
    workload = replay(tmp_path, [(0.0, 1, 1000)] * 20, max_concurrency=9)
    result = run(scenario(fleet(tmp_path, profile), workload, router={"max_running_requests": 6}))
    first = result.timeline.iloc[5]
    assert (first["running"], first["queued"], first["in_flight"]) == (4, 2, 6)
    at = first["t_s"]
    assert (result.requests["arrived_at"] <= at).sum() == 9
    assert (result.requests["dispatched_at"] <= at).sum() == 6
    assert result.servers["peak_running"].tolist() == [4]
