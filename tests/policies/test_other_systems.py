"""Policies of Dynamo, AIBrix and Preble, by their sources' definitions."""

import pytest
from support.choices import Bench, blocks, request

from policies import Route

# -- Dynamo ----------------------------------------------------------------------------------------------------------


def costs(bench: Bench, text: str) -> list[float]:
    decision = bench.decide(request(blocks=blocks(text)))
    assert isinstance(decision, Route)
    assert decision.scores is not None
    return [decision.scores[server.server_id] for server in bench.servers]


def test_dynamo_adds_up_prefill_and_blocks_in_use_less_what_is_cached() -> None:
    bench = Bench("dynamo_kv", [0, 0])
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    # s0: 4 blocks still to prefill and 6 of its own, none known to be cached yet, and 4 + 2 in use. s1: 6 and 6.
    assert costs(bench, "abcdxy") == [16.0, 12.0]
    bench.first_token(first, 0)
    # The prefill is done, and its prompt cached: 6 - 4, and 4 + 2.
    assert costs(bench, "abcdxy") == [8.0, 12.0]
    assert costs(bench, "abcd") == [4.0, 8.0]
    assert costs(bench, "uvwxyz") == [16.0, 12.0]
    bench.finish(first, 0)
    assert costs(bench, "abcdxy") == [8.0, 12.0]


def test_dynamo_charges_only_the_uncached_part_of_a_prefill() -> None:
    bench = Bench("dynamo_kv", [0, 0])
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.first_token(first, 0)
    bench.finish(first, 0)
    bench.dispatch(request(blocks=blocks("abcdef")), 0)
    # 2 blocks to prefill ahead and 4 of its own, all of them cached, and 6 in use.
    assert costs(bench, "abcd")[0] == pytest.approx(2 + 4 - 4 + 6)


def test_dynamo_counts_blocks_that_requests_share_once() -> None:
    bench = Bench("dynamo_kv", [0, 0])
    views = [bench.dispatch(request(blocks=blocks(text)), 0) for text in ("abcd", "abcd", "abxy")]
    for view in views:
        bench.first_token(view, 0)
    assert costs(bench, "q") == [1 + 6 + 1, 2.0], "abcd and xy"
    assert costs(bench, "abq") == [1 + 6 + 1, 6.0]
    bench.finish(views[0], 0)
    assert costs(bench, "q")[0] == 8.0, "the second still has them"
    bench.finish(views[1], 0)
    assert costs(bench, "q")[0] == 1 + 4 + 1
    bench.dispatch(request(blocks=blocks("ab")), 1)
    assert bench.policy._blocks.shared(request(blocks=blocks("abxz"))) == {"s0": 3, "s1": 2}  # type: ignore[attr-defined]
    bench.finish(views[2], 0)
    assert costs(bench, "q")[0] == 2.0
    assert bench.policy._blocks.shared(request(blocks=blocks("abxz"))) == {"s1": 2}  # type: ignore[attr-defined]


def test_dynamo_counts_a_part_of_a_block_as_it_is_in_prefill_and_whole_in_use() -> None:
    bench = Bench("dynamo_kv", [0])
    decision = bench.decide(request(prompt=96))
    assert isinstance(decision, Route)
    assert decision.scores == {"s0": 1.5 + 2}


def test_dynamos_weights() -> None:
    params = {"overlap_credit": 0.5, "prefill_load_scale": 2.0, "active_request_weight": 3.0}
    bench = Bench("dynamo_kv", [0, 0], **params)
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.first_token(first, 0)
    # 2 * (4 - 0.5 * 4) + (4 + 0) + 3 * 1, against 2 * 4 + 4.
    assert costs(bench, "abcd") == [11.0, 12.0]


def test_dynamos_prefill_costs_nothing_at_least() -> None:
    bench = Bench("dynamo_kv", [0, 0], overlap_credit=3.0)
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.first_token(first, 0)
    assert costs(bench, "abcd") == [4.0, 8.0], "0 + 4 in use, against 4 + 4"


def test_dynamo_hears_of_cached_blocks_after_the_events_delay_and_forgets_them() -> None:
    bench = Bench("dynamo_kv", [0, 0], event_delay_s=0.5, ttl_s=10.0)
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.first_token(first, 0)
    bench.finish(first, 0)
    assert costs(bench, "abcd") == [8.0, 8.0]
    bench.now = 0.5
    assert costs(bench, "abcd") == [4.0, 8.0]
    bench.now = 11.0
    other = bench.dispatch(request(blocks=blocks("z")), 1)
    bench.first_token(other, 1)
    bench.finish(other, 1)
    bench.now = 12.0
    assert costs(bench, "abcd") == [8.0, 8.0], "not used for longer than its time"


def test_dynamo_forgets_a_prefill_that_failed() -> None:
    bench = Bench("dynamo_kv", [0, 0])
    first = bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.finish(first, 0)
    assert costs(bench, "abcd") == [8.0, 8.0]


def test_dynamos_temperature_draws_by_cost() -> None:
    bench = Bench("dynamo_kv", [0, 0, 0], temperature=0.5)
    for index, text in ((1, "ab"), (2, "abcd")):
        first = bench.dispatch(request(blocks=blocks(text)), index)
        bench.first_token(first, index)
    assert costs(bench, "xyz") == [6.0, 8.0, 10.0]
    drawn = [bench.choose(request(blocks=blocks("xyz"))) for _ in range(3000)]
    # exp(0), exp(-1), exp(-2) over their sum.
    assert [drawn.count(index) / 3000 for index in range(3)] == pytest.approx([0.665, 0.245, 0.09], abs=0.03)
    cold = Bench("dynamo_kv", [0, 0], temperature=0.5)
    assert {cold.choose() for _ in range(50)} == {0, 1}, "equal costs"


def test_device_aware_weighted_compares_groups_then_servers() -> None:
    # 16 in flight on one of weight 8, 3 and 2 on two of weight 1: 2 against 2.5.
    bench = Bench("device_aware_weighted", [16, 3, 2], weights=[8.0, 1.0, 1.0])
    assert bench.choose() == 0
    bench.servers[0].in_flight_requests = 21
    assert bench.choose() == 2, "21 / 8 against 5 / 2"
    assert Bench("device_aware_weighted", [4, 3]).choose() == 1, "one group: the least loaded"


# -- AIBrix ----------------------------------------------------------------------------------------------------------


def remembering(loads: list[int], *, name: str = "prefix_cache", **held: str) -> Bench:
    bench = Bench(name, loads)
    for server, text in held.items():
        bench.policy.on_dispatch(request(blocks=blocks(text)), bench.servers[int(server[1:])], 0.0)
    return bench


def test_prefix_cache_takes_the_best_match_then_the_least_loaded_of_equal_ones() -> None:
    bench = remembering([3, 2, 3, 0], s0="abc", s1="ab", s2="abc")
    assert {bench.choose(request(blocks=blocks("abcd"))) for _ in range(20)} == {0, 2}
    bench.servers[2].in_flight_requests = 2
    assert bench.choose(request(blocks=blocks("abcd"))) == 2
    assert bench.choose(request(blocks=blocks("xyz"))) == 3, "no match: the fewest requests"


def test_prefix_cache_passes_over_servers_above_a_standard_deviation() -> None:
    # Mean 1.67, deviation of a sample sqrt(4.67 / 2) = 1.53: 3 is just within.
    bench = remembering([3, 2, 0], s0="abcd", s1="a")
    assert bench.choose(request(blocks=blocks("abcd"))) == 0
    bench.servers[0].in_flight_requests = 4  # Mean 2, deviation 2: 4 is within as well.
    assert bench.choose(request(blocks=blocks("abcd"))) == 0
    bench.servers[2].in_flight_requests = 1  # Mean 2.33, deviation 1.53: 3.86.
    assert bench.choose(request(blocks=blocks("abcd"))) == 1, "the next best match that is within"
    assert remembering([4, 2, 1], s0="abcd").choose(request(blocks=blocks("abcd"))) == 2, "none: the fewest"


def test_prefix_cache_looks_only_at_the_least_loaded_when_loads_are_uneven() -> None:
    held = {"s0": "ab", "s1": "abcd"}
    # Mean 6.25, deviation 2.9: but for the imbalance s1, with 7 requests, would be within.
    assert remembering([2, 7, 8, 8], **held).choose(request(blocks=blocks("abcd"))) == 1
    assert remembering([2, 7, 11, 8], **held).choose(request(blocks=blocks("abcd"))) == 0, "9 apart"


def test_prefix_cache_expires() -> None:
    bench = remembering([1, 0], s0="abcd")
    bench.now = 1199.0
    assert bench.choose(request(blocks=blocks("abcd"))) == 0
    bench.now = 1201.0
    bench.dispatch(request(blocks=blocks("z")), 1)
    bench.servers[1].in_flight_requests = 0
    assert bench.choose(request(blocks=blocks("abcd"))) == 1


def test_throughput_compares_mean_requests_with_prompts_counting_double() -> None:
    bench = Bench("throughput", [0, 0])
    bench.dispatch(request(prompt=100, expected=50), 0)  # 250
    bench.dispatch(request(prompt=50, expected=160), 1)  # 260
    assert bench.choose() == 0
    for _ in range(3):
        bench.dispatch(request(prompt=100, expected=50), 0)
    assert bench.choose() == 0, "the mean is what it was, however many there are"
    bench.dispatch(request(prompt=100, expected=200), 0)  # the mean is now 280
    assert bench.choose() == 1


def test_least_latency_scales_reported_latencies_to_a_mean_request() -> None:
    bench = Bench("least_latency", [0, 0])
    bench.dispatch(request(prompt=100, expected=10), 0)
    bench.dispatch(request(prompt=300, expected=30), 1)
    bench.report(0, mean_ttft_s=0.2, mean_tpot_s=0.01)
    bench.report(1, mean_ttft_s=0.3, mean_tpot_s=0.02)
    # A mean prompt of 200 takes twice s0's time and two thirds of s1's; the mean answer has 20 tokens.
    predict = bench.policy.predict  # type: ignore[attr-defined]
    assert [predict(server) for server in bench.servers] == pytest.approx([0.4 + 0.2, 0.2 + 0.4])
    bench.report(0, mean_ttft_s=0.21, mean_tpot_s=0.01)
    assert bench.choose() == 1
    assert [bench.send(request(prompt=300, expected=20)) for _ in range(9)] == [1] * 9, "nothing is credited"


def test_least_latency_tries_who_has_not_served() -> None:
    bench = Bench("least_latency", [0, 0])
    bench.dispatch(request(), 0)
    bench.report(0, mean_ttft_s=0.001, mean_tpot_s=0.001)
    assert bench.choose() == 1


# -- Preble ----------------------------------------------------------------------------------------------------------


def test_e2_exploits_what_is_mostly_cached_and_explores_the_rest() -> None:
    bench = Bench("preble_e2", [0, 0], prefill_s_per_token=0.001, decode_s_per_token=0.0)
    bench.dispatch(request(blocks=blocks("abcdef")), 0)
    assert bench.choose(request(blocks=blocks("abcuv"))) == 0, "3 of 5 blocks, though s0 has all the load"
    assert bench.choose(request(blocks=blocks("abcuvw"))) == 1, "3 of 6 are not more than half"


def test_e2_explores_by_load_and_what_the_prompt_costs_there() -> None:
    bench = Bench("preble_e2", [0, 0], prefill_s_per_token=0.001, decode_s_per_token=0.01)
    # s0 has done 4 blocks and 2 tokens, 0.276 s; s1 a block and 18 tokens, 0.244 s.
    bench.dispatch(request(blocks=blocks("abcd"), expected=2), 0)
    bench.dispatch(request(blocks=blocks("z"), expected=18), 1)
    assert bench.choose(request(blocks=blocks("uvw"))) == 1
    # A block of this one is cached at s0, which saves 0.064 s there.
    assert bench.choose(request(blocks=blocks("auv"))) == 0


def test_e2_exploits_the_least_loaded_of_the_longest_matches() -> None:
    bench = Bench("preble_e2", [0, 0, 0], prefill_s_per_token=0.001, decode_s_per_token=0.01)
    bench.dispatch(request(blocks=blocks("abcd"), expected=100), 0)
    bench.dispatch(request(blocks=blocks("abcd"), expected=50), 1)
    bench.dispatch(request(blocks=blocks("abc"), expected=0), 2)
    assert bench.choose(request(blocks=blocks("abcd"))) == 1


def test_e2_forgets_work_after_its_window() -> None:
    bench = Bench("preble_e2", [0, 0], window_s=180.0)
    bench.dispatch(request(prompt=10, expected=100), 0)
    bench.now = 100.0
    bench.dispatch(request(prompt=10, expected=10), 1)
    assert bench.choose() == 1
    bench.now = 181.0
    assert bench.choose() == 0


def test_e2_charges_only_what_was_not_cached() -> None:
    bench = Bench("preble_e2", [0, 0], prefill_s_per_token=0.001, decode_s_per_token=0.0)
    bench.dispatch(request(blocks=blocks("abcd")), 0)
    bench.dispatch(request(blocks=blocks("abcdef")), 0)
    assert bench.policy._load == {"s0": pytest.approx(0.064 * 6)}  # type: ignore[attr-defined]


# -- VTC -------------------------------------------------------------------------------------------------------------


def test_vtc_places_clients_by_what_they_used() -> None:
    bench = Bench("vtc", [0, 0, 0, 0])
    place = bench.policy.place  # type: ignore[attr-defined]
    assert place(1, 4) == 0.0
    bench.dispatch(request(session=1, prompt=400, expected=300), 0)  # 400 + 2 * 300 = 1000
    assert place(1, 4) == 1.0, "the bucket is 1000 at least"
    bench.dispatch(request(session=2, prompt=2000, expected=1000), 0)  # 4000; the bucket is (1000 + 4000) / 2
    assert (place(1, 4), place(2, 4)) == (0.4, 1.6)
    bench.dispatch(request(session=2, prompt=0, expected=50_000), 0)
    assert place(2, 2) == 1.0, "no further than the last server"


def test_vtc_sends_heavy_clients_to_the_last_servers_unless_those_are_full() -> None:
    bench = Bench("vtc", [0, 0, 0])
    bench.dispatch(request(session=1, prompt=100, expected=0), 0)
    bench.dispatch(request(session=2, prompt=0, expected=5000), 0)
    assert {bench.choose(request(session=1)) for _ in range(20)} == {0}
    assert {bench.choose(request(session=2)) for _ in range(20)} == {2}, "10,000 of 5050 a bucket"
    bench.servers[2].in_flight_requests = 100
    assert {bench.choose(request(session=2)) for _ in range(20)} == {1, 2}, "both score about 1"
    assert {bench.choose(request()) for _ in range(50)} == {0, 1, 2}, "no client: anywhere"


def test_vtc_weighs_the_load_against_the_place() -> None:
    bench = Bench("vtc", [60, 0], utilization_weight=2.0)
    # Place 0: s0 scores 2 * 0.6, s1 scores 1, and at most 0.1 is chance.
    assert {bench.choose(request(session=1)) for _ in range(20)} == {1}
    bench.servers[0].in_flight_requests = 40
    assert {bench.choose(request(session=1)) for _ in range(20)} == {0}


def test_vtc_forgets_after_its_window() -> None:
    bench = Bench("vtc", [0, 0, 0])
    bench.dispatch(request(session=1, prompt=3000, expected=0), 0)
    bench.now = 200.0
    bench.dispatch(request(session=2, prompt=500, expected=0), 0)
    assert {bench.choose(request(session=1)) for _ in range(20)} == {2}
    bench.now = 301.0
    assert {bench.choose(request(session=1)) for _ in range(20)} == {0}
    assert bench.policy._totals == [500.0]  # type: ignore[attr-defined]
