"""SMG's policies and vLLM's score, by their sources' definitions."""

import pytest
from support.choices import Bench, blocks, request

from policies import PolicyError
from policies.hash_ring import HashRing

# -- cache_aware -----------------------------------------------------------------------------------------------------


def test_cache_aware_follows_the_longest_match_only_above_its_threshold() -> None:
    bench = Bench("cache_aware", [0, 0, 0])
    bench.dispatch(request(blocks=blocks("abc")), 2)
    assert bench.choose(request(blocks=blocks("abcdefghi"))) == 2, "3 of 9 blocks are more than 0.3"
    # 3 of 10 blocks are 0.3 of the prompt and no more: the least loaded, which s2 with its request is not.
    assert {bench.choose(request(blocks=blocks("abcdefghij"))) for _ in range(20)} == {0, 1}


def test_cache_aware_counts_tokens_of_the_prompt_not_blocks() -> None:
    bench = Bench("cache_aware", [0, 0, 0])
    bench.dispatch(request(blocks=blocks("abc")), 2)
    # 192 of 640 tokens, though only nine blocks are whole.
    assert bench.choose(request(blocks=blocks("abcdefghi"), prompt=640)) != 2
    assert bench.choose(request(blocks=blocks("abcdefghi"), prompt=639)) == 2


@pytest.mark.parametrize(
    ("loads", "uneven"),
    [
        ([0, 65], True),  # 65 more, and more than 1.5 times 0
        ([0, 64], False),  # only 64 more
        ([131, 196], False),  # 65 more, but 196 < 1.5 * 131
        ([129, 194], True),  # 65 more, and 194 > 1.5 * 129
    ],
)
def test_cache_aware_leaves_the_cache_when_loads_are_uneven(loads: list[int], uneven: bool) -> None:
    bench = Bench("cache_aware", loads)
    # The prompt's owner is the loaded server.
    bench.policy.on_dispatch(request(blocks=blocks("abcd")), bench.servers[1], 0.0)
    assert bench.choose(request(blocks=blocks("abcd"))) == (0 if uneven else 1)


def test_cache_aware_puts_every_prompt_into_the_chosen_servers_tree() -> None:
    bench = Bench("cache_aware", [70, 0])
    # Uneven, so that it goes to s1 without being looked up; but it is remembered.
    assert bench.send(request(blocks=blocks("abcd"))) == 1
    bench.servers[0].in_flight_requests = 0
    assert bench.choose(request(blocks=blocks("abcd"))) == 1, "its owner, though s0 has less"


def test_cache_aware_takes_the_owner_that_was_sent_it_first() -> None:
    """A node of sglang-router's tree keeps the tenant that made it (``last_tenant`` in tree.rs), whoever uses it."""
    bench = Bench("cache_aware", [0, 0, 0])
    for now, index in enumerate([2, 0, 1]):
        bench.now = float(now)
        bench.dispatch(request(blocks=blocks("ab")), index)
    assert bench.choose(request(blocks=blocks("ab"))) == 2
    assert bench.choose(request(blocks=blocks("ab")), among=[0, 1]) == 0, "of those that are open"
    bench.dispatch(request(blocks=blocks("abc")), 1)
    assert bench.choose(request(blocks=blocks("abc"))) == 1, "it made what is longer"
    assert bench.choose(request(blocks=blocks("abd"))) == 2, "and not what was there"


def test_cache_aware_breaks_ties_at_random() -> None:
    bench = Bench("cache_aware", [0, 0, 0])
    assert {bench.choose(request(blocks=blocks("ab"))) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("name", ["cache_aware", "cache_aware_smallest_tree"])
def test_cache_aware_takes_the_first_of_ties_where_asked_to(name: str) -> None:
    bench = Bench(name, [1, 0, 0], ties="first")
    chosen = {"cache_aware": {1}, "cache_aware_smallest_tree": {0}}[name]
    assert {bench.choose(request(blocks=blocks("ab"))) for _ in range(20)} == chosen, "as sglang-router does"
    bench = Bench(name, [200, 100, 100], ties="first")
    assert {bench.choose(request(blocks=blocks("ab"))) for _ in range(20)} == {1}, "also where loads are uneven"
    with pytest.raises(PolicyError, match=f"policy {name}: ties must be random or first, not 'last'"):
        Bench(name, [0], ties="last")


def test_cache_aware_bounds_each_servers_tree_at_its_interval() -> None:
    bench = Bench("cache_aware", [0, 0], max_tree_tokens=128, eviction_interval_s=60.0)
    bench.dispatch(request(blocks=blocks("ab")), 1)
    bench.now = 59.0
    bench.dispatch(request(blocks=blocks("cd")), 1)
    assert bench.choose(request(blocks=blocks("ab"))) == 1
    bench.now = 60.0
    bench.dispatch(request(blocks=blocks("cd")), 1)
    assert bench.choose(request(blocks=blocks("ab"))) == 0, "the older prompt is forgotten"
    assert bench.choose(request(blocks=blocks("cd"))) == 1


def test_the_older_variant_sends_a_miss_to_the_smallest_tree() -> None:
    for name, chosen in (("cache_aware", 0), ("cache_aware_smallest_tree", 1)):
        bench = Bench(name, [0, 3])
        bench.policy.on_dispatch(request(blocks=blocks("abcd")), bench.servers[0], 0.0)
        assert bench.choose(request(blocks=blocks("xyz"))) == chosen
        assert bench.choose(request(blocks=blocks("abcd"))) == 0


# -- the ring --------------------------------------------------------------------------------------------------------


def test_a_ring_spreads_keys_and_moves_few_when_a_server_goes() -> None:
    servers = Bench("random", [0] * 10).servers
    ring = HashRing(150)
    before = {key: ring.find(str(key), servers).server_id for key in range(2000)}
    counts = [list(before.values()).count(f"s{index}") for index in range(10)]
    assert min(counts) > 120
    assert max(counts) < 290
    after = {key: ring.find(str(key), servers[:9]).server_id for key in range(2000)}
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {key for key in before if before[key] == "s9"}, "only what the closed server had"
    assert len({after[key] for key in moved}) > 5, "and not all of it to its one neighbour"
    assert {key: ring.find(str(key), servers).server_id for key in range(2000)} == before


def test_a_new_server_takes_its_share_from_all_and_moves_nothing_else() -> None:
    servers = Bench("random", [0] * 10).servers
    ring = HashRing(150)
    before = {key: ring.find(str(key), servers[:9]).server_id for key in range(2000)}
    after = {key: ring.find(str(key), servers).server_id for key in range(2000)}
    moved = [key for key in before if before[key] != after[key]]
    assert 100 < len(moved) < 300
    assert {after[key] for key in moved} == {"s9"}


def test_two_routers_agree_on_the_ring() -> None:
    servers = Bench("random", [0] * 5).servers
    one, other = HashRing(150), HashRing(150)
    one.find("warm", servers[3:])
    assert [one.find(str(key), servers).server_id for key in range(200)] == [
        other.find(str(key), servers).server_id for key in range(200)
    ]


def test_consistent_hashing_sends_a_session_to_one_server_whatever_its_load() -> None:
    bench = Bench("consistent_hashing", [0, 0, 0, 0])
    homes = {session: bench.send(request(session=session)) for session in range(40)}
    assert set(homes.values()) == {0, 1, 2, 3}
    bench.servers[homes[7]].in_flight_requests = 10_000
    assert all(bench.choose(request(session=session)) == home for session, home in homes.items())
    assert {bench.choose(request()) for _ in range(50)} == {0, 1, 2, 3}, "no key: anywhere"


def test_prefix_hash_looks_at_the_first_256_tokens_only() -> None:
    bench = Bench("prefix_hash", [0] * 8)
    same = {bench.choose(request(blocks=blocks(f"abcd{tail}"))) for tail in "efghijklmnopqrst"}
    assert len(same) == 1
    other = {bench.choose(request(blocks=blocks(f"abc{tail}"))) for tail in "efghijklmnopqrst"}
    assert len(other) > 3
    assert bench.choose(request(blocks=blocks("ab"))) == bench.choose(request(blocks=blocks("ab"))), "a shorter one too"


def test_prefix_hash_spreads_what_has_no_whole_block_by_load() -> None:
    assert Bench("prefix_hash", [3, 1, 2]).choose(request(prompt=63)) == 1


def test_prefix_hash_leaves_a_server_that_is_above_its_bound() -> None:
    bench = Bench("prefix_hash", [0, 0])
    prompt = request(blocks=blocks("abcd"))
    owner = bench.choose(prompt)
    # Bound: 1.25 * (total + 1) / 2. With 5 of 7: 5.0, which 5 does not exceed; with 6 of 8: 5.6.
    bench.servers[owner].in_flight_requests, bench.servers[1 - owner].in_flight_requests = 5, 2
    assert bench.choose(prompt) == owner
    bench.servers[owner].in_flight_requests = 6
    assert bench.choose(prompt) == 1 - owner


# -- sessions --------------------------------------------------------------------------------------------------------


def test_session_affinity_stays_whatever_the_load_and_comes_back() -> None:
    bench = Bench("session_affinity", [0, 0, 0])
    home = bench.send(request(session=1))
    bench.servers[home].in_flight_requests = 500
    assert bench.choose(request(session=1)) == home
    others = [index for index in range(3) if index != home]
    second = bench.send(request(session=1), among=others)
    assert bench.choose(request(session=1), among=others) == second, "a second candidate, while the first is closed"
    assert bench.send(request(session=1)) == home, "and the first again"
    assert bench.choose(request(session=1)) == home


def test_session_affinity_keeps_two_candidates() -> None:
    bench = Bench("session_affinity", [0, 0, 0])
    for index in (0, 1, 2):
        bench.send(request(session=1), among=[index])
    assert bench.choose(request(session=1)) == 1, "the first was pushed out by the third"


def test_session_affinity_assigns_new_sessions_as_it_is_told() -> None:
    assert {Bench("session_affinity", [5, 0], seed=seed).choose(request(session=1)) for seed in range(20)} == {0, 1}
    assert Bench("session_affinity", [5, 0], assign="min_load").choose(request(session=1)) == 1
    groups = Bench("session_affinity", [0, 0], assign="min_group")
    sent = [groups.dispatch(request(session=7), 0) for _ in range(5)]
    groups.dispatch(request(session=8), 1)
    groups.dispatch(request(session=9), 1)
    assert groups.choose(request(session=1)) == 0, "one session there, two here, whatever their requests"
    for each in sent:
        groups.finish(each, 0)
    groups.dispatch(request(session=3), 0)
    assert {groups.choose(request(session=1)) for _ in range(20)} == {0}, "what has ended no longer counts"
    with pytest.raises(PolicyError, match="assign must be random, min_load or min_group, not 'best'"):
        Bench("session_affinity", assign="best")


def test_session_affinity_forgets_the_idle() -> None:
    bench = Bench("session_affinity", [0, 0], assign="min_load", max_idle_s=100.0)
    bench.dispatch(request(session=1), 1)
    bench.servers[1].in_flight_requests = 9
    bench.now = 90.0
    assert bench.choose(request(session=1)) == 1
    bench.dispatch(request(session=2), 0)
    bench.servers[0].in_flight_requests = 0
    bench.now = 130.0
    assert bench.choose(request(session=1)) == 1, "idle for long, but it was looked for at 90 s, and is again at 150 s"
    bench.now = 150.0
    assert bench.choose(request(session=1)) == 0
    bench.servers[0].in_flight_requests = 99
    assert bench.choose(request(session=2)) == 0, "this one was not idle for so long"


def test_power_of_two_may_compare_kv_use_where_both_have_reported() -> None:
    bench = Bench("power_of_two", [0, 9], by="kv")
    assert bench.policy.needs == {"kv_tokens_used", "kv_tokens_capacity"}
    bench.report(0, kv_tokens_used=100, kv_tokens_capacity=1000)
    assert bench.choose() == 0, "s1 has not reported: requests"
    bench.report(1, kv_tokens_used=180, kv_tokens_capacity=2000)
    assert bench.choose() == 1, "0.1 against 0.09"
    assert Bench("power_of_two").policy.needs == frozenset(), "and asks for no reports by itself"
    with pytest.raises(PolicyError, match="by must be requests or kv, not 'load'"):
        Bench("power_of_two", by="load")


# -- reported load ---------------------------------------------------------------------------------------------------


def test_vllm_score_is_four_times_queued_plus_running() -> None:
    bench = Bench("vllm_score", [0, 0])
    bench.report(0, running_requests=9, queued_requests=0)
    bench.report(1, running_requests=0, queued_requests=2)
    assert bench.choose() == 1, "8 against 9"
    bench.dispatch(request(), 1)
    assert bench.choose() == 0, "what was sent since counts as queued: 12 against 9"
    bench.report(1, running_requests=1, queued_requests=2)
    bench.report(0, running_requests=10, queued_requests=0)
    assert bench.choose() == 1, "a report ends the credit: 9 against 10"


def test_least_kv_takes_the_least_used_share() -> None:
    bench = Bench("least_kv", [0, 0])
    bench.report(0, kv_tokens_used=400, kv_tokens_capacity=1000)
    bench.report(1, kv_tokens_used=600, kv_tokens_capacity=2000)
    assert bench.choose() == 1, "0.3 against 0.4, though it is more tokens"


def loaded(**params: float) -> Bench:
    bench = Bench("least_load", [0, 0, 0], **params)
    for index in range(3):
        common = {"queued_requests": 0, "kv_tokens_used": 0, "kv_tokens_capacity": 1000}
        bench.report(index, throughput_tps=1000.0, **common)
    return bench


def seconds(bench: Bench) -> list[float]:
    score = bench.policy.score(bench.servers)  # type: ignore[attr-defined]
    return [score(server) for server in bench.servers]


def test_least_load_is_time_to_drain_and_pressure() -> None:
    bench = loaded()
    bench.report(0, queued_requests=2, kv_tokens_used=0, kv_tokens_capacity=1000, throughput_tps=4096.0)
    bench.report(1, queued_requests=0, kv_tokens_used=800, kv_tokens_capacity=1000, throughput_tps=1000.0)
    bench.dispatch(request(prompt=500), 1)
    bench.report(2, queued_requests=1, kv_tokens_used=0, kv_tokens_capacity=1000, throughput_tps=0.0)
    # 2 * 1024 / 4096; 500 / 1000 + 0.15 * 0.8 / 0.2; 1024 / 2000 for the server that reports no throughput.
    assert seconds(bench) == pytest.approx([0.5, 1.1, 0.512])
    assert bench.choose() == 0


def test_least_load_credits_what_was_sent_until_the_next_report() -> None:
    bench = loaded()
    assert {bench.send(request(prompt=1000)) for _ in range(3)} == {0, 1, 2}, "not all to one"
    bench.report(1, queued_requests=0, kv_tokens_used=0, kv_tokens_capacity=1000, throughput_tps=1000.0)
    assert seconds(bench) == pytest.approx([1.0, 0.0, 1.0])


def test_least_load_estimates_who_has_not_reported_and_counts_requests_where_nobody_has() -> None:
    bench = Bench("least_load", [3, 2, 4])
    assert seconds(bench) == [3, 2, 4]
    bench.report(0, queued_requests=0, kv_tokens_used=0, kv_tokens_capacity=1, throughput_tps=1024.0)
    bench.report(1, queued_requests=0, kv_tokens_used=0, kv_tokens_capacity=1, throughput_tps=3072.0)
    # 4 requests of 1024 tokens at the mean of 2048 tokens/s.
    assert seconds(bench) == pytest.approx([0.0, 0.0, 2.0])
    full = Bench("least_load", [0])
    full.report(0, queued_requests=0, kv_tokens_used=10, kv_tokens_capacity=10, throughput_tps=1.0)
    assert seconds(full) == pytest.approx([0.15 * 0.999 / 0.001]), "full is far, not infinitely far"


# -- bucket ----------------------------------------------------------------------------------------------------------


def test_bucket_divides_4096_tokens_before_it_has_seen_any() -> None:
    bench = Bench("bucket", [0, 0, 0, 0])
    assert [bench.choose(request(prompt=tokens)) for tokens in (1, 1023, 1024, 2047, 2048, 3072, 9999)] == [
        0, 0, 1, 1, 2, 3, 3,
    ]  # fmt: skip


def test_bucket_sends_to_whom_was_sent_least_while_that_is_uneven() -> None:
    bench = Bench("bucket", [0, 0])
    bench.dispatch(request(prompt=64), 0)
    assert bench.choose(request(prompt=10)) == 0, "64 tokens of difference are not yet uneven"
    bench.dispatch(request(prompt=1), 0)
    assert bench.choose(request(prompt=10)) == 1
    bench.now = 5.1
    assert bench.choose(request(prompt=10)) == 0, "and what was sent an interval ago no longer counts"
    bench.dispatch(request(prompt=300), 0)
    bench.dispatch(request(prompt=200), 1)
    assert bench.choose(request(prompt=10)) == 0, "100 tokens apart, but not by more than half"
    bench.dispatch(request(prompt=1), 0)
    assert bench.choose(request(prompt=10)) == 1


def test_bucket_cuts_equal_shares_of_the_last_intervals_tokens() -> None:
    bench = Bench("bucket", [0, 0])
    # 1200 tokens, 600 a server: 100 + 200 + 300 reach it, so the first range ends at 300.
    for tokens in (300, 100, 600, 200):
        bench.dispatch(request(prompt=tokens), 0 if tokens == 600 else 1)
    assert bench.choose(request(prompt=400)) == 0, "cut at 2048 as yet"
    bench.now = 5.0
    assert [bench.choose(request(prompt=tokens)) for tokens in (300, 301)] == [0, 1]


def test_bucket_gives_a_range_for_which_too_little_is_left_the_width_of_a_share() -> None:
    bench = Bench("bucket", [0, 0, 0, 0])
    # 80 tokens, 20 a server: 9 + 10 + 13, then 14 + 16, then only 18.
    for tokens in (9, 10, 13, 14, 16, 18):
        bench.dispatch(request(prompt=tokens), 0)
    for index in (1, 2, 3):
        bench.policy._tokens[f"s{index}"] = 80  # type: ignore[attr-defined]
    bench.now = 5.0
    assert [bench.choose(request(prompt=tokens)) for tokens in (13, 14, 16, 17, 37, 38)] == [0, 1, 1, 2, 2, 3]


def test_bucket_cuts_again_only_when_the_load_has_doubled_or_halved() -> None:
    bench = Bench("bucket", [0, 0])
    for now, tokens, last_of_first in ((4.0, 100, 100), (9.0, 200, 100), (14.0, 201, 201)):
        # Four prompts: a share is two of them. Twice the share of the last cut is not yet too much.
        bench.now = now
        for index in (0, 0, 1, 1):
            bench.dispatch(request(prompt=tokens), index)
        bench.now = now + 1.0
        assert bench.choose(request(prompt=last_of_first)) == 0
        assert bench.choose(request(prompt=last_of_first + 1)) == 1
