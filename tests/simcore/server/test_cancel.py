"""Cancelled requests: they leave at the next step boundary, their KV comes back, and nobody else is touched.

A prefill step takes 10 s here and a decode step 1 s.
"""

import pytest
from support.servers import Bench, request, step_bench


@pytest.fixture(params=[False, True], ids=["macro-steps", "exact-steps"])
def exact_steps(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def all_is_free(bench: Bench) -> bool:
    pool = bench.continuous.scheduler.pool
    return pool.used == 0 and pool.free + pool.cache.evictable_tokens == pool.capacity


@pytest.mark.parametrize("overlap", [False, True])
def test_while_decoding(overlap: bool, exact_steps: bool) -> None:
    bench = step_bench(overlap=overlap, exact_steps=exact_steps)
    loads = bench.watch(14.7, 17.7)
    gone = request(0, 100, 50)
    bench.send(gone, request(1, 30, 20))
    bench.cancel(gone, at=15.5)
    log = bench.run()
    assert log.ended_at == {1: 29.0}
    # At 14.7 the fifth decode step runs, at 17.7 the eighth.
    assert [(load.running, load.kv_tokens_used) for load in loads] == [(2, 140), (1, 38)]
    assert all_is_free(bench)


def test_it_frees_a_place_at_the_next_boundary(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, max_running_requests=2)
    gone = request(0, 100, 50)
    bench.send(gone, request(1, 100, 50), request(2, 30, 2, at=11.0))
    bench.cancel(gone, at=15.5)
    # The batch was full, and its leaving opens it.
    assert bench.run().first == {0: 10.0, 1: 10.0, 2: 26.0}


def test_it_frees_kv_for_those_that_wait(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, kv_tokens=300)
    gone = request(0, 100, 90)
    bench.send(gone, request(1, 150, 100, at=5.0), request(2, 10, 2, at=20.0))
    bench.cancel(gone, at=15.5)
    assert bench.run().first == {0: 10.0, 1: 26.0, 2: 36.0}


def test_while_waiting(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, max_running_requests=1)
    gone = request(1, 30, 2, at=11.5)
    bench.send(request(0, 100, 10), gone, request(2, 30, 2, at=11.5))
    bench.cancel(gone, at=15.5)
    log = bench.run()
    assert log.first == {0: 10.0, 2: 29.0}
    assert log.ended_at == {0: 19.0, 2: 30.0}


def test_while_waiting_it_reopens_no_full_batch(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, max_running_requests=2, kv_tokens=300)
    gone = request(1, 150, 100, at=5.0)
    bench.send(request(0, 100, 10, max_new=90), gone, request(2, 10, 2, at=6.0))
    bench.cancel(gone, at=11.5)
    assert bench.run().first == {0: 10.0, 2: 29.0}


def test_before_it_reaches_the_scheduler(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps)
    gone = request(1, 30, 2, at=30.0)
    bench.send(request(0, 100, 3))
    bench.at(2.0, lambda now: bench.server.submit(gone, now))
    bench.cancel(gone, at=4.0)
    assert bench.run().ended_at == {0: 12.0}
    assert bench.server.telemetry.totals.prefill_tokens == 100


def test_while_it_is_prefilled(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps)
    gone = request(0, 100, 50)
    bench.send(gone, request(1, 30, 3))
    bench.cancel(gone, at=5.0)
    log = bench.run()
    # The step runs to its end.
    assert log.first[1] == 10.0
    assert log.ended_at == {1: 12.0}
    assert bench.server.telemetry.totals.decode_tokens == 2
    assert all_is_free(bench)


def test_between_its_chunks(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, chunked_prefill_size=100, radix_cache=True)
    gone = request(0, 350, 50)
    bench.send(gone, request(1, 30, 3, at=1.0))
    bench.cancel(gone, at=15.0)
    log = bench.run()
    # Two of its chunks are computed; the other starts then.
    assert bench.server.telemetry.totals.prefill_tokens == 200 + 30
    assert log.first == {1: 30.0}
    assert all_is_free(bench)


def test_with_a_common_prefix_the_other_keeps_it(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, radix_cache=True)
    loads = bench.watch(40.5)
    gone = request(0, [(-1, 0, 50), (0, 0, 30)], 90)
    second, third = request(1, [(-1, 0, 50), (2, 0, 30)], 90, at=5.0), request(2, [(-1, 0, 50), (4, 0, 9)], 2, at=90.0)
    bench.send(gone, second, third)
    bench.cancel(gone, at=30.5)
    bench.run()
    # At 40.5 the second is in its 21st decode step and holds all 80 of its prompt.
    assert loads[0].kv_tokens_used == 80 + 21
    assert (second.cached_tokens, third.cached_tokens) == (50, 50)
    assert all_is_free(bench)


def test_after_its_end(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps)
    loads = bench.watch(20.5)
    first = request(0, 100, 3)
    bench.send(first, request(1, 30, 20))
    bench.cancel(first, at=15.5)
    assert bench.run().ended_at == {0: 12.0, 1: 29.0}
    assert loads[0].running == 1
    assert all_is_free(bench)


def test_nothing_is_told_of_a_cancelled_request(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, overlap=True)
    requests = [request(number, 50, 30, at=7.0 * number) for number in range(4)]
    bench.send(*requests)
    for one in requests:
        bench.cancel(one, at=one.ready_at + 5.5)
    log = bench.run()
    assert log.ended_at == log.failures == {}
    assert all(one.done for one in requests)
    assert all_is_free(bench)


def test_in_a_retracted_request(exact_steps: bool) -> None:
    bench = step_bench(exact_steps=exact_steps, kv_tokens=200, schedule_conservativeness=0.01)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    bench.send(first, second)
    # Retracted at 75; it waits until 99.
    bench.cancel(first, at=85.5)
    log = bench.run()
    assert first.retractions == 1
    assert log.ended_at == {1: 99.0}
    assert all_is_free(bench)
