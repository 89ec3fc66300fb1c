"""Overlap scheduling: a step is formed while the one before runs. A prefill step takes 10 s and a decode step 1 s."""

import pytest
from support.servers import STEPS, Bench, flat_steps, request, step_bench

from simcore.profile_parts import DecodeSteps

BY_BATCH = flat_steps(1.0, 10.0).model_copy(
    update={"decode": DecodeSteps(batches=(1, 2), base_s=(1.0, 2.0), context_s=(0.0, 0.0))}
)
"""A decode step takes a second for each request in it."""


@pytest.fixture(params=[False, True], ids=["macro-steps", "exact-steps"])
def exact_steps(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(("overlap", "first"), [(False, 22.0), (True, 23.0)])
def test_who_comes_during_a_step_runs_after_the_next_one(overlap: bool, first: float, exact_steps: bool) -> None:
    bench = step_bench(overlap=overlap, exact_steps=exact_steps)
    bench.send(request(0, 10, 50), request(1, 10, 2, at=11.5))
    # The step from 12 to 13 is formed already at 11.
    assert bench.run().first[1] == first


@pytest.mark.parametrize(("overlap", "first"), [(False, 20.0), (True, 21.0)])
def test_who_comes_during_a_prefill_runs_after_a_decode_step(overlap: bool, first: float, exact_steps: bool) -> None:
    bench = step_bench(overlap=overlap, exact_steps=exact_steps)
    bench.send(request(0, 10, 50), request(1, 10, 2, at=5.0))
    assert bench.run().first[1] == first


def test_on_an_idle_server_a_request_starts_at_once(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps)
    bench.send(request(0, 10, 3), request(1, 10, 3, at=50.0))
    log = bench.run()
    assert log.first == {0: 10.0, 1: 60.0}
    assert log.ended_at == {0: 12.0, 1: 62.0}


def test_who_comes_during_the_last_step_starts_at_its_end(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps)
    # Nothing was formed behind the step from 11 to 12, as its length is all that the first has left.
    bench.send(request(0, 10, 3), request(1, 10, 3, at=11.5))
    assert bench.run().first[1] == 22.0


@pytest.mark.parametrize(
    ("overlap", "max_new", "second_ends_at"),
    [
        # Both decode from 10 to 14, two steps of 2 s; then the second alone, three steps.
        (False, 3, 17.0),
        (True, 3, 17.0),
        (False, 99, 17.0),
        # That the first ended by a token of its own is known one step late: that step has two rows.
        (True, 99, 18.0),
    ],
)
def test_an_end_that_is_not_known_in_advance_costs_a_row(
    overlap: bool, max_new: int, second_ends_at: float, exact_steps: bool
) -> None:
    bench = step_bench(overlap=overlap, exact_steps=exact_steps, steps=BY_BATCH)
    bench.send(request(0, 10, 3, max_new=max_new), request(1, 10, 6))
    assert bench.run().ended_at == {0: 14.0, 1: second_ends_at}


def test_a_single_token_answer_that_ends_on_its_own_costs_a_row_too(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps, steps=BY_BATCH)
    bench.send(request(0, 10, 1, max_new=99), request(1, 10, 3))
    assert bench.run().ended_at == {0: 10.0, 1: 13.0}


def test_a_step_in_vain_is_run_to_its_end(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps)
    # The first ends on its own at 12, and the step from 12 to 13 is formed by then.
    bench.send(request(0, 10, 3, max_new=99), request(1, 10, 2, at=12.2))
    assert bench.run().first == {0: 10.0, 1: 23.0}


def test_the_row_in_vain_takes_kv_until_its_step_is_formed(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps)
    loads = bench.watch(10.5, 11.5, 12.5, 13.5)
    bench.send(request(0, 10, 3, max_new=99), request(1, 20, 9))
    bench.run()
    # 30, then two more a step. At 12 the first ends with 10 + 2 tokens and a third in vain, all given back.
    assert [load.kv_tokens_used for load in loads] == [32, 34, 23, 24]


def test_a_place_is_free_one_step_late(exact_steps: bool) -> None:
    bench = step_bench(overlap=True, exact_steps=exact_steps, max_running_requests=2)
    bench.send(request(0, 10, 5), request(1, 10, 50), request(2, 10, 2, at=12.5))
    # The first leaves at 14, when the step from 14 to 15 is formed.
    assert bench.run().first[2] == 25.0


def test_who_comes_at_the_very_end_of_a_step_comes_in_time(exact_steps: bool) -> None:
    for overlap, first in ((False, 22.0), (True, 23.0)):
        bench = step_bench(overlap=overlap, exact_steps=exact_steps)
        bench.send(request(0, 10, 50), request(1, 10, 2, at=12.0))
        assert bench.run().first[1] == first


def test_overlap_changes_nothing_for_a_request_alone() -> None:
    ends = []
    for overlap in (False, True):
        bench = Bench(steps=STEPS, overlap=overlap)
        bench.send(request(0, 300, 40))
        ends.append(bench.run().ended_at[0])
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)
