"""Retraction: when a decode step does not fit in the KV pool, requests give their KV back and wait anew.

A prefill step takes 10 s here and a decode step 1 s. A conservativeness of 0.01 lets more in than the pool can hold.
"""

import pytest
from support.servers import Bench, request, step_bench

from simcore.server.interface import OUT_OF_MEMORY
from simcore.server.request import ServerRequest
from simcore.server.token_ratio import NewTokenRatio


def overcommitted(kv_tokens: int, **settings: object) -> Bench:
    return step_bench(**{"kv_tokens": kv_tokens, "schedule_conservativeness": 0.01, **settings})


def retractions(*requests: ServerRequest) -> list[int]:
    return [one.retractions for one in requests]


def test_the_request_with_the_fewest_outputs_goes() -> None:
    bench = overcommitted(230)
    # The first has three outputs more, at 13; it also has the longer prompt and asks for more.
    first, second = request(0, 60, 100), request(1, 40, 90, at=12.5)
    bench.send(first, second)
    bench.run()
    assert retractions(first, second) == [0, 1]
    assert bench.server.telemetry.retractions == 1


def test_of_equals_the_longest_prompt_goes() -> None:
    bench = overcommitted(320)
    # All have one output when they begin to decode together at 20, and 70 more when the pool is exhausted.
    first, longest, last = request(0, 10, 200), request(1, 60, 100, at=5.0), request(2, 40, 100, at=5.0)
    bench.send(first, longest, last)
    bench.run()
    assert retractions(first, longest, last) == [0, 1, 0]


def test_as_many_go_as_it_takes() -> None:
    bench = overcommitted(160, page_size=16)
    five = [request(number, 16, 30, max_new=60, at=10.0 * number) for number in range(5)]
    bench.send(*five)
    log = bench.run()
    # From 50 on all take a page at the same time, of ten pages in all: at 66 they have two each and need five more. One
    # that goes gives back two pages, and four are needed then; when another goes, four are free and three needed.
    assert retractions(*five) == [0, 0, 0, 1, 1]
    assert [log.ended_at[number] for number in range(3)] == [79.0, 79.0, 79.0]


def test_a_retracted_request_keeps_its_outputs_and_is_prefilled_anew_with_them() -> None:
    bench = overcommitted(200)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    bench.send(first, second)
    log = bench.run()
    # Both decode from 20 on, and the 110 tokens left last for 55 steps, to 75: then the first goes, its prompt being
    # the longer one. Its 50 + 56 tokens do not fit again before the second ends, after 80 - 56 steps more.
    assert retractions(first, second) == [1, 0]
    assert log.ended_at[1] == 99.0
    # Its prefill gives the 57th token, and 23 are left.
    assert log.ended_at[0] == 99.0 + 10.0 + 23.0
    assert log.first == {0: 10.0, 1: 20.0}
    totals = bench.server.telemetry.totals
    assert totals.prefill_tokens == 50 + 40 + (50 + 56)
    assert totals.decode_tokens == 160 - 3


def test_a_token_in_flight_is_lost() -> None:
    bench = overcommitted(200, overlap=True)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    bench.send(first, second)
    log = bench.run()
    # The first decodes alone from 10 to 11. From 21 on 109 tokens last for 54 steps of both. When the last of them
    # begins the 55th cannot be formed; the second has 1 + 53 outputs then, and the one in flight comes for nothing.
    assert retractions(first, second) == [0, 1]
    assert bench.server.telemetry.totals.prefill_tokens == 50 + 40 + (40 + 54)
    # The first has 56 outputs at 75 and ends at 99; the second's prefill gives the 55th.
    assert log.ended_at == {0: 99.0, 1: 99.0 + 10.0 + 25.0}


def test_a_last_token_in_flight_is_lost_as_well() -> None:
    bench = overcommitted(200, overlap=True)
    # Both decode from 20 on. The pool is full at 74, when the second has its last token in flight, which nobody knows.
    first, second = request(0, 40, 80), request(1, 50, 55, max_new=56, at=5.0)
    bench.send(first, second)
    log = bench.run()
    assert retractions(first, second) == [0, 1]
    # It fits again when the first ends, at 99, and its prefill gives the token.
    assert log.ended_at == {0: 99.0, 1: 109.0}
    assert bench.continuous.scheduler.pool.used == 0


def test_a_retracted_request_waits_behind_those_that_wait_already() -> None:
    bench = overcommitted(200)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    # It comes when the batch is full: nothing fits after the two. It would be last if the retracted one were first.
    full, third = request(2, 100, 90, at=15.0), request(3, 1, 1, at=16.0)
    bench.send(first, second, full, third)
    log = bench.run()
    assert retractions(first, second)[0] == 1
    # At 99 the queue is: the big one, the small one, the retracted one. The first two fit in one step.
    assert (log.first[2], log.first[3]) == (109.0, 109.0)
    assert log.ended_at[0] > log.ended_at[2]


@pytest.mark.parametrize(("max_new", "first_token"), [(41, 86.0), (42, 109.0)])
def test_what_is_reserved_after_a_retraction_follows_from_the_outputs_kept(max_new: int, first_token: float) -> None:
    bench = overcommitted(200)
    first, second = request(0, 50, 80), request(1, 40, 80, at=5.0)
    bench.send(first, second, request(2, 40, 3, at=60.5, max_new=max_new))
    log = bench.run()
    assert retractions(first, second) == [1, 0]
    # The second is left at 75 with 56 outputs of 80: the ratio is (56 + 20) / (80 + 1) = 0.938. At 76 it has 96 tokens
    # of KV and 23 outputs to come: 104 - 0.938 * 23 = 82.4, and 40 + 41 + 1 = 82. Else the third waits until 99.
    assert log.first[2] == first_token


def test_the_ratio_after_a_retraction_by_the_numbers() -> None:
    ratio = NewTokenRatio(1.0)
    ratio.set_after_retraction(outputs_and_room=76, limits=80)
    assert ratio.current() == pytest.approx(76 / 81)
    ratio.decode_steps += 1
    assert ratio.current() == pytest.approx(76 / 81 - 0.602 / 600)
    ratio.set_after_retraction(outputs_and_room=90, limits=80)
    assert ratio.current() == 1.0


def test_the_ratio_after_a_retraction_may_be_below_its_least() -> None:
    ratio = NewTokenRatio(1.0)
    ratio.set_after_retraction(outputs_and_room=76, limits=4000)
    assert ratio.current() == pytest.approx(76 / 4001)
    ratio.decode_steps += 1
    assert ratio.current() == pytest.approx(0.098)


def test_a_request_that_does_not_fit_alone_fails() -> None:
    bench = step_bench(kv_tokens=5000)
    # Admission asks for at most 4096 tokens, but 6000 will come: the pool is exhausted after 4900 steps.
    bench.send(request(0, 100, 6000), request(1, 100, 2, at=4000.5))
    log = bench.run()
    assert log.failures == {0: OUT_OF_MEMORY}
    assert log.failed_at[0] == 10.0 + 4900.0 + 10.0
    assert bench.server.load(1e4).kv_tokens_used == 0


@pytest.mark.parametrize("overlap", [False, True])
def test_a_first_token_is_told_of_once(overlap: bool) -> None:
    bench = overcommitted(200, overlap=overlap)
    bench.send(*[request(number, 20, 60, at=number * 15.0) for number in range(6)])
    log = bench.run()
    assert len(log.first) == len(log.ended_at) == 6
    assert bench.server.telemetry.retractions > 0


def test_generated_tokens_count_the_one_of_the_prefill_after_a_retraction() -> None:
    bench = overcommitted(200)
    bench.send(request(0, 50, 80), request(1, 40, 80, at=5.0))
    bench.run()
    assert bench.generated_tokens == 160


def test_an_ending_request_frees_its_kv_before_anyone_is_retracted() -> None:
    bench = overcommitted(169, overlap=True)
    first, second = request(0, 50, 41), request(1, 40, 60, at=5.0)
    bench.send(first, second)
    log = bench.run()
    # The first has 2 of its 41 outputs at 21, and the 78 tokens left last for 39 steps of both: the last of them is in
    # flight when the next finds no room. The second sits out until that step ends, which costs it no time.
    assert retractions(first, second) == [0, 0]
    assert log.ended_at == {0: 60.0, 1: 80.0}
