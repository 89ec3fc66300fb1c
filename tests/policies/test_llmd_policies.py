"""llm-d's scorers, filters, latency prediction and gates, by their source's definitions; overflow to remote servers."""

from typing import Any

import pytest
from support.choices import Bench, blocks, request

from policies import ClusterView, Policy, PolicyError, RequestView, Route, ServerView
from policies.latency_predicting import Headroom
from policies.llmd_scorers import SCORERS
from policies.online_line import OnlineLine
from policies.registry import _POLICIES


def marks(bench: Bench, view: RequestView | None = None) -> list[float]:
    """The weighted sums behind a choice."""
    decision = bench.decide(view or request())
    assert isinstance(decision, Route)
    assert decision.scores is not None
    return [-decision.scores[server.server_id] for server in bench.servers]


def scored(loads: list[int], **params: Any) -> Bench:
    return Bench("llm_d", loads, **params)


# -- scorers ---------------------------------------------------------------------------------------------------------


def test_the_defaults_are_prefix_3_queue_2_kv_2() -> None:
    bench = scored([0, 0, 0])
    bench.policy.on_dispatch(request(blocks=blocks("ab")), bench.servers[1], 0.0)
    for index, (queued, used) in enumerate([(4, 100), (6, 500), (5, 900)]):
        bench.report(index, queued_requests=queued, kv_tokens_used=used, kv_tokens_capacity=1000)
    # Queue: 1, 0, 1/2. KV: 0.9, 0.5, 0.1. Prefix: half of the prompt at s1.
    assert marks(bench, request(blocks=blocks("abcd"))) == pytest.approx([2 + 1.8, 1.5 + 1.0, 1.0 + 0.2])
    assert bench.choose(request(blocks=blocks("abcd"))) == 0
    assert bench.choose(request(blocks=blocks("ab"))) == 1, "3 + 1.0 against 3.8"


def test_equal_queues_mark_all_servers_1() -> None:
    bench = scored([0, 0], scorers={"queue": 1, "running": 10})
    assert marks(bench) == [11.0, 11.0]
    bench.report(0, queued_requests=3, running_requests=7)
    bench.report(1, queued_requests=3, running_requests=2)
    assert marks(bench) == [1.0, 11.0]


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        ("active_request", [1.0, 0.5, 0.0]),
        ("token_load", [1 - 50 / 4194304, 1 - 1050 / 4194304, 0.0]),
        ("load_aware", [0.5, 0.25, 0.0]),
        ("kv", [1.0, 0.75, 0.0]),
    ],
)
def test_scorers_of_load(scorer: str, expected: list[float]) -> None:
    bench = scored([0, 2, 4], scorers={scorer: 1})
    for server, tokens in zip(bench.servers, (0, 1000, 9_999_999), strict=True):
        server.in_flight_tokens = tokens
    bench.report(1, queued_requests=64, kv_tokens_used=1, kv_tokens_capacity=4)
    bench.report(2, queued_requests=500, kv_tokens_used=4, kv_tokens_capacity=4)
    assert marks(bench) == pytest.approx(expected)


def test_no_requests_in_flight_anywhere_is_1() -> None:
    assert marks(scored([0, 0], scorers={"active_request": 1})) == [1.0, 1.0]


def test_the_session_scorer_remembers_the_last_server() -> None:
    bench = scored([0, 0], scorers={"session": 1})
    bench.dispatch(request(session=7), 0)
    bench.dispatch(request(session=7), 1)
    assert marks(bench, request(session=7)) == [0.0, 1.0]
    assert marks(bench, request(session=8)) == marks(bench) == [0.0, 0.0]


def test_no_hit_lru_sends_what_nobody_has_to_who_got_none_such_for_longest() -> None:
    bench = scored([0, 0, 0], scorers={"no_hit_lru": 1})
    assert marks(bench, request(blocks=blocks("a"))) == [1.0, 0.5, 0.0], "none has had any: in order"
    bench.dispatch(request(blocks=blocks("a")), 0)
    bench.dispatch(request(blocks=blocks("b")), 2)
    assert marks(bench, request(blocks=blocks("c"))) == [0.5, 1.0, 0.0]
    bench.dispatch(request(blocks=blocks("d")), 1)
    bench.dispatch(request(blocks=blocks("ab")), 0)  # A hit: it does not count.
    assert marks(bench, request(blocks=blocks("e"))) == [1.0, 0.0, 0.5]
    assert marks(bench, request(blocks=blocks("ax"))) == [0.5, 0.5, 0.5], "somebody has it: neutral"


def test_context_length_prefers_narrow_ranges_with_room() -> None:
    ranges = {"s0": [0, 1000], "s1": [0, 10_000], "s2": [5000, 6000]}
    bench = scored([0, 0, 0, 0], scorers={"context_length": 1}, context_ranges=ranges)
    narrow = 0.3 + 0.7 * (0.7 / 1.1 + 0.3 * 0.5)
    wide = 0.3 + 0.7 * (0.7 / 2 + 0.3 * 0.95)
    assert marks(bench, request(prompt=500)) == pytest.approx([narrow, wide, 0.3 / 5.5, 0.5])
    assert marks(bench, request(prompt=3000))[0] == pytest.approx(0.3 / 3)
    assert marks(scored([0], scorers={"context_length": 1}, context_ranges={"s0": [7, 7]}), request(prompt=7)) == [1.0]


def test_prefixes_are_forgotten_at_the_bound() -> None:
    bench = scored([0, 0], scorers={"prefix": 1}, cache_tokens=256)
    bench.dispatch(request(blocks=blocks("abc")), 0)
    bench.dispatch(request(blocks=blocks("xyz")), 0)
    assert marks(bench, request(blocks=blocks("abc"))) == [0.0, 0.0]
    assert marks(bench, request(blocks=blocks("xyz"))) == [1.0, 0.0]


def test_scorers_say_what_they_need_and_which_there_are() -> None:
    assert scored([0], scorers={"active_request": 1}).policy.needs == frozenset()
    assert scored([0], scorers={"queue": 1, "prefix": 1}).policy.needs == {"queued_requests", "prefix_hashes"}
    with pytest.raises(PolicyError, match=r"no scorer 'prefx'; there are prefix, queue.*did you mean prefix"):
        scored([0], scorers={"prefx": 1})
    with pytest.raises(PolicyError, match="scorers must be of type Mapping, not 3"):
        scored([0], scorers=3)
    with pytest.raises(PolicyError, match="the weight of scorer 'queue' must be a number, not 'much'"):
        scored([0], scorers={"queue": "much"})
    assert all(scorer.summary for scorer in SCORERS.values())


# -- the affinity filter ---------------------------------------------------------------------------------------------


def test_affinity_keeps_the_holders_and_the_inner_policy_chooses_among_them() -> None:
    bench = Bench("prefix_affinity", [5, 6, 0], explore=0.0)
    for index, text in ((0, "abcd"), (1, "abcde"), (2, "abc")):
        bench.policy.on_dispatch(request(blocks=blocks(text)), bench.servers[index], 0.0)
    assert bench.choose(request(blocks=blocks("abcde"))) == 0, "4 of 5 blocks are 0.8; s1 has more to do, s2 too little"
    assert bench.choose(request(blocks=blocks("vwxyz"))) == 2, "nobody has it: all are kept"
    assert bench.choose(request(prompt=50)) == 2


def test_affinity_breaks_when_the_holders_are_too_slow() -> None:
    bench = Bench("prefix_affinity", [1, 0], explore=0.0, prefill_tps=1000.0, max_ttft_penalty_s=5.0)
    bench.policy.on_dispatch(request(blocks=blocks("abcd")), bench.servers[0], 0.0)
    bench.servers[0].in_flight_tokens, bench.servers[1].in_flight_tokens = 7000, 2000
    assert bench.choose(request(blocks=blocks("abcd"))) == 0, "5 s later is still bearable"
    bench.servers[0].in_flight_tokens = 7001
    assert bench.choose(request(blocks=blocks("abcd"))) == 1
    always = Bench("prefix_affinity", [1, 0], explore=0.0, max_ttft_penalty_s=0.0)
    always.policy.on_dispatch(request(blocks=blocks("abcd")), always.servers[0], 0.0)
    always.servers[0].in_flight_tokens = 10**9
    assert always.choose(request(blocks=blocks("abcd"))) == 0


def test_affinity_explores_a_share() -> None:
    bench = Bench("prefix_affinity", [1, 0], explore=0.2)
    bench.policy.on_dispatch(request(blocks=blocks("abcd")), bench.servers[0], 0.0)
    chosen = [bench.choose(request(blocks=blocks("abcd"))) for _ in range(2000)]
    assert chosen.count(1) / 2000 == pytest.approx(0.2, abs=0.03)


def test_a_filter_takes_any_policy_and_tells_it_everything() -> None:
    bench = Bench("prefix_affinity", [0, 0], policy="shortest_job_first", params={"prompt_weight": 0.5})
    assert bench.policy.needs == {"prefix_hashes", "expected_output_tokens"}
    assert bench.policy.order is not None
    assert bench.policy.order.name == "sjf"
    view = bench.dispatch(request(prompt=10, expected=100), 0)
    inner = bench.policy.inner  # type: ignore[attr-defined]
    assert inner._owed["s0"] == 105
    bench.finish(view, 0)
    assert inner._owed["s0"] == 0
    with pytest.raises(PolicyError, match="unknown policy 'leest'"):
        Bench("prefix_affinity", policy="leest")


def test_a_wrapped_policy_is_told_everything_and_its_needs_are_those_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Inner(Policy):
        name = "inner"
        needs = frozenset({"queued_requests"})

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            return Route("s0")

        def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
            told.append(f"dispatch {server.server_id} at {now}")

        def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
            told.append("first token")

        def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
            told.append("finish")

        def on_report(self, server: ServerView, now: float) -> None:
            told.append("report")

    monkeypatch.setitem(_POLICIES, "inner", Inner)
    for name, needs in (
        ("prefix_affinity", {"prefix_hashes", "expected_output_tokens", "queued_requests"}),
        ("concurrency_gate", {"queued_requests"}),
        ("local_first", {"queued_requests"}),
    ):
        told.clear()
        bench = Bench(name, policy="inner")
        assert bench.policy.needs == needs
        view = bench.dispatch(request(), 1)
        bench.first_token(view, 1)
        bench.report(1, queued_requests=0)
        bench.finish(view, 1)
        assert told == ["dispatch s1 at 0.0", "first token", "report", "finish"]


# -- latency prediction ----------------------------------------------------------------------------------------------


def test_a_line_through_what_was_seen() -> None:
    line = OnlineLine()
    assert line.at(5.0) == 0.0
    line.saw(10.0, 3.0)
    assert line.at(99.0) == 3.0, "one point: a constant"
    for x in range(20):
        line.saw(x, 2.0 + 0.5 * x)
    assert line.at(100.0) == pytest.approx(52.0, rel=0.02)
    falling = OnlineLine()
    falling.saw(0.0, 2.0)
    falling.saw(10.0, 1.0)
    assert falling.at(100.0) == falling.at(0.0) == pytest.approx(1.5, abs=0.01)


def test_a_line_forgets() -> None:
    line = OnlineLine(memory=0.5)
    for _ in range(10):
        line.saw(1.0, 10.0)
    for _ in range(10):
        line.saw(1.0, 20.0)
    assert line.at(1.0) == pytest.approx(20.0, abs=0.02)


def predicting(headrooms: list[tuple[float, float]], loads: list[int] | None = None, **params: Any) -> Bench:
    """Servers whose predictions leave these headrooms of a TTFT of 1 s and a TPOT of 0.1 s."""
    bench = Bench("latency_predicting", loads or [1] * len(headrooms), explore_share=0.0, **params)
    for server, (ttft_s, tpot_s) in zip(bench.servers, headrooms, strict=True):
        known = bench.policy._known[server.server_id]  # type: ignore[attr-defined]
        known.ttft.saw(0, 1 - ttft_s)
        known.tpot.saw(0, 0.1 - tpot_s)
    return bench


SLO = {"ttft_s": 1.0, "tpot_s": 0.1}


def best(bench: Bench) -> int:
    (index,) = {bench.choose(request(slo=SLO)) for _ in range(20)}
    return index


def test_the_least_headroom_that_is_left_wins_or_the_most() -> None:
    rooms = [(0.9, 0.09), (0.1, 0.01), (-0.1, 0.09)]
    assert best(predicting(rooms)) == 1
    assert best(predicting(rooms, strategy="most")) == 0


def test_headrooms_are_weighted_08_to_02_over_their_ranges() -> None:
    # TTFT scaled: 0, 0.2, 1. TPOT scaled: 1, 0, 0.5: 0.2 against 0.16 against 0.9.
    rooms = [(0.0, 0.08), (0.1, 0.0), (0.5, 0.04)]
    assert best(predicting(rooms)) == 1
    assert best(predicting(rooms, ttft_weight=0.9, tpot_weight=0.1)) == 0
    flat = [(0.5, 0.02), (0.5, 0.01)]
    assert best(predicting(flat, ttft_weight=1.0, tpot_weight=0.0)) == 1, "what is equal everywhere has no weight"


def test_where_none_meets_its_slo_the_nearest_of_the_least_broken_wins() -> None:
    rooms = [(-0.1, -0.01), (-0.9, 0.05), (0.5, -0.08), (0.4, -0.09)]
    assert best(predicting(rooms)) == 3, "of the two that break the TPOT alone, the nearer to the TTFT's bound"
    assert best(predicting([(-0.1, -0.01), (-0.9, 0.05)])) == 1, "one bound broken, though by far"
    assert best(predicting([(-0.3, -0.01), (-0.2, -0.01)])) == 1
    assert best(predicting(rooms, loads=[0, 1, 1, 1])) == 0, "an idle one before all"


def test_a_share_goes_to_servers_that_do_not_meet_it() -> None:
    bench = predicting([(0.5, 0.05), (-0.5, 0.05)])
    bench.policy.explore_share = 0.2  # type: ignore[attr-defined]
    chosen = [bench.choose(request(slo=SLO)) for _ in range(2000)]
    assert chosen.count(1) / 2000 == pytest.approx(0.2, abs=0.03)


def test_without_bounds_the_least_predicted_latency_wins() -> None:
    assert predicting([(0.2, 0.05), (0.3, 0.05)]).choose(request()) == 1


def headroom(bench: Bench, view: RequestView) -> Headroom:
    (room,) = bench.policy.headrooms(view, ClusterView(bench.now, bench.servers, 1))  # type: ignore[attr-defined]
    return room


def test_ttft_is_learnt_over_the_uncached_tokens_ahead() -> None:
    bench = Bench("latency_predicting", [0])
    for text in ("ab", "cdef", "ghijklmn"):
        view = bench.dispatch(request(blocks=blocks(text)), 0)
        bench.now += 0.1 * len(text)
        bench.first_token(view, 0)
    assert headroom(bench, request(prompt=640)).ttft_s == pytest.approx(-1.0)
    assert headroom(bench, request(blocks=blocks("cdefxxxxxx"))).ttft_s == pytest.approx(-0.6), "without what is cached"
    bench.dispatch(request(prompt=320), 0)
    assert headroom(bench, request(prompt=320)).ttft_s == pytest.approx(-1.0), "what waits ahead counts"


def test_tpot_is_learnt_over_the_running_requests() -> None:
    bench = Bench("latency_predicting", [0])
    bench.report(0, running_requests=2, mean_tpot_s=0.012)
    bench.report(0, running_requests=4, mean_tpot_s=0.014)
    bench.report(0, running_requests=40, mean_tpot_s=0.014)  # Repeated: nothing has ended since.
    bench.servers[0].running_requests = 6
    assert headroom(bench, request()).tpot_s == pytest.approx(-0.016)
    bench.dispatch(request(), 0)
    assert headroom(bench, request()).tpot_s == pytest.approx(-0.017), "and what was sent since"


# -- gates -----------------------------------------------------------------------------------------------------------


def test_the_utilization_gate_holds_at_a_mean_of_1() -> None:
    bench = Bench("utilization_gate", [0, 0])
    assert bench.holds(), "nothing reported is full"
    for index, (queued, used) in enumerate([(10, 0), (0, 0)]):
        bench.report(index, queued_requests=queued, kv_tokens_used=used, kv_tokens_capacity=1000)
    assert bench.holds(), "(10 / 5 + 0) / 2"
    bench.report(0, queued_requests=9, kv_tokens_used=900, kv_tokens_capacity=1000)
    assert bench.choose() in (0, 1), "max(1.8, 1.125) / 2: the greater of the two counts, not their sum"
    bench.report(1, queued_requests=0, kv_tokens_used=161, kv_tokens_capacity=1000)
    assert bench.holds(), "(1.8 + 0.20125) / 2"
    bench.report(1, queued_requests=0, kv_tokens_used=159, kv_tokens_capacity=1000)
    assert bench.choose() in (0, 1)


def test_a_stale_report_is_that_of_a_full_server() -> None:
    bench = Bench("utilization_gate", [0])
    bench.report(0, queued_requests=0, kv_tokens_used=0, kv_tokens_capacity=1000)
    bench.now = 0.2
    assert bench.choose() == 0
    bench.now = 0.21
    assert bench.holds()


def test_the_concurrency_gate_counts_100_requests_a_server() -> None:
    bench = Bench("concurrency_gate", [150, 49])
    assert bench.choose() == 1
    bench.servers[1].in_flight_requests = 50
    assert bench.holds()
    assert Bench("concurrency_gate", [150, 50], action="reject").rejects()
    assert Bench("concurrency_gate", [7, 3], max_concurrency=8, policy="least_request").choose() == 1
    with pytest.raises(PolicyError, match="action must be hold or reject, not 'wait'"):
        Bench("concurrency_gate", action="wait")


# -- overflow --------------------------------------------------------------------------------------------------------


def test_local_servers_first_while_their_wait_is_bearable() -> None:
    bench = Bench("local_first", [0, 0, 0], remote=[2], max_wait_s=1.0)
    assert bench.choose() in (0, 1)
    for in_flight, wait_s in ((0, 0.2), (4, 1.0)):
        for index in (0, 1):
            bench.policy._ttft[f"s{index}"].saw(in_flight, wait_s)  # type: ignore[attr-defined]
    bench.servers[0].in_flight_requests, bench.servers[1].in_flight_requests = 4, 3
    assert bench.choose() == 1, "0.8 s with three requests ahead"
    bench.servers[1].in_flight_requests = 5
    assert bench.choose() == 0, "1.0 s with four is just bearable"
    bench.servers[0].in_flight_requests = 5
    assert bench.choose() == 2, "1.2 s: somebody else's"
    assert bench.choose(among=[0, 1]) in (0, 1), "there is nobody else"
    bench.servers[0].in_flight_requests = 0
    assert bench.choose(among=[2]) == 2, "local ones at their cap"


def test_the_wait_is_learnt_from_local_first_tokens_over_requests_ahead() -> None:
    bench = Bench("local_first", [0, 0], remote=[1])
    views = [bench.dispatch(request(), 0) for _ in range(3)]
    for view in views:
        bench.now += 0.5
        bench.first_token(view, 0)
    line = bench.policy._ttft["s0"]  # type: ignore[attr-defined]
    assert line.at(0) == pytest.approx(0.5, abs=0.01)
    assert line.at(2) == pytest.approx(1.5, abs=0.01)
    far = bench.dispatch(request(), 1)
    bench.first_token(far, 1)
    bench.finish(far, 1)
    assert "s1" not in bench.policy._ttft  # type: ignore[attr-defined]
