"""Static batching: requests start and end together. A prefill takes 10 s here and a decode step 1 s."""

import pytest
from support.servers import STEPS, Bench, flat_steps, request, step_bench

from simcore.profile_parts import DecodeSteps
from simcore.server.interface import QUEUE_IS_FULL


def static_bench(**settings: object) -> Bench:
    return step_bench(batching="static", **settings)


def test_a_batch_lasts_as_long_as_its_slowest_and_all_answers_come_then() -> None:
    bench = static_bench()
    bench.send(request(0, 50, 1), request(1, 80, 5), request(2, 20, 3))
    log = bench.run()
    # The first to come finds the server idle and starts alone; the others wait for it, and then run together.
    assert log.first == {0: 10.0, 1: 20.0, 2: 20.0}
    assert log.ended_at == {0: 10.0, 1: 24.0, 2: 24.0}


def test_who_comes_while_a_batch_runs_waits_for_its_end() -> None:
    bench = static_bench()
    bench.send(request(0, 50, 30), request(1, 50, 2, at=5.0), request(2, 50, 2, at=30.0))
    log = bench.run()
    assert log.ended_at[0] == 39.0
    assert log.first == {0: 10.0, 1: 49.0, 2: 49.0}


def test_a_batch_takes_up_to_its_size_in_order_of_arrival() -> None:
    bench = static_bench(static_batch_size=2)
    bench.send(request(0, 50, 2), *[request(number, 50, 2, at=float(number)) for number in (1, 2, 3, 4, 5)])
    log = bench.run()
    # Each batch takes 11 s.
    assert log.ended_at == {0: 11.0, 1: 22.0, 2: 22.0, 3: 33.0, 4: 33.0, 5: 44.0}
    assert bench.server.telemetry.peak_running == 2


def test_the_size_is_the_running_cap_unless_given() -> None:
    bench = static_bench(max_running_requests=3)
    bench.send(request(0, 50, 1), *[request(number, 50, 1, at=1.0) for number in (1, 2, 3, 4)])
    assert bench.run().first == {0: 10.0, 1: 20.0, 2: 20.0, 3: 20.0, 4: 30.0}


def test_a_batch_waits_for_more_until_its_timeout() -> None:
    bench = static_bench(static_batch_size=4, static_batch_timeout_s=5.0)
    bench.send(request(0, 50, 1, at=1.0), request(1, 50, 1, at=5.5), request(2, 50, 1, at=6.5))
    # From the arrival of its first request.
    assert bench.run().first == {0: 16.0, 1: 16.0, 2: 26.0}


def test_a_full_batch_does_not_wait() -> None:
    bench = static_bench(static_batch_size=2, static_batch_timeout_s=50.0)
    bench.send(request(0, 50, 1, at=1.0), request(1, 50, 1, at=5.5))
    assert bench.run().first == {0: 15.5, 1: 15.5}


def test_time_spent_waiting_for_the_batch_before_counts_towards_the_timeout() -> None:
    bench = static_bench(static_batch_size=2, static_batch_timeout_s=5.0)
    bench.send(*[request(number, 50, 1) for number in (0, 1)], request(2, 50, 1, at=4.0), request(3, 50, 1, at=17.0))
    log = bench.run()
    assert log.first == {0: 10.0, 1: 10.0, 2: 20.0, 3: 32.0}


def test_the_timeout_of_a_batch_that_has_left_starts_nothing() -> None:
    bench = static_bench(static_batch_size=2, static_batch_timeout_s=20.0)
    # The pair starts at 1 and is done at 11; the next one comes at 12 and has its own 20 s.
    bench.send(request(0, 50, 1), request(1, 50, 1, at=1.0), request(2, 50, 1, at=12.0))
    assert bench.run().first == {0: 11.0, 1: 11.0, 2: 42.0}


@pytest.mark.parametrize(("kv_tokens", "last_first"), [(300, 20.0), (299, 31.0)])
def test_prompts_and_answers_of_a_batch_must_fit_whole(kv_tokens: int, last_first: float) -> None:
    bench = static_bench(kv_tokens=kv_tokens)
    bench.send(request(0, 50, 1), *[request(number, 50, 2, at=1.0, max_new=50) for number in (1, 2, 3)])
    log = bench.run()
    assert (log.first[1], log.first[2], log.first[3]) == (20.0, 20.0, last_first)


def test_rows_of_answers_that_are_complete_still_run() -> None:
    steps = flat_steps(1.0, 10.0).model_copy(
        update={"decode": DecodeSteps(batches=(1, 2), base_s=(1.0, 2.0), context_s=(0.0, 0.0))}
    )
    bench = static_bench(steps=steps, static_batch_size=2, static_batch_timeout_s=1.0)
    bench.send(request(0, 50, 2), request(1, 50, 6))
    # Five steps of two rows.
    assert bench.run().ended_at == {0: 20.0, 1: 20.0}


def test_context_grows_by_a_token_a_row_and_step() -> None:
    steps = flat_steps(1.0, 10.0).model_copy(
        update={"decode": DecodeSteps(batches=(1,), base_s=(1.0,), context_s=(0.01,))}
    )
    bench = static_bench(steps=steps, static_batch_size=2, static_batch_timeout_s=1.0)
    bench.send(request(0, 50, 4), request(1, 30, 2))
    # Contexts of 82, 84 and 86 tokens.
    assert bench.run().ended_at[0] == pytest.approx(10.0 + 3 * 1.0 + 0.01 * (82 + 84 + 86))


def test_there_is_neither_chunking_nor_a_cache() -> None:
    bench = static_bench(chunked_prefill_size=100, radix_cache=True, steps=STEPS)
    first, second = request(0, [(-1, 0, 400)], 1), request(1, [(-1, 0, 400)], 1, at=50.0)
    bench.send(first, second)
    log = bench.run()
    # One step of 400 tokens each, the second like the first.
    prefill_s = 0.008 + 300 * 5e-5 + 1e-8 * 400 * 200
    assert log.first == {0: pytest.approx(prefill_s), 1: pytest.approx(50.0 + prefill_s)}
    assert second.cached_tokens == 0


def test_a_full_queue_refuses() -> None:
    bench = static_bench(max_queued_requests=2)
    bench.send(request(0, 50, 30), *[request(number, 50, 2, at=float(number)) for number in (1, 2, 3)])
    log = bench.run()
    assert log.failures == {3: QUEUE_IS_FULL}
    assert log.failed_at == {3: 3.0}


def test_a_cancelled_request_never_starts_or_keeps_its_row_to_the_end() -> None:
    bench = static_bench()
    running, waiting = request(0, 50, 30), request(1, 50, 30, at=5.0)
    bench.send(running, waiting, request(2, 50, 2, at=6.0))
    bench.cancel(running, at=15.5)
    bench.cancel(waiting, at=16.5)
    log = bench.run()
    assert log.ended_at == {2: 39.0 + 11.0}
    assert log.first == {0: 10.0, 2: 49.0}


def test_load_and_telemetry() -> None:
    bench = static_bench(static_batch_size=2, static_batch_timeout_s=1.0)
    loads = bench.watch(5.0, 12.5, 30.0)
    bench.send(request(0, 50, 2), request(1, 30, 5), request(2, 10, 1, at=7.0, max_new=9))
    bench.run()
    # At 12.5 the third decode step runs: two have given each row a token.
    assert [(load.running, load.queued, load.kv_tokens_used) for load in loads] == [
        *((2, 0, 80), (2, 1, 80 + 4), (0, 0, 0))
    ]
    totals = bench.server.telemetry.totals
    assert (totals.prefill_s, totals.decode_s) == (20.0, 4.0)
    assert (totals.steps, totals.prefill_tokens, totals.decode_tokens) == (6, 90, 8)
