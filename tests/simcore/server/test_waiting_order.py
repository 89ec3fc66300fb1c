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


@pytest.mark.parametrize(("waiting", "expected"), [(128, [128, 1]), (129, [1, 2])])
def test_lpm_is_as_they_come_above_128_waiting(waiting: int, expected: list[int]) -> None:
    late = after(90, waiting, 10, at=6.0)
    others = [request(number, 10, 2, at=5.0) for number in range(1, waiting)]
    bench = one_at_a_time("lpm", max_running_requests=2)
    # Another place becomes free each time one leaves: the first two to start tell the order of the queue as it was.
    assert order(bench, *others, late, request(1000, 10, 40), busy_with=[(COMMON, 0, 100)])[1:3] == expected


@pytest.mark.parametrize(("common", "expected"), [(31, [1, 2, 3, 4]), (32, [1, 4, 2, 3])])
def test_one_of_several_with_a_common_prefix_goes_ahead_and_the_others_after_all(
    common: int, expected: list[int]
) -> None:
    waiting = [after(common, 1, 40), after(common, 2, 40), after(common, 3, 40), request(4, 200, 2, at=6.0)]
    assert order(one_at_a_time("lpm"), *waiting) == expected


def test_the_others_then_find_the_prefix_cached() -> None:
    bench = one_at_a_time("lpm", max_running_requests=8)
    waiting = [after(50, 1, 40), after(50, 2, 40), request(3, 20, 2, at=5.0)]
    bench.send(*waiting)
    bench.run()
    assert [one.cached_tokens for one in waiting] == [0, 0, 0]


@pytest.mark.parametrize(("cached", "expected"), [(32, [1, 3, 2]), (33, [1, 2, 3])])
def test_a_prefix_that_is_cached_already_puts_nobody_last(cached: int, expected: list[int]) -> None:
    # Two requests go on equally after what is cached. Where that is at most 32 tokens the second of them goes last.
    pieces: Pieces = [(COMMON, 0, cached), (-2, 0, 60)]
    waiting = [
        request(1, [*pieces, (2, 0, 9)], 2, at=5.0),
        request(2, [*pieces, (4, 0, 9)], 2, at=5.0),
        request(3, [(COMMON, 0, cached), (6, 0, 9)], 2, at=6.0),
    ]
    bench = one_at_a_time("lpm")
    # The first of the two, done, leaves 60 more tokens cached: ask who is second before it is.
    bench.send(request(0, [(COMMON, 0, cached)], 20), *waiting)
    bench.limit(3, at=15.0)
    first = bench.run().first
    assert sorted(first, key=first.__getitem__)[1:] == expected


@pytest.mark.parametrize("policy", ["lpm"])
def test_without_the_cache_lpm_is_as_they_come(policy: str) -> None:
    waiting = [after(50, 1, 40), after(50, 2, 40), request(3, 20, 2, at=6.0)]
    assert order(one_at_a_time(policy, radix_cache=False), *waiting) == [1, 2, 3]
