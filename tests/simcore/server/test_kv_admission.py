"""KV admission: a request is admitted if the pool holds its prompt, its max_new_tokens and a page beside what the
running requests may still need.

A prefill step takes 10 s here and a decode step 1 s. In most tests a first request has 100 prompt tokens and its first
output at 10, and the max_new_tokens of a second are the most that fit, or one more: then it waits for the first to end.
"""

import pytest
from support.servers import Bench, request, step_bench

from simcore.server.token_ratio import NewTokenRatio

WAITS_AT_14 = 24.0
"""First token of a request that waits for a first one of 5 tokens to end at 14."""


def second_comes_at_5(bench: Bench, max_new: int, *, ignore_eos: bool = False) -> float:
    """First token of a second request; the first may need 499 tokens more, as 900 are free."""
    bench.send(request(0, 100, 5, max_new=500, ignore_eos=ignore_eos), request(1, 100, 3, at=5.0, max_new=max_new))
    return bench.run().first[1]


@pytest.mark.parametrize(("prompt", "admitted"), [(499, True), (500, False)])
def test_prompt_and_output_and_a_token_more_must_fit(prompt: int, *, admitted: bool) -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(request(0, prompt, 3, max_new=499))
    assert bool(bench.run().first) is admitted


@pytest.mark.parametrize(("prompt", "admitted"), [(484, True), (485, False)])
def test_prompt_and_output_and_a_page_must_fit(prompt: int, *, admitted: bool) -> None:
    # 62 pages of 16 are 992 tokens.
    bench = step_bench(kv_tokens=1000, page_size=16)
    bench.send(request(0, prompt, 3, max_new=491))
    assert bool(bench.run().first) is admitted


@pytest.mark.parametrize(("max_new", "first"), [(449, 20.0), (450, WAITS_AT_14)])
def test_seven_tenths_of_what_may_come_are_reserved(max_new: int, first: float) -> None:
    # 900 - 0.7 * 499 = 550.7, and 100 + 449 + 1 = 550.
    assert second_comes_at_5(step_bench(kv_tokens=1000), max_new) == first


@pytest.mark.parametrize(
    ("conservativeness", "max_new", "first"),
    [(0.5, 624, 20.0), (0.5, 625, WAITS_AT_14), (10.0, 299, 20.0), (10.0, 300, WAITS_AT_14)],
)
def test_conservativeness_scales_what_is_reserved_up_to_all(
    conservativeness: float, max_new: int, first: float
) -> None:
    # 900 - 0.35 * 499 = 725.35, and 900 - 1.0 * 499 = 401.
    bench = step_bench(kv_tokens=1000, schedule_conservativeness=conservativeness)
    assert second_comes_at_5(bench, max_new) == first


@pytest.mark.parametrize(("max_new", "first"), [(299, 20.0), (300, WAITS_AT_14)])
def test_all_is_reserved_for_requests_of_fixed_length(max_new: int, first: float) -> None:
    # 900 - 499 = 401, and 100 + 299 + 1 = 400.
    assert second_comes_at_5(step_bench(kv_tokens=1000), max_new, ignore_eos=True) == first


@pytest.mark.parametrize(("max_new", "first"), [(298, 21.0), (299, 25.0)])
def test_a_token_in_flight_is_still_reserved_for(max_new: int, first: float) -> None:
    # Under overlap scheduling the second is admitted at 10, with a decode step in flight: its token has its place, and
    # counts as to come nevertheless. 899 - 499 = 400, and 100 + 298 + 1 = 399.
    bench = step_bench(kv_tokens=1000, overlap=True)
    assert second_comes_at_5(bench, max_new, ignore_eos=True) == first


@pytest.mark.parametrize(("max_new", "first"), [(448, 20.0), (449, WAITS_AT_14)])
def test_a_token_is_set_aside_for_each_decode_row_of_a_mixed_step(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=1000, chunked_prefill_size=8192, mixed_chunk=True)
    assert second_comes_at_5(bench, max_new) == first


@pytest.mark.parametrize(("max_new", "first"), [(459, 120.0), (460, 129.0)])
def test_the_ratio_falls_with_every_decode_step(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(request(0, 100, 110, max_new=500), request(1, 100, 3, at=109.5, max_new=max_new))
    # 100 of 600 steps from 0.7 to 0.098: 0.59967. 800 - 0.59967 * 399 = 560.7, and 100 + 459 + 1 = 560.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("max_new", "running"), [(607, 2), (608, 1)])
def test_the_ratio_does_not_fall_with_mixed_steps(max_new: int, running: int) -> None:
    bench = step_bench(kv_tokens=3000, chunked_prefill_size=11, mixed_chunk=True)
    loads = bench.watch(1015.0)
    # The second takes 100 mixed steps, with ten of its tokens each, and is done at 1010. The first has 11 + 100 tokens
    # then: 2889 - 1 - 0.7 * 399 = 2608.7, and 2000 + 607 + 1 = 2608.
    bench.send(
        request(0, 11, 110, max_new=500), request(1, 1000, 1, at=5.0), request(2, 2000, 3, at=1005.0, max_new=max_new)
    )
    bench.run()
    assert loads[0].running == running


@pytest.mark.parametrize(("prompt", "first"), [(8071, 720.0), (8072, 729.0)])
def test_the_ratio_stays_at_14_per_cent_of_its_start(prompt: int, first: float) -> None:
    bench = step_bench(kv_tokens=10_000)
    bench.send(request(0, 100, 710, max_new=2000), request(1, prompt, 3, at=709.5, max_new=1000))
    # After 700 steps: 9200 - 0.098 * 1299 = 9072.7, and 8071 + 1000 + 1 = 9072.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("max_new", "first"), [(449, 220.0), (450, 224.0)])
def test_the_ratio_starts_anew_when_the_server_is_idle(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(
        request(0, 100, 101, max_new=101),
        request(1, 100, 5, at=200.0, max_new=500),
        request(2, 100, 3, at=205.0, max_new=max_new),
    )
    assert bench.run().first[2] == first


def test_the_ratio_by_the_numbers() -> None:
    ratio = NewTokenRatio(1.0)
    assert ratio.current() == pytest.approx(0.7)
    ratio.decode_steps += 300
    assert ratio.current() == pytest.approx((0.7 + 0.098) / 2)
    ratio.decode_steps += 1000
    assert ratio.current() == pytest.approx(0.098)
    ratio.reset()
    assert ratio.current() == pytest.approx(0.7)
    assert NewTokenRatio(5.0).current() == 1.0


@pytest.mark.parametrize(("prompt", "admitted"), [(5902, True), (5903, False)])
def test_at_most_4096_output_tokens_are_asked_for(prompt: int, *, admitted: bool) -> None:
    bench = step_bench(kv_tokens=10_000)
    bench.send(request(0, prompt, 3, max_new=50_000))
    assert bool(bench.run().first) is admitted


@pytest.mark.parametrize(("max_new", "first"), [(802, 20.0), (803, WAITS_AT_14)])
def test_at_most_4096_output_tokens_are_reserved(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=10_000)
    bench.send(request(0, 100, 5, max_new=50_000, ignore_eos=True), request(1, 5000, 3, at=5.0, max_new=max_new))
    # 9900 - 4096 = 5804, and 5000 + 802 + 1 = 5803.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("max_new", "first"), [(699, 170.0), (700, 179.0)])
def test_what_is_reserved_of_4096_shrinks_when_fewer_are_to_come(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=10_000)
    bench.send(request(0, 100, 160, max_new=4200, ignore_eos=True), request(1, 5000, 3, at=159.5, max_new=max_new))
    # After 150 steps 4049 are to come: 9750 - 4049 = 5701, and 5000 + 699 + 1 = 5700.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("max_new", "first"), [(497, 10.0), (498, 22.0)])
def test_requests_of_one_step_reserve_their_whole_output(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(request(0, 100, 3, max_new=300), request(1, 100, 3, max_new=max_new))
    # 1000 - (100 + 1 + 300) = 599, and 100 + 497 + 1 = 598.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("max_new", "first"), [(802, 10.0), (803, 22.0)])
def test_requests_of_one_step_reserve_at_most_4096(max_new: int, first: float) -> None:
    bench = step_bench(kv_tokens=10_000)
    bench.send(request(0, 99, 3, max_new=50_000), request(1, 5000, 3, max_new=max_new))
    # 10000 - (99 + 1 + 4096) = 5804.
    assert bench.run().first[1] == first


def test_a_full_batch_admits_nobody_until_a_request_leaves() -> None:
    bench = step_bench(kv_tokens=1000)
    blocker = request(1, 100, 3, at=5.0, max_new=700)
    bench.send(request(0, 100, 20, max_new=500), blocker, request(2, 10, 3, at=13.5))
    bench.cancel(blocker, at=12.5)
    # The third would fit at 14, and nothing waits before it; but the batch was found full at 10. The first ends at 29.
    assert bench.run().first == {0: 10.0, 2: 39.0}


def test_a_leaving_request_reopens_the_batch() -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(
        request(0, 100, 30, max_new=30),
        request(1, 100, 5, max_new=300),
        request(2, 100, 3, at=5.0, max_new=700),
    )
    # Two run, the third needs 801 tokens: not at 10, but when the second has left at 14.
    assert bench.run().first == {0: 10.0, 1: 10.0, 2: 24.0}


def test_a_step_that_reserves_the_last_token_fills_the_batch() -> None:
    bench = step_bench(kv_tokens=320, page_size=16)
    bench.send(request(0, 1, 3, max_new=300), request(1, 10, 3, at=5.0))
    # 1 + 300 + 16 tokens fit, but with its page in whole the first takes 332 of 320. The second would fit at 10.
    assert bench.run().first == {0: 10.0, 1: 22.0}


def test_whoever_does_not_fit_holds_back_those_behind() -> None:
    bench = step_bench(kv_tokens=1000)
    bench.send(request(0, 100, 5, max_new=500), request(1, 100, 3, at=5.0, max_new=700), request(2, 10, 3, at=6.0))
    assert bench.run().first == {0: 10.0, 1: 24.0, 2: 24.0}


def test_the_pool_holds_whole_pages() -> None:
    bench = step_bench(kv_tokens=1000, page_size=16)
    loads = bench.watch(5.0, 10.5, 25.5, 26.5)
    bench.send(request(0, 17, 30))
    bench.run()
    # Two pages for 17 tokens and for those up to 32; the sixteenth decode step, from 25 to 26, takes a third.
    assert [load.kv_tokens_used for load in loads] == [32, 32, 48, 48]
