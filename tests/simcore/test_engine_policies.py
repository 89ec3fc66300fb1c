"""The engine and its policy: what a policy is shown, what it is told, and what it may not do."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.engine import First, answering, busy, column, flat_profile, fleet, replay, run, scenario
from support.servers import flat_steps

from policies import ClusterView, Decision, PolicyError, RequestView, Route
from policies.views import ServerView
from simcore.engine import simulate
from simcore.scenario import PolicySpec


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (Route("s7"), "policy answers routed request 0 to the unknown server 's7' (servers: s0, s1)"),
        (
            "s0",
            "policy answers: choose() must return Route, Hold or Reject, not 's0'",
        ),
        (None, "policy answers: choose() must return Route, Hold or Reject, not None"),
    ],
)
def test_a_decision_that_cannot_be_carried_out(decision: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        run(busy(tmp_path), answering(decision))
    assert str(caught.value) == message


def test_a_server_at_its_cap_may_not_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="policy answers routed request 1 to 's0', which is down, at its cap or"):
        run(busy(tmp_path, router={"max_running_requests": 1}), answering(Route("s0")))


def test_a_policy_from_a_file_that_returns_an_unknown_server(tmp_path: Path) -> None:
    file = tmp_path / "lost.py"
    file.write_text(
        "from policies import Policy, Route\n"
        "class Lost(Policy):\n"
        "    def choose(self, request, cluster):\n"
        "        return Route('gpu-1')\n"
    )
    with pytest.raises(PolicyError, match="policy Lost routed request 0 to the unknown server 'gpu-1'"):
        simulate(busy(tmp_path), PolicySpec(name=f"{file}:Lost"), seed=0)


def test_what_a_policy_sees(tmp_path: Path) -> None:
    seen: list[tuple[RequestView, float, int, list[tuple[str, int, int, int | None]]]] = []

    class Watching(First):
        name = "watching"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            servers = [(s.server_id, s.in_flight_requests, s.in_flight_tokens, s.max_running_requests) for s in
                       cluster.servers]  # fmt: skip
            seen.append((request, cluster.now, cluster.queued_requests, servers))
            return Route(cluster.servers[0].server_id)

    slo = {"ttft_s": 1.0}
    workload = replay(tmp_path, [(0, 9, 1000), (0.1, 8, 2)], expected_output={"kind": "mean"})
    run(scenario(fleet(tmp_path, count=2), workload, slo=slo, router={"max_running_requests": 1}), Watching)
    first, second = seen
    assert first == (RequestView(0, "m", 9, 501, 0.0, slo=slo), 0.0, 1, [("s0", 0, 0, 1), ("s1", 0, 0, 1)])
    assert second == (RequestView(1, "m", 8, 501, 0.1, slo=slo), 0.1, 1, [("s1", 0, 0, 1)])


def test_no_policy_sees_what_will_really_be_generated(tmp_path: Path) -> None:
    """Lengths that only an oracle can tell apart give the same views."""
    views: list[RequestView] = []

    class Watching(First):
        name = "watching"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            views.append(request)
            return Route("s0")

    for outputs in ((10, 30), (30, 10)):
        run(scenario(fleet(tmp_path), replay(tmp_path, [(0, 9, outputs[0]), (5, 9, outputs[1])])), Watching)
    assert views[:2] == views[2:]


def test_hooks_come_at_the_times_of_the_records(tmp_path: Path) -> None:
    events: list[tuple[str, int, str, float]] = []

    class Hooked(First):
        name = "hooked"

        def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
            events.append(("dispatched_at", request.request_id, server.server_id, now))

        def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
            events.append(("first_token_at", request.request_id, server.server_id, now))

        def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
            events.append(("finished_at", request.request_id, server.server_id, now))

    profile = flat_profile(max_running_requests=4, overlap=True, requests={"ingress_s": 0.01, "egress_s": 0.02})
    rows = [(0.003 * number, 9 + number, 1 + 7 * number % 40) for number in range(20)]
    result = run(scenario(fleet(tmp_path, profile, count=2), replay(tmp_path, rows)), Hooked)
    expected = [
        (time, row["request_id"], row["server_id"], row[time])
        for _, row in result.requests.iterrows()
        for time in ("dispatched_at", "first_token_at", "finished_at")
    ]
    assert sorted(events, key=lambda event: (event[1], event[3], event[0])) == sorted(
        expected, key=lambda event: (event[1], event[3], event[0])
    )
    times = [event[3] for event in events]
    assert times == sorted(times), "told in the order in which it happens"


def test_a_failed_request_leaves_its_server_in_the_policys_eyes(tmp_path: Path) -> None:
    finished: list[tuple[int, int]] = []

    class Hooked(First):
        name = "hooked"

        def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
            finished.append((request.request_id, server.in_flight_requests))

    workload = replay(tmp_path, [(0, 5000, 3), (0, 5, 3)])
    run(scenario(fleet(tmp_path, flat_profile(context_length=1000)), workload), Hooked)
    assert finished == [(0, 1), (1, 0)]


def test_what_a_run_cannot_provide_is_refused_at_the_start(tmp_path: Path) -> None:
    workload = replay(tmp_path, [(0, 9, 1)], expected_output={"kind": "none"})
    nothing_expected = scenario(fleet(tmp_path), workload)
    with pytest.raises(PolicyError, match="policy least_outstanding_tokens needs expected_output_tokens, which this"):
        run(nothing_expected, "least_outstanding_tokens")
    by_length = scenario(fleet(tmp_path), workload, router={"queue_order": "sjf"})
    with pytest.raises(PolicyError, match="queue order sjf needs expected_output_tokens, which this run does not"):
        run(by_length, "round_robin")
    assert column(run(nothing_expected, "least_request"), "status") == ["finished"]


def test_a_policy_that_needs_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    needy = type("Needy", (First,), {"name": "needy", "needs": frozenset({"gpu_temperature"})})
    with pytest.raises(PolicyError, match="policy needy needs gpu_temperature, which no request or server has"):
        run(busy(tmp_path), needy)


def test_prefix_hashes_are_for_those_who_ask(tmp_path: Path) -> None:
    """Equal exactly as far as prompts are equal: two prefixes of 200 tokens are three blocks of 64."""
    seen: list[tuple[int, ...]] = []

    class Watching(First):
        name = "watching"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            seen.append(request.prefix_hashes)
            return Route("s0")

    asking = type("Asking", (Watching,), {"name": "asking", "needs": frozenset({"prefix_hashes"})})
    workload = {
        "arrivals": {"kind": "constant", "rate_rps": 1},
        "requests": 4,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 100}, "output": {"kind": "fixed", "tokens": 1}},
        "prefixes": {
            "groups": 2,
            "system_prompt": {"kind": "fixed", "tokens": 200},
            "choice": {"kind": "round_robin"},
        },
    }
    shared = scenario(fleet(tmp_path), workload)
    run(shared, Watching)
    assert seen == [()] * 4
    seen.clear()
    run(shared, asking)
    a, b, c, d = seen
    assert [len(hashes) for hashes in seen] == [4] * 4
    assert a[:3] == c[:3]
    assert b[:3] == d[:3]
    assert len({a[0], b[0]}) == 2
    assert len({a[3], b[3], c[3], d[3]}) == 4, "the fourth block has the question in it"


def test_sessions_are_shown(tmp_path: Path) -> None:
    seen = SimpleNamespace(sessions=[])

    class Watching(First):
        name = "watching"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            seen.sessions.append(request.session_id)
            return Route("s0")

    workload = {
        "arrivals": {"kind": "constant", "rate_rps": 1},
        "duration_s": 2,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 100}, "output": {"kind": "fixed", "tokens": 1}},
        "sessions": {
            "turns": {"kind": "fixed", "turns": 2},
            "think_s": {"kind": "fixed", "time_s": 10},
            "message": {"kind": "fixed", "tokens": 5},
        },
    }
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 0.5)))
    result = run(scenario(servers, workload), Watching)
    assert seen.sessions == [0, 1, 0, 1]
    assert column(result, "session_id") == [0, 0, 1, 1]
