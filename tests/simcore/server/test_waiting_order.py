"""The order of the waiting queue. One request runs at a time, so the first tokens tell it.

A prefill step takes 10 s here and a decode step 1 s. A first request keeps the server busy while the others come.
"""

import pytest
from support.servers import Bench, request, step_bench

from simcore.server.pieces import Pieces
from simcore.server.request import ServerRequest

COMMON = -1


def one_at_a_time(policy: str, **settings: object) -> Bench:
    return step_bench(**{"schedule_policy": policy, "max_running_requests": 1, "radix_cache": True, **settings})


def order(bench: Bench, *waiting: ServerRequest, busy_with: Pieces | int = 5) -> list[int]:
    """The requests in the order in which they start after a first one."""
    bench.send(request(0, busy_with, 20), *waiting)
    first = bench.run().first
    return sorted(first, key=first.__getitem__)[1:]


def after(common_tokens: int, request_id: int, own_tokens: int, *, at: float = 5.0) -> ServerRequest:
    """A request that begins with tokens of the common prefix."""
    return request(request_id, [(COMMON, 0, common_tokens), (2 * request_id, 0, own_tokens)], 2, at=at)


def test_fcfs_is_as_they_come() -> None:
    waiting = [request(3, 70, 2, at=5.0), request(1, 10, 9, at=6.0), request(2, 40, 5, at=7.0)]
    assert order(one_at_a_time("fcfs"), *waiting) == [3, 1, 2]


def test_lof_is_most_max_new_tokens_first() -> None:
    waiting = [
        request(1, 10, 5, at=5.0),
        request(2, 10, 2, max_new=9, at=5.0),
        request(3, 10, 5, at=6.0),
        request(4, 10, 7, at=7.0),
    ]
    assert order(one_at_a_time("lof"), *waiting) == [2, 4, 1, 3]


def test_lpm_is_longest_cached_prefix_first() -> None:
    waiting = [after(40, 1, 10), request(2, 30, 2, at=5.0), after(90, 3, 10), after(60, 4, 300)]
    assert order(one_at_a_time("lpm"), *waiting, busy_with=[(COMMON, 0, 100)]) == [3, 4, 1, 2]


def test_shortest_prefill_is_fewest_tokens_that_are_not_cached_first() -> None:
    waiting = [after(40, 1, 25), request(2, 30, 2, at=5.0), after(90, 3, 20), after(60, 4, 300)]
    assert order(one_at_a_time("shortest-prefill-first"), *waiting, busy_with=[(COMMON, 0, 100)]) == [3, 1, 2, 4]


@pytest.mark.parametrize("policy", ["lpm", "lof", "shortest-prefill-first"])
def test_equals_are_as_they_come(policy: str) -> None:
    waiting = [request(number, 10, 2, at=5.0 + number) for number in range(1, 6)]
    assert order(one_at_a_time(policy), *waiting) == [1, 2, 3, 4, 5]


def test_a_later_one_may_overtake_whenever_a_place_is_free() -> None:
    waiting = [request(1, 10, 2, at=5.0), request(2, 10, 2, at=5.0), request(3, 10, 3, at=35.0)]
    # The first leaves at 29, the next runs until 40.
    assert order(one_at_a_time("lof"), *waiting) == [1, 3, 2]


@pytest.mark.parametrize(("waiting", "next_one"), [(128, 128), (129, 1)])
def test_lpm_is_as_they_come_above_128_waiting(waiting: int, next_one: int) -> None:
    others = [request(number, 10, 2, at=5.0) for number in range(1, waiting)]
    last = after(90, waiting, 10, at=6.0)
    assert order(one_at_a_time("lpm"), *others, last, busy_with=[(COMMON, 0, 100)])[0] == next_one


def next_two(bench: Bench, *waiting: ServerRequest, busy_with: Pieces | int = 5) -> set[int]:
    """The requests that start together when the first two have left."""
    bench.send(request(0, busy_with, 20), request(99, 5, 20), *waiting)
    first = bench.run().first
    return {number for number, time_s in first.items() if time_s == 39.0}


@pytest.mark.parametrize(("common", "expected"), [(31, {1, 2}), (32, {1, 4})])
@pytest.mark.parametrize("policy", ["lpm", "shortest-prefill-first"])
def test_of_several_with_a_common_prefix_one_goes_ahead_and_the_others_last(
    policy: str, common: int, expected: set[int]
) -> None:
    waiting = [after(common, 1, 40), after(common, 2, 40), after(common, 3, 40), request(4, 200, 2, at=6.0)]
    assert next_two(one_at_a_time(policy, max_running_requests=2), *waiting) == expected
    # Those that waited for it find its prefix cached.
    assert waiting[2].cached_tokens == common
    assert waiting[1].cached_tokens == (common if 4 in expected else 0)


@pytest.mark.parametrize(("cached", "expected"), [(32, {1, 3}), (33, {1, 2})])
def test_who_has_a_cached_prefix_waits_for_nobody(cached: int, expected: set[int]) -> None:
    pieces: Pieces = [(COMMON, 0, cached), (-2, 0, 60)]
    waiting = [
        request(1, [*pieces, (2, 0, 9)], 2, at=5.0),
        request(2, [*pieces, (4, 0, 9)], 2, at=5.0),
        request(3, 10, 2, at=6.0),
    ]
    # The first two go on equally after what is cached: where that is at most 32 tokens, the second of them goes last.
    bench = one_at_a_time("lpm", max_running_requests=2)
    assert next_two(bench, *waiting, busy_with=[(COMMON, 0, cached)]) == expected


def test_without_the_cache_lpm_is_as_they_come() -> None:
    waiting = [after(50, 1, 40), after(50, 2, 40), request(3, 20, 2, at=6.0)]
    assert order(one_at_a_time("lpm", radix_cache=False), *waiting) == [1, 2, 3]
