"""The server's own limits: requests that run, requests that wait. A prefill step takes 10 s and a decode step 1 s."""

import pytest
from support.servers import request, step_bench

from simcore.server.interface import QUEUE_IS_FULL


def test_no_more_run_than_the_cap() -> None:
    bench = step_bench(max_running_requests=2)
    loads = bench.watch(5.0, 15.0, 30.0)
    bench.send(request(0, 10, 3), request(1, 10, 6), request(2, 10, 2))
    log = bench.run()
    # The first leaves at 12, and the third takes its place.
    assert log.first == {0: 10.0, 1: 10.0, 2: 22.0}
    assert log.ended_at == {0: 12.0, 1: 25.0, 2: 23.0}
    assert [(load.running, load.queued) for load in loads] == [(2, 1), (2, 0), (0, 0)]
    assert bench.server.telemetry.peak_running == 2


def test_a_full_queue_refuses() -> None:
    bench = step_bench(max_running_requests=1, max_queued_requests=2)
    # One runs and two wait; the fourth comes at 12 and is refused at the end of the step under way.
    bench.send(request(0, 10, 30), *[request(number, 10, 2, at=10.5 + number / 2) for number in (1, 2, 3)])
    log = bench.run()
    assert log.failures == {3: QUEUE_IS_FULL}
    assert log.failed_at == {3: 12.0}
    assert set(log.ended_at) == {0, 1, 2}


def test_running_requests_do_not_count_as_queued() -> None:
    bench = step_bench(max_running_requests=4, max_queued_requests=1)
    bench.send(*[request(number, 10, 50, at=15.0 * number) for number in range(4)])
    assert set(bench.run().ended_at) == {0, 1, 2, 3}


def test_the_queue_takes_in_again_when_one_has_left_it() -> None:
    bench = step_bench(max_running_requests=1, max_queued_requests=1)
    bench.send(request(0, 10, 5), request(1, 10, 5, at=11.5), request(2, 10, 5, at=12.5), request(3, 10, 5, at=20.0))
    log = bench.run()
    assert log.failures == {2: QUEUE_IS_FULL}
    assert log.first == {0: 10.0, 1: 24.0, 3: 38.0}


def test_requests_that_come_together_are_refused_together() -> None:
    bench = step_bench(max_running_requests=8, max_queued_requests=3)
    bench.send(*[request(number, 10, 2, at=5.0) for number in range(9)])
    log = bench.run()
    # Nothing is admitted while they are taken in, one after another.
    assert set(log.failures) == {3, 4, 5, 6, 7, 8}


def test_a_raised_cap_admits_at_the_next_step() -> None:
    bench = step_bench(max_running_requests=2)
    bench.limit(1, at=0.0)
    bench.send(request(0, 10, 50, at=1.0), request(1, 10, 3, at=15.5))
    bench.limit(2, at=15.0)
    assert bench.run().first == {0: 11.0, 1: 26.0}


@pytest.mark.parametrize("exact_steps", [False, True])
def test_a_raised_cap_helps_a_full_batch_only_when_a_request_leaves(exact_steps: bool) -> None:
    bench = step_bench(max_running_requests=4, exact_steps=exact_steps)
    bench.limit(2, at=0.0)
    bench.send(*[request(number, 10, output, at=1.0) for number, output in enumerate((10, 20, 5, 5))])
    bench.limit(4, at=15.5)
    # The batch was found full at 1; the first leaves at 20. Then there are places for both.
    assert bench.run().first == {0: 11.0, 1: 11.0, 2: 30.0, 3: 30.0}


@pytest.mark.parametrize("exact_steps", [False, True])
def test_who_has_found_the_batch_full_waits_for_a_request_to_leave(exact_steps: bool) -> None:
    bench = step_bench(max_running_requests=2, exact_steps=exact_steps)
    bench.limit(1, at=0.0)
    bench.send(request(0, 10, 20, at=1.0), request(1, 10, 3, at=12.5))
    bench.limit(2, at=15.5)
    assert bench.run().first == {0: 11.0, 1: 40.0}


def test_a_lowered_cap_takes_nobody_away_and_admits_nobody_until_enough_have_left() -> None:
    bench = step_bench(max_running_requests=3)
    bench.send(
        request(0, 10, 5),
        request(1, 10, 10),
        request(2, 10, 15),
        request(3, 10, 2, at=12.5),
        request(4, 10, 2, at=12.5),
    )
    bench.limit(1, at=11.5)
    log = bench.run()
    # All three run on, to 14, 19 and 24; then one at a time.
    assert [log.ended_at[number] for number in (0, 1, 2)] == [14.0, 19.0, 24.0]
    assert (log.first[3], log.first[4]) == (34.0, 45.0)
    assert bench.server.telemetry.retractions == 0


@pytest.mark.parametrize("exact_steps", [False, True])
def test_a_cap_that_changes_within_a_step_comes_after_the_next_which_is_formed_already(exact_steps: bool) -> None:
    """Under overlap scheduling the second prefill was formed as the first began."""
    bench = step_bench(overlap=True, max_running_requests=3, max_prefill_tokens=10, exact_steps=exact_steps)
    bench.send(*[request(number, 10, 5) for number in range(3)])
    bench.limit(1, at=5.0)
    log = bench.run()
    assert [log.first[number] for number in (0, 1)] == [10.0, 20.0]
    assert log.first[2] > max(log.ended_at[number] for number in (0, 1))
