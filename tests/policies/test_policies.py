"""Each policy's choice, on views written by hand."""

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from policies import (
    ClusterView,
    Policy,
    PolicyError,
    RequestView,
    Route,
    make_order,
    make_policy,
    policy_descriptions,
)
from policies.ledger import ServerConfig, ServerReport, ServerState
from policies.needs import check_needs, needs_reports
from policies.router import Router


@dataclass
class Load:
    requests: int = 0
    tokens: int = 0


def servers(*loads: Load) -> list[ServerState]:
    states = []
    for index, load in enumerate(loads):
        state = ServerState(ServerConfig(f"s{index}", "m"), index)
        state.in_flight_requests, state.in_flight_tokens = load.requests, load.tokens
        states.append(state)
    return states


def choose(policy: Policy, states: list[ServerState], expected: int | None = 100) -> str:
    decision = policy.choose(RequestView(0, "m", 50, expected, 0.0), ClusterView(0.0, states, 1))
    assert isinstance(decision, Route)
    return decision.server_id


def spread(name: str, states: list[ServerState], draws: int = 3000) -> Counter[str]:
    policy = make_policy(name, {}, seed=1)
    return Counter(choose(policy, states) for _ in range(draws))


def test_random_is_uniform() -> None:
    counts = spread("random", servers(Load(), Load(9), Load(99)))
    assert all(900 < counts[f"s{index}"] < 1100 for index in range(3))


def test_round_robin_takes_turns() -> None:
    policy, states = make_policy("round_robin", {}, 0), servers(Load(), Load(), Load())
    assert [choose(policy, states) for _ in range(7)] == ["s0", "s1", "s2", "s0", "s1", "s2", "s0"]


def test_least_request_takes_the_fewest_and_breaks_ties_evenly() -> None:
    assert spread("least_request", servers(Load(3), Load(1), Load(2))) == {"s1": 3000}
    counts = spread("least_request", servers(Load(1), Load(1), Load(2), Load(1)))
    assert counts["s2"] == 0
    assert all(880 < counts[name] < 1120 for name in ("s0", "s1", "s3"))


def test_least_outstanding_tokens_looks_at_tokens_not_requests() -> None:
    assert spread("least_outstanding_tokens", servers(Load(1, 900), Load(5, 300))) == {"s1": 3000}


def test_power_of_two_never_takes_the_most_loaded_and_draws_distinct_servers() -> None:
    counts = spread("power_of_two", servers(Load(0), Load(1), Load(2)))
    assert counts["s2"] == 0
    # The least loaded wins two of the three equally likely pairs.
    assert 1900 < counts["s0"] < 2100
    assert spread("power_of_two", servers(Load(7))) == {"s0": 3000}


def test_shortest_job_first_places_by_work_owed_and_forgets_it_at_the_end() -> None:
    policy = make_policy("shortest_job_first", {"prompt_weight": 0.1}, 0)
    router = Router([ServerConfig("s0", "m"), ServerConfig("s1", "m")], policy)
    (first,) = router.on_arrival(0.0, RequestView(0, "m", 1000, 10, 0.0))
    long_on = first.server_id  # type: ignore[union-attr]
    for request_id in (1, 2):
        (action,) = router.on_arrival(0.0, RequestView(request_id, "m", 10, 50, 0.0))
        assert action.server_id != long_on, "110 owed there, at most 102 here"  # type: ignore[union-attr]
    for request_id in range(3):
        router.on_finish(1.0, request_id)
    assert set(policy._owed.values()) == {0.0}  # type: ignore[attr-defined]


def reported(state: ServerState, policy: Policy, **report: float) -> None:
    state.read(ServerReport(0.0, **report))  # type: ignore[arg-type]
    policy.on_report(state, 0.0)


def test_parameter_aware_predicts_from_reports_and_credits_what_was_sent_since() -> None:
    policy, states = make_policy("parameter_aware", {}, 0), servers(Load(), Load())
    common = {"running_requests": 2, "queued_requests": 0, "mean_ttft_s": 0.1}
    reported(states[0], policy, throughput_tps=1000.0, mean_tpot_s=0.010, **common)
    reported(states[1], policy, throughput_tps=1000.0, mean_tpot_s=0.011, **common)
    assert choose(policy, states) == "s0"
    # One request sent since is 100 expected tokens at 1000 tokens/s: 0.1 s, as much as s1's slower tokens cost.
    states[0].requests_since_report = 2
    assert choose(policy, states) == "s1"
    assert policy.predict(states[0], 100, 100.0) == pytest.approx(0.1 + 1.0 + (2 + 2) * 0.1)  # type: ignore[attr-defined]


def test_parameter_aware_judges_throughput_by_its_peak() -> None:
    policy, (state,) = make_policy("parameter_aware", {}, 0), servers(Load())
    reported(state, policy, throughput_tps=800.0, running_requests=8, queued_requests=0)
    reported(state, policy, throughput_tps=10.0, running_requests=1, queued_requests=0)
    assert policy.predict(state, 100, 100.0) == pytest.approx(100 / 800)  # type: ignore[attr-defined]


def test_every_policy_describes_itself_and_its_parameters() -> None:
    names = [description.name for description in policy_descriptions()]
    assert names[:4] == ["random", "round_robin", "least_request", "power_of_two"]
    for description in policy_descriptions():
        assert description.summary
        assert description.source
        assert description.definition
        assert description.helps
        assert description.hurts
        assert all(parameter.meaning and parameter.default is not None for parameter in description.parameters)
        assert (
            make_policy(description.name, {p.name: p.default for p in description.parameters}, 0).name
            == description.name
        )


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("leest_request", {}, "unknown policy 'leest_request'; known: random"),
        ("random", {"alpha": 1}, "policy random has no parameter 'alpha'; it has: none"),
        ("shortest_job_first", {"prompt_weight": "a"}, "prompt_weight must be of type float, not 'a'"),
        ("nowhere.py:Mine", {}, "no policy file nowhere.py"),
    ],
)
def test_wrong_names_and_parameters_are_told(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_policy(name, params, 0)


MINE = """
from policies import Policy, Route

class Last(Policy):
    def __init__(self, rng, offset: int = 1):
        super().__init__(rng)
        self.offset = offset

    def choose(self, request, cluster):
        return Route(cluster.servers[-self.offset].server_id)

class Unfinished(Policy):
    pass

class Forgetful(Policy):
    def __init__(self, rng):
        pass

    def choose(self, request, cluster):
        return Route("s0")
"""


def test_a_policy_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    policy = make_policy(f"{path}:Last", {"offset": 2}, 0)
    assert choose(policy, servers(Load(), Load(), Load())) == "s1"
    assert policy.name == "Last"
    for name, message in (
        ("Nothing", "has no Policy subclass"),
        ("Unfinished", "does not implement choose"),
        ("Forgetful", r"must call super\(\).__init__"),
    ):
        with pytest.raises(PolicyError, match=message):
            make_policy(f"{path}:{name}", {}, 0)
    path.write_text("def broken(:")
    with pytest.raises(PolicyError, match="cannot be loaded: SyntaxError"):
        make_policy(f"{path}:Last", {}, 0)


def test_needs_are_checked_before_the_run() -> None:
    policy, order = make_policy("parameter_aware", {}, 0), make_order("fcfs")
    assert needs_reports(policy)
    assert not needs_reports(make_policy("shortest_job_first", {}, 0))
    check_needs(policy, order, set())
    with pytest.raises(PolicyError, match="policy parameter_aware needs mean_ttft_s, which this run does not provide"):
        check_needs(policy, order, {"mean_ttft_s"})
    with pytest.raises(PolicyError, match="queue order sjf needs expected_output_tokens"):
        check_needs(make_policy("random", {}, 0), make_order("sjf"), {"expected_output_tokens"})
    with pytest.raises(PolicyError, match="unknown queue order"):
        make_order("lifo")


def test_a_need_that_nothing_has_is_told() -> None:
    class Odd(Policy):
        name = "odd"
        needs = frozenset({"gpu_temperature"})

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            return Route("s0")

    with pytest.raises(PolicyError, match="needs gpu_temperature, which no request or server has"):
        check_needs(Odd(random.Random(0)), make_order("fcfs"), set())
