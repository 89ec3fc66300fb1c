"""Controllers by their definitions: worked examples, followed by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.choices import request

from policies import Parameter, PolicyError, Span, make_policy, policy_class, policy_descriptions, policy_parameters
from policies.controllers import (
    Cap,
    ControlledRouter,
    Controller,
    check_controller_needs,
    controller_class,
    controller_descriptions,
    controller_parameters,
    make_controller,
)
from policies.ledger import ServerConfig, ServerReport, ServerState
from policies.router import Dispatch


def server(server_id: str = "s0", cap: int | None = None) -> ServerState:
    return ServerState(ServerConfig(server_id, "m", cap), 0)


def make(name: str, **params: Any) -> Controller:
    return make_controller(name, params)


def first_tokens(controller: Controller, at: ServerState, waits_s: list[float], now: float) -> None:
    for wait_s in waits_s:
        controller.on_first_token(request(), at, now - wait_s, now)


def report(at: ServerState, reported_at: float, used: int, running: int = 0) -> None:
    at.read(ServerReport(reported_at, running_requests=running, kv_tokens_used=used, kv_tokens_capacity=1000))


# -- fixed_schedule ----------------------------------------------------------------------------------------------------


def test_a_schedule_gives_each_entry_once_at_its_time_in_its_order() -> None:
    controller = make("fixed_schedule", caps=[[9, "all", None], [5, "s1", 4], [5, "s1", 6]])
    assert controller.moments == (5, 9)
    assert controller.interval_s is None
    fleet = [server("s0"), server("s1")]
    assert controller.decide(4.9, fleet) == []
    assert controller.decide(5.0, fleet) == [Cap("s1", 4), Cap("s1", 6)]
    assert controller.decide(5.0, fleet) == []
    assert controller.decide(9.0, fleet) == [Cap("s0", None), Cap("s1", None)]


@pytest.mark.parametrize(
    "entry", [5, [1, "s0"], [-1, "s0", 3], [1, 0, 3], [1, "s0", 0], [1, "s0", True], [True, "s0", 1]]
)
def test_an_entry_of_another_form_is_told(entry: object) -> None:
    with pytest.raises(PolicyError, match=r"caps are entries \[at_s, server, cap\]"):
        make("fixed_schedule", caps=[entry])


def test_a_schedule_for_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(PolicyError, match="no server 's7'; there are: s0, s1"):
        make("fixed_schedule", caps=[[1, "s7", 3]]).check(["s0", "s1"])


# -- aimd_ttft ---------------------------------------------------------------------------------------------------------


def test_the_quantile_of_an_intervals_first_tokens_decides() -> None:
    """Of ten waits of 0.1 s to 1.0 s the ninth is the 90% one: 0.9 s."""
    waits_s = [number / 10 for number in range(1, 11)]
    for target_s, expected in ((0.89, [Cap("s0", 8)]), (0.91, [])):
        controller, one = make("aimd_ttft", target_s=target_s, max_cap=16), server()
        assert controller.decide(0.0, [one]) == [Cap("s0", 16)], "it begins at the maximum"
        first_tokens(controller, one, waits_s, 4.0)
        assert controller.decide(5.0, [one]) == expected
        assert controller.decide(10.0, [one]) == [], "each interval by its own"


def test_first_tokens_of_what_was_sent_before_a_cut_do_not_cut_again() -> None:
    controller, one = make("aimd_ttft", target_s=0.5, max_cap=16), server()
    controller.decide(0.0, [one])
    first_tokens(controller, one, [2.0], 4.0)
    assert controller.decide(5.0, [one]) == [Cap("s0", 8)]
    first_tokens(controller, one, [3.0], 7.0)
    assert controller.decide(10.0, [one]) == []
    first_tokens(controller, one, [3.0], 11.0)
    assert controller.decide(15.0, [one]) == [Cap("s0", 4)], "sent at 8 s, after the cut"


def test_a_cap_rises_only_where_it_was_met() -> None:
    controller, one = make("aimd_ttft", target_s=0.5, increase=2, max_cap=16), server()
    controller.decide(0.0, [one])
    first_tokens(controller, one, [2.0], 4.0)
    controller.decide(5.0, [one])
    one.in_flight_requests = 7
    first_tokens(controller, one, [0.1], 7.0)
    assert controller.decide(10.0, [one]) == []
    one.in_flight_requests = 8
    first_tokens(controller, one, [0.1], 11.0)
    assert controller.decide(15.0, [one]) == [Cap("s0", 10)]


def test_aimd_makes_a_saw() -> None:
    """A server whose TTFT is 0.1 s for each request in flight, always as many as its cap, and a target of 0.8 s."""
    controller, one, caps = make("aimd_ttft", target_s=0.85, interval_s=1.0, max_cap=16), server(), []
    for tick in range(16):
        for _, cap in controller.decide(float(tick), [one]):
            one.max_running_requests = cap
        cap = one.max_running_requests
        assert cap is not None
        caps.append(cap)
        one.in_flight_requests = cap
        controller.on_first_token(request(), one, tick + 0.01, tick + 0.01 + 0.1 * cap)
    assert caps == [16, 8, 9, 4, 5, 6, 7, 8, 9, 4, 5, 6, 7, 8, 9, 4]


def test_each_server_has_its_own_cap() -> None:
    controller, fleet = make("aimd_ttft", max_cap=16), [server("s0"), server("s1")]
    controller.decide(0.0, fleet)
    first_tokens(controller, fleet[1], [2.0], 4.0)
    assert controller.decide(5.0, fleet) == [Cap("s1", 8)]


def test_no_cap_is_below_the_least() -> None:
    controller, one = make("aimd_ttft", max_cap=4, min_cap=3), server()
    controller.decide(0.0, [one])
    first_tokens(controller, one, [3.0], 4.0)
    assert controller.decide(5.0, [one]) == [Cap("s0", 3)]
    first_tokens(controller, one, [4.0], 9.5)
    assert controller.decide(10.0, [one]) == []


# -- kv_headroom -------------------------------------------------------------------------------------------------------


def test_kv_headroom_lowers_above_the_high_mark_and_raises_below_the_low_one() -> None:
    controller, one = make("kv_headroom", high=0.9, low=0.75, increase=4, decrease=0.8, max_cap=100), server()
    assert controller.decide(0.0, [one]) == [Cap("s0", 100)]
    one.in_flight_requests = 50
    report(one, 0.5, 901, running=40)
    assert controller.decide(1.0, [one]) == [Cap("s0", 40)], "0.8 of the 50 that are there"
    report(one, 1.5, 900)
    assert controller.decide(2.0, [one]) == []
    report(one, 2.5, 750)
    assert controller.decide(3.0, [one]) == [], "between the marks"
    report(one, 3.5, 749)
    assert controller.decide(4.0, [one]) == [Cap("s0", 44)]


def test_a_stale_report_counts_once() -> None:
    controller, one = make("kv_headroom", max_cap=100), server()
    controller.decide(0.0, [one])
    assert controller.decide(1.0, [one]) == [], "no report yet"
    report(one, 1.5, 950, running=100)
    assert controller.decide(2.0, [one]) == [Cap("s0", 80)]
    assert controller.decide(3.0, [one]) == []
    report(one, 1.9, 950, running=100)
    assert controller.decide(4.0, [one]) == [], "made before the cap fell"
    report(one, 2.1, 950, running=100)
    assert controller.decide(5.0, [one]) == [Cap("s0", 64)]


def test_kv_headroom_never_raises_above_the_configured_maximum() -> None:
    for configured, max_cap, ceiling in ((6, 100, 6), (None, 10, 10), (30, 10, 10)):
        controller, one = make("kv_headroom", increase=50, max_cap=max_cap), server(cap=configured)
        for tick in range(20):
            report(one, tick + 0.5, 950 if tick % 5 == 1 else 10, running=9)
            for _, cap in controller.decide(float(tick) + 0.6, [one]):
                assert cap is not None
                assert cap <= ceiling
                one.max_running_requests = cap
        assert one.max_running_requests == ceiling


def test_a_server_that_leaves_is_forgotten() -> None:
    controller = make("kv_headroom", max_cap=10)
    controller.decide(0.0, [server("s0"), server("s1")])
    controller.decide(1.0, [server("s0")])
    back = [server("s0", cap=10), server("s1")]
    assert controller.decide(2.0, back) == [Cap("s1", 10)], "s1 is new, and has no cap yet"


# -- the router --------------------------------------------------------------------------------------------------------


class Seen(Controller):
    """Writes down what it is told."""

    name = "seen"
    interval_s = 1.0

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def decide(self, now: float, servers: Any) -> list[Cap]:
        return [Cap(one.server_id, one.in_flight_requests) for one in servers]

    def on_first_token(self, request: Any, server: Any, dispatched_at: float, now: float) -> None:
        self.told.append(("first", request.request_id, server.server_id, dispatched_at, now))

    def on_finish(self, request: Any, server: Any, dispatched_at: float, now: float) -> None:
        self.told.append(("end", request.request_id, server.server_id, dispatched_at, now))

    def on_report(self, server: Any, now: float) -> None:
        self.told.append(("report", server.server_id, server.kv_tokens_used, now))


def test_a_controller_is_told_what_its_router_sees() -> None:
    seen, configs = Seen(), [ServerConfig("s0", "m", 1), ServerConfig("s1", "m", 1)]
    router = ControlledRouter(configs, make_policy("round_robin", {}, 0), seen, max_attempts=2)
    router.on_arrival(1.0, request(0))
    router.on_arrival(2.0, request(1))
    assert router.on_arrival(3.0, request(2)) == [], "it waits, and is told of only when it is sent"
    router.on_first_token(4.0, 0)
    assert router.on_finish(5.0, 0) == [Dispatch(2, "s0", 1)]
    router.on_report(6.0, "s1", ServerReport(5.5, kv_tokens_used=7))
    router.on_failure(7.0, 1, "reset", retry=False)
    router.on_first_token(8.0, 2)
    router.on_cancel(9.0, 2)
    assert seen.told == [
        ("first", 0, "s0", 1.0, 4.0),
        ("end", 0, "s0", 1.0, 5.0),
        ("report", "s1", 7, 6.0),
        ("end", 1, "s1", 2.0, 7.0),
        ("first", 2, "s0", 5.0, 8.0),
        ("end", 2, "s0", 5.0, 9.0),
    ]
    router.on_arrival(10.0, request(3))
    assert sorted(cap or 0 for _, cap in router.on_tick(11.0)) == [0, 1]
    assert {state.max_running_requests for state in router.servers.values()} == {1}, "the driver's to carry out"


# -- the registry ------------------------------------------------------------------------------------------------------


def test_every_controller_describes_itself_and_its_parameters() -> None:
    names = [description.name for description in controller_descriptions()]
    assert names == ["fixed_schedule", "aimd_ttft", "kv_headroom"]
    for description in controller_descriptions():
        assert all((description.summary, description.source, description.definition))
        assert all((description.helps, description.hurts))
        assert all(parameter.meaning for parameter in description.parameters)
        make_controller(description.name, {})


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("aimd", {}, "unknown controller 'aimd'; known: .*did you mean aimd_ttft"),
        ("aimd_ttft", {"target": 1.0}, "controller aimd_ttft has no parameter 'target'.*did you mean target_s"),
        ("aimd_ttft", {"target_s": "fast"}, "target_s must be of type float"),
        ("aimd_ttft", {"target_s": 0.0}, "target_s must be above 0"),
        ("aimd_ttft", {"quantile": 1.5}, "quantile must be above 0 and at most 1"),
        ("aimd_ttft", {"decrease": 1.0}, "decrease between 0 and 1"),
        ("aimd_ttft", {"increase": 0}, "increase must be at least 1"),
        ("aimd_ttft", {"interval_s": 0.0}, "interval_s must be above 0"),
        ("kv_headroom", {"min_cap": 9, "max_cap": 8}, "min_cap <= max_cap"),
        ("kv_headroom", {"low": 0.95}, "low <= high"),
        ("kv_headroom", {"decrease": 0.0}, "decrease between 0 and 1"),
        ("fixed_schedule", {"caps": "s0"}, "caps must be of type Sequence"),
        ("nowhere.py:Mine", {}, "no controller file nowhere.py"),
    ],
)
def test_wrong_names_and_parameters_of_controllers_are_told(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_controller(name, params)


def test_a_controller_is_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from policies.controllers import Cap, Controller\n\n\n"
        "class Mine(Controller):\n    interval_s = 2.0\n\n"
        "    def decide(self, now, servers):\n        return [Cap(servers[0].server_id, 3)]\n\n\n"
        "class Unmade(Controller):\n    pass\n"
    )
    mine = make_controller(f"{file}:Mine", {})
    assert (mine.name, mine.decide(0.0, [server()])) == ("Mine", [Cap("s0", 3)])
    with pytest.raises(PolicyError, match=r"does not implement decide\(\)"):
        controller_class(f"{file}:Unmade")
    with pytest.raises(PolicyError, match="has no Controller subclass named 'Cap'"):
        controller_class(f"{file}:Cap")


def test_what_a_controller_needs_is_checked() -> None:
    with pytest.raises(PolicyError, match="controller kv_headroom needs kv_tokens_used, which these servers do not"):
        check_controller_needs(make("kv_headroom"), {"kv_tokens_used"})

    class Odd(Seen):
        name = "odd"
        needs = frozenset({"prompt_tokens"})

    with pytest.raises(PolicyError, match="odd needs prompt_tokens, which no server reports"):
        check_controller_needs(Odd(), set())


def corners(parameters: list[Parameter]) -> list[dict[str, object]]:
    """The least of every parameter together, and the most."""
    found: list[dict[str, object]] = [{}, {}]
    for parameter in parameters:
        if parameter.search is None:
            continue
        if isinstance(parameter.search, Span):
            ends: list[object] = [parameter.search.low, parameter.search.high]
            if parameter.type == "int":
                ends = [int(parameter.search.low), int(parameter.search.high)]
            assert isinstance(parameter.default, int | float)
            assert parameter.search.low <= parameter.default <= parameter.search.high, parameter.name
        elif isinstance(parameter.search, tuple):
            assert parameter.default in parameter.search
            ends = [parameter.search[0], parameter.search[-1]]
        else:
            assert isinstance(parameter.default, Mapping)
            assert parameter.search.keys() <= parameter.default.keys()
            ends = [{key: span.low for key, span in parameter.search.items()}, dict(parameter.default)]
        for values, end in zip(found, ends, strict=True):
            values[parameter.name] = end
    return found


def test_every_span_holds_its_default_and_its_ends_are_allowed() -> None:
    for policy in policy_descriptions():
        for params in corners(list(policy_parameters(policy.name).values())):
            assert make_policy(policy.name, params, 0).name == policy.name
    for controller in controller_descriptions():
        for params in corners(list(controller_parameters(controller.name).values())):
            assert make_controller(controller.name, params).name == controller.name


def test_nothing_is_searched_that_is_no_parameter() -> None:
    for cls in [policy_class(policy.name) for policy in policy_descriptions()]:
        assert cls.search.keys() <= policy_parameters(cls.name).keys()
    for controller in controller_descriptions():
        assert controller_class(controller.name).search.keys() <= controller_parameters(controller.name).keys()
