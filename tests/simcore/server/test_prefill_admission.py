"""Prefill first, and what one prefill step may hold. A prefill step takes 10 s here and a decode step 1 s."""

import pytest
from support.servers import request, step_bench


def test_a_request_starts_at_once_on_an_idle_server() -> None:
    bench = step_bench()
    bench.send(request(0, 50, 3, at=2.0))
    log = bench.run()
    assert log.first == {0: 12.0}
    assert log.ended_at == {0: 14.0}


def test_waiting_requests_share_a_prefill_step() -> None:
    bench = step_bench()
    bench.send(request(0, 50, 3), request(1, 80, 1), request(2, 20, 2))
    log = bench.run()
    assert log.first == {0: 10.0, 1: 10.0, 2: 10.0}
    assert log.ended_at == {0: 12.0, 1: 10.0, 2: 11.0}


def test_prefill_goes_before_decode() -> None:
    bench = step_bench()
    bench.send(request(0, 50, 5), request(1, 50, 3, at=11.5))
    log = bench.run()
    assert log.first[1] == 22.0
    # Two of the first request's tokens come before the second one's prefill, from 12 to 22; then both decode.
    assert log.ended_at == {0: 24.0, 1: 24.0}


def test_whoever_comes_during_a_prefill_is_prefilled_before_anyone_decodes() -> None:
    bench = step_bench()
    bench.send(request(0, 50, 2), request(1, 50, 2, at=5.0), request(2, 50, 2, at=15.0))
    log = bench.run()
    assert log.first == {0: 10.0, 1: 20.0, 2: 30.0}
    assert set(log.ended_at.values()) == {31.0}


@pytest.mark.parametrize(("second_prompt", "second_first"), [(39, 10.0), (40, 20.0)])
def test_whole_prompts_must_leave_some_of_max_prefill_tokens(second_prompt: int, second_first: float) -> None:
    bench = step_bench(max_prefill_tokens=100)
    bench.send(request(0, 60, 1), request(1, second_prompt, 1))
    assert bench.run().first == {0: 10.0, 1: second_first}


def test_without_chunking_the_first_prompt_of_a_step_has_no_limit() -> None:
    bench = step_bench(max_prefill_tokens=100)
    bench.send(request(0, 500, 1), request(1, 500, 1), request(2, 10, 1))
    assert bench.run().first == {0: 10.0, 1: 20.0, 2: 30.0}


def test_with_chunking_prompts_are_admitted_while_any_of_max_prefill_tokens_is_left() -> None:
    bench = step_bench(max_prefill_tokens=100, chunked_prefill_size=1000)
    bench.send(request(0, 60, 1), request(1, 60, 1), request(2, 60, 1))
    assert bench.run().first == {0: 10.0, 1: 10.0, 2: 20.0}


@pytest.mark.parametrize(("page_size", "last_first"), [(1, 10.0), (16, 20.0)])
def test_the_chunk_counts_whole_pages(page_size: int, last_first: float) -> None:
    bench = step_bench(chunked_prefill_size=64, page_size=page_size)
    bench.send(request(0, 8, 1), request(1, 8, 1), request(2, 40, 1))
    # In pages of 16 the first two take 32 of the 64 tokens, and the third is cut.
    assert bench.run().first[2] == last_first


@pytest.mark.parametrize(("page_size", "second_first"), [(1, 10.0), (16, 20.0)])
def test_max_prefill_tokens_count_whole_pages(page_size: int, second_first: float) -> None:
    bench = step_bench(max_prefill_tokens=100, page_size=page_size)
    bench.send(request(0, 33, 1), request(1, 50, 1))
    # In pages of 16 they are 48 and 64 tokens.
    assert bench.run().first[1] == second_first


def test_mixed_decode_rows_count_against_max_prefill_tokens() -> None:
    mixed = step_bench(max_prefill_tokens=101, chunked_prefill_size=8192, mixed_chunk=True)
    apart = step_bench(max_prefill_tokens=101, chunked_prefill_size=8192)
    for bench in (mixed, apart):
        bench.send(request(0, 50, 9), request(1, 100, 1, at=5.0), request(2, 100, 1, at=5.0))
        bench.run()
    # 101 tokens less one decode row are spent by a prompt of 100.
    assert mixed.log.first == {0: 10.0, 1: 20.0, 2: 30.0}
    assert apart.log.first == {0: 10.0, 1: 20.0, 2: 20.0}
