"""The prefix cache, seen through the server: matching, insertion, splitting, locks and eviction.

A prefill step takes 10 s here and a decode step 1 s. A prompt is a list of pieces ``(segment, start, tokens)``; prompts
share a prefix where their first pieces agree.
"""

import pytest
from support.servers import Bench, request, step_bench

from simcore.server.kv_pool import KvPool
from simcore.server.pieces import Pieces
from simcore.server.radix_cache import RadixCache

COMMON = -1


def prompt(common_tokens: int, own_segment: int, own_tokens: int) -> Pieces:
    return [(COMMON, 0, common_tokens), (own_segment, 0, own_tokens)]


def cached(bench: Bench, *prompts: Pieces, output: int = 2) -> list[int]:
    """Send one request after another, each when the one before has long ended; the tokens that each found cached."""
    sent = [request(50 + number, pieces, output, at=100.0 * number) for number, pieces in enumerate(prompts)]
    bench.send(*sent)
    bench.run()
    assert all(one.done for one in sent)
    return [one.cached_tokens for one in sent]


def test_a_common_prefix_is_computed_once() -> None:
    bench = step_bench(radix_cache=True)
    assert cached(bench, prompt(50, 1, 30), prompt(50, 2, 40), prompt(50, 1, 30)) == [0, 50, 79]
    assert bench.server.telemetry.totals.prefill_tokens == 80 + 40 + 1
    assert bench.server.telemetry.cached_tokens == 50 + 79


def test_without_the_cache_nothing_is_shared() -> None:
    bench = step_bench(radix_cache=False)
    loads = bench.watch(50.0)
    assert cached(bench, prompt(50, 1, 30), prompt(50, 2, 40)) == [0, 0]
    assert loads[0].kv_tokens_used == 0


def test_one_token_is_always_computed() -> None:
    assert cached(step_bench(radix_cache=True), [(COMMON, 0, 64)], [(COMMON, 0, 64)]) == [0, 63]
    # In whole pages that is one page less.
    assert cached(step_bench(radix_cache=True, page_size=16), [(COMMON, 0, 64)], [(COMMON, 0, 64)]) == [0, 48]


def test_whole_pages_are_shared() -> None:
    assert cached(step_bench(radix_cache=True, page_size=16), prompt(50, 1, 30), prompt(50, 2, 30)) == [0, 48]


def test_a_page_is_shared_if_all_of_it_is_equal() -> None:
    first: Pieces = [(COMMON, 0, 50), (-2, 0, 14), (1, 0, 10)]
    same_page: Pieces = [(COMMON, 0, 50), (-2, 0, 14), (2, 0, 10)]
    other_page: Pieces = [(COMMON, 0, 50), (-3, 0, 14), (3, 0, 10)]
    bench = step_bench(radix_cache=True, page_size=16)
    assert cached(bench, first, same_page, other_page) == [0, 64, 48]


def test_a_prefix_may_end_anywhere_in_what_is_cached() -> None:
    whole: Pieces = [(COMMON, 0, 100)]
    assert cached(step_bench(radix_cache=True), whole, prompt(60, 1, 20), prompt(30, 2, 20), prompt(90, 3, 20)) == [
        *(0, 60, 30, 90)
    ]


def test_a_middle_without_its_beginning_is_no_prefix() -> None:
    assert cached(
        step_bench(radix_cache=True), [(COMMON, 0, 100)], [(COMMON, 20, 50)], [(5, 0, 9), (COMMON, 0, 50)]
    ) == [*(0, 0, 0)]


def test_an_answer_is_found_by_the_next_turn_but_for_its_last_token() -> None:
    # The answer of request 50 is segment 101; nobody has computed the KV of its eighth token.
    first: Pieces = [(COMMON, 0, 40)]
    second: Pieces = [*first, (101, 0, 8), (7, 0, 20)]
    assert cached(step_bench(radix_cache=True), first, second, output=8) == [0, 47]


def test_a_prompt_is_found_as_soon_as_it_is_computed() -> None:
    bench = step_bench(radix_cache=True)
    first, second = request(0, prompt(50, 1, 30), 30), request(1, prompt(50, 2, 30), 1, at=12.5)
    bench.send(first, second)
    bench.run()
    assert first.done
    assert second.cached_tokens == 50


def test_an_answer_is_not_found_before_it_is_complete() -> None:
    bench = step_bench(radix_cache=True)
    second = request(1, [(COMMON, 0, 40), (1, 0, 8), (7, 0, 20)], 1, at=20.5)
    bench.send(request(0, [(COMMON, 0, 40)], 30), second)
    bench.run()
    assert second.cached_tokens == 40


def test_a_chunk_is_found_before_the_prompt_is_computed() -> None:
    bench = step_bench(radix_cache=True, chunked_prefill_size=100)
    first, second = request(0, [(COMMON, 0, 150)], 1), request(1, prompt(150, 2, 30), 1, at=5.0)
    bench.send(first, second)
    log = bench.run()
    # The first one's last 50 tokens and the second one's first 50 after the chunk run in one step.
    assert second.cached_tokens == 100
    assert log.first == {0: 20.0, 1: 30.0}


def test_requests_of_one_step_compute_a_common_prefix_each_and_keep_it_once() -> None:
    bench = step_bench(radix_cache=True)
    first, second = request(0, prompt(50, 1, 30), 5), request(1, prompt(50, 2, 30), 5)
    loads = bench.watch(5.0, 10.5)
    bench.send(first, second)
    bench.run()
    assert (first.cached_tokens, second.cached_tokens) == (0, 0)
    # 160 tokens computed, of which 50 are there twice until the step ends; then a decode step takes 2.
    assert [load.kv_tokens_used for load in loads] == [160, 112]


def test_running_requests_hold_a_common_prefix_once() -> None:
    bench = step_bench(radix_cache=True)
    loads = bench.watch(10.5, 25.5, 29.5, 50.0)
    bench.send(request(0, prompt(50, 1, 30), 5), request(1, prompt(50, 2, 30), 9, at=12.5))
    bench.run()
    # 80 + 1; at 23 the second joins with 30 of its own, and both have decoded three times; at 25 the first leaves.
    assert [load.kv_tokens_used for load in loads] == [81, 80 + 30 + 5 + 1 - 34 + 1, 80 + 7, 0]


def test_what_a_request_runs_on_is_not_evicted() -> None:
    bench = step_bench(radix_cache=True, kv_tokens=400)
    bench.send(request(0, 100, 20), request(1, 280, 30, at=5.0))
    # 311 tokens do not fit beside 100, cached as they are; when the first ends at 29 they may take their place.
    assert bench.run().first[1] == 39.0


def test_what_nobody_runs_on_makes_room() -> None:
    bench = step_bench(radix_cache=True, kv_tokens=400)
    old: Pieces = [(COMMON, 0, 300)]
    # The second needs 381 tokens and evicts the first, as a whole.
    assert cached(bench, old, [(1, 0, 350)], old, output=20) == [0, 0, 0]


@pytest.mark.parametrize("exact_steps", [False, True])
def test_decoding_evicts_rather_than_retracts(exact_steps: bool) -> None:
    bench = step_bench(radix_cache=True, kv_tokens=200, exact_steps=exact_steps)
    bench.send(request(0, 100, 20), request(1, 20, 50, at=50.0), request(2, 20, 50, at=50.0))
    log = bench.run()
    # 119 tokens stay cached, and 81 are free for two times 20 + 49.
    assert log.ended_at[1] == log.ended_at[2] == 60.0 + 49.0
    assert bench.server.telemetry.retractions == 0


@pytest.mark.parametrize(("used_again", "asked", "found"), [(1, 1, 149), (1, 2, 0), (2, 1, 0), (2, 2, 149)])
def test_the_least_recently_used_goes_first(used_again: int, asked: int, found: int) -> None:
    prompts: dict[int, Pieces] = {number: [(number, 0, 150)] for number in (1, 2, 3)}
    bench = step_bench(radix_cache=True, kv_tokens=400)
    # Two prompts and their answers are cached in 303 tokens; a third of 150 evicts one of the two.
    assert cached(bench, *[prompts[number] for number in (1, 2, used_again, 3, asked)])[-1] == found


def test_an_answer_goes_before_its_prompt() -> None:
    # 100 + 99 tokens are cached; 320 - 199 = 121 are free for 100 + 50, so 29 must go. The answer's 99 are a leaf.
    bench = step_bench(radix_cache=True, kv_tokens=320)
    first, second = request(0, [(COMMON, 0, 100)], 100), request(1, 100, 50, at=200.0)
    third = request(2, prompt(100, 5, 10), 1, at=300.0)
    bench.send(first, second, third)
    bench.run()
    assert third.cached_tokens == 100


def test_outputs_that_were_prefilled_go_before_their_prompt_too() -> None:
    pool = KvPool(1000, 1, radix_cache=True)
    retracted, other = request(0, [(COMMON, 0, 100)], 50), request(1, prompt(100, 5, 10), 1)
    retracted.generated, retracted.retractions = 30, 1
    pool.allocate(130)
    retracted.computed = 130
    pool.checkpoint(retracted, 130)
    pool.release(retracted, 130, keep_tokens=130)
    assert pool.cache.evict(1) == 30
    assert pool.cached_prefix(other) == 100


def test_a_prefix_stays_while_anything_below_it_does() -> None:
    cache = RadixCache()
    below, _ = cache.insert(cache.root, [(COMMON, 0, 50), (1, 0, 30)], 80)
    cache.match([(COMMON, 0, 50), (2, 0, 10)], 50)
    cache.lock(below)
    cache.insert(cache.root, [(3, 0, 20)], 20)
    # The prefix was used before the third entry, but a request needs what is below it.
    assert cache.evict(1000) == 20
    assert (cache.locked_tokens, cache.evictable_tokens) == (80, 0)
    cache.unlock(below)
    assert cache.evict(1) == 30
    assert cache.match([(COMMON, 0, 50)], 50)[1] == 50
    assert cache.evict(1) == 50


def test_a_locked_node_that_is_split_is_locked_in_both_parts() -> None:
    cache = RadixCache()
    node, _ = cache.insert(cache.root, [(COMMON, 0, 100)], 100)
    cache.lock(node)
    assert cache.match([(COMMON, 0, 60), (1, 0, 9)], 69)[1] == 60
    assert cache.evict(1000) == 0
    cache.unlock(node)
    assert (cache.locked_tokens, cache.evictable_tokens) == (0, 100)
    assert cache.evict(1) == 40
    assert cache.evict(1) == 60


def test_eviction_takes_whole_leaves_and_no_more_than_needed() -> None:
    cache = RadixCache()
    for segment in range(4):
        cache.insert(cache.root, [(segment, 0, 10)], 10)
    assert cache.evict(11) == 20
    assert [cache.match([(segment, 0, 10)], 10)[1] for segment in range(4)] == [0, 0, 10, 10]
    assert cache.evictable_tokens == 20


def test_looking_for_a_prefix_is_using_it() -> None:
    cache = RadixCache()
    for segment in range(3):
        cache.insert(cache.root, [(segment, 0, 10)], 10)
    cache.match([(0, 0, 10)], 10)
    cache.evict(10)
    assert [cache.match([(segment, 0, 10)], 10)[1] for segment in range(3)] == [10, 0, 10]


def test_a_retracted_request_finds_its_prompt_again_and_not_its_outputs() -> None:
    bench = step_bench(radix_cache=True, kv_tokens=200, schedule_conservativeness=0.01)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    bench.send(first, second)
    bench.run()
    assert (first.retractions, second.retractions) == (1, 0)
    # Its prompt was cached when it was computed, and is found again; its 56 outputs are not.
    assert bench.server.telemetry.totals.prefill_tokens == 50 + 40 + 56


def test_hits_after_a_retraction_do_not_count() -> None:
    bench = step_bench(radix_cache=True, kv_tokens=300, schedule_conservativeness=0.01)
    common: Pieces = [(COMMON, 0, 100)]
    first, second = request(0, [*common, (1, 0, 20)], 90), request(1, [*common, (2, 0, 10)], 90, at=5.0)
    bench.send(first, second)
    bench.run()
    assert first.retractions == 1
    # 170 tokens last for 85 steps, and the first's 86 outputs are computed anew.
    assert bench.server.telemetry.totals.prefill_tokens == 120 + 10 + 86
    assert (first.cached_tokens, second.cached_tokens) == (0, 100)
    assert bench.server.telemetry.cached_tokens == 100
