"""Chunked prefill: how prompts are cut and continued. A prefill step takes 10 s here and a decode step 1 s."""

import pytest
from support.servers import request, step_bench


@pytest.mark.parametrize(("chunk", "first"), [(None, 10.0), (250, 10.0), (249, 20.0), (100, 30.0), (50, 50.0)])
def test_a_long_prompt_takes_a_step_for_each_chunk(chunk: int | None, first: float) -> None:
    bench = step_bench(chunked_prefill_size=chunk)
    bench.send(request(0, 250, 3))
    log = bench.run()
    assert log.first == {0: first}
    assert log.ended_at == {0: first + 2}
    assert bench.server.telemetry.totals.prefill_tokens == 250


def test_a_prompt_under_way_goes_on_first_and_leaves_the_rest_of_the_chunk_to_others() -> None:
    bench = step_bench(chunked_prefill_size=100)
    bench.send(request(0, 150, 1), request(1, 50, 1, at=1.0), request(2, 50, 1, at=1.0))
    # Tokens: 100 | 50 + 50 | 50.
    assert bench.run().first == {0: 20.0, 1: 20.0, 2: 30.0}


def test_a_prompt_is_cut_to_fill_the_chunk() -> None:
    bench = step_bench(chunked_prefill_size=100)
    bench.send(request(0, 60, 1), request(1, 60, 1), request(2, 60, 1))
    # Tokens: 60 + 40 | 20 + 60.
    assert bench.run().first == {0: 10.0, 1: 20.0, 2: 20.0}


def test_one_prompt_at_a_time_is_cut() -> None:
    bench = step_bench(chunked_prefill_size=100)
    bench.send(request(0, 150, 1), request(1, 150, 1), request(2, 100, 1))
    # Tokens: 100 | 50 + 50 | 100 | 100. Cutting several at once would end none of them earlier.
    assert bench.run().first == {0: 20.0, 1: 30.0, 2: 40.0}


def test_a_prompt_under_way_goes_on_before_the_order_of_the_queue() -> None:
    bench = step_bench(chunked_prefill_size=100, schedule_policy="lof")
    bench.send(request(0, 200, 1), request(1, 100, 9, at=1.0))
    assert bench.run().first == {0: 20.0, 1: 30.0}


def test_nobody_decodes_between_chunks() -> None:
    bench = step_bench(chunked_prefill_size=100)
    bench.send(request(0, 50, 5), request(1, 300, 2, at=10.5))
    log = bench.run()
    # One decode step from 10 to 11, three chunks until 41, then the other three tokens of the first request.
    assert log.first[1] == 41.0
    assert log.ended_at == {0: 44.0, 1: 42.0}


def test_a_chunk_ends_with_a_page() -> None:
    bench = step_bench(chunked_prefill_size=64, page_size=16, mixed_chunk=True)
    bench.send(request(0, 16, 100), request(1, 112, 1, at=5.0))
    # A decode row leaves 63 tokens of the chunk, that is 48 in whole pages: three steps, not 63 + 49 tokens in two.
    assert bench.run().first[1] == 40.0


def test_a_prompt_whose_pages_do_not_fit_is_cut() -> None:
    bench = step_bench(chunked_prefill_size=64, page_size=16, mixed_chunk=True)
    bench.send(request(0, 16, 100), request(1, 50, 1, at=5.0))
    # 50 tokens would fit in 63, but their four pages do not: 48 come first, and 2 in a second step.
    assert bench.run().first[1] == 30.0


def test_less_than_a_page_is_not_begun() -> None:
    bench = step_bench(chunked_prefill_size=16, page_size=16, mixed_chunk=True)
    bench.send(request(0, 16, 5), request(1, 20, 1, at=5.0))
    log = bench.run()
    assert log.ended_at[0] == 14.0
    assert log.first[1] == 14.0 + 2 * 10.0


def test_a_prompt_under_way_goes_on_when_the_running_cap_is_lowered() -> None:
    bench = step_bench(chunked_prefill_size=100, max_running_requests=2)
    bench.send(request(0, 50, 30), request(1, 300, 2, at=5.0))
    bench.limit(1, at=15.0)
    log = bench.run()
    assert log.first == {0: 10.0, 1: 40.0}


def test_a_prompt_under_way_is_cut_to_what_nobody_may_need_and_then_goes_on_into_that() -> None:
    # Ten requests decode in the same steps, and 0.7% of the 140 tokens that they may still need are reserved.
    bench = step_bench(kv_tokens=240, chunked_prefill_size=60, mixed_chunk=True, schedule_conservativeness=0.01)
    rows = [request(number, 6, 5, max_new=15) for number in range(10)]
    bench.send(*rows, request(10, 150, 1, at=5.0))
    log = bench.run()
    # 180 tokens are free. Two steps take 50 and 10 each. Of the 60 left 10 are this step's and one reserved, so that 49
    # go to the prompt. One token of the pool is left then, less than is reserved, and the prompt's last takes it.
    assert log.first[10] == 50.0
    # The rows find no KV in that step and sit it out; they had a token each at 10, 20, 30 and 40.
    assert {log.ended_at[number] for number in range(10)} == {51.0}
    assert bench.server.telemetry.retractions == 0


def test_a_cut_request_holds_a_place_under_the_running_cap() -> None:
    bench = step_bench(chunked_prefill_size=100, max_running_requests=1)
    bench.send(request(0, 150, 3), request(1, 50, 1, at=1.0))
    # The second chunk has 50 tokens to spare, but the only place is taken until 22.
    assert bench.run().first == {0: 20.0, 1: 32.0}


def test_a_chunk_reopens_a_full_batch() -> None:
    bench = step_bench(chunked_prefill_size=64, page_size=16, mixed_chunk=True, max_running_requests=2)
    bench.send(request(0, 16, 100), request(1, 64, 100, at=5.0), request(2, 20, 1, at=5.0))
    bench.limit(3, at=15.0)
    # The first step of the second prompt takes 48 of 63 tokens and finds no place for the third request: the batch is
    # full. The next chunk looks again, and the cap is higher by then.
    assert bench.run().first == {0: 10.0, 1: 30.0, 2: 30.0}


def test_the_chunks_of_a_queue_fill_every_step() -> None:
    bench = step_bench(chunked_prefill_size=100)
    bench.send(*[request(number, 130, 1) for number in range(4)])
    # 520 tokens in chunks of 100, every step full: 100 | 30 + 70 | 60 + 40 | 90 + 10 | 100 | 20.
    assert bench.run().first == {0: 20.0, 1: 30.0, 2: 40.0, 3: 60.0}
