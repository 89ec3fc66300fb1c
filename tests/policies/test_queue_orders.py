"""Which of the waiting requests goes next, by each order."""

import random
from collections.abc import Sequence

import pytest
from support.choices import request

from policies import RequestView, make_order
from policies.ledger import InFlight, ServerConfig
from policies.oblivious import RoundRobin
from policies.queue_orders import QUEUE_ORDERS
from policies.router import Dispatch, Router
from policies.waiting import WaitingQueue


def order_of(name: str, views: Sequence[RequestView]) -> list[int]:
    """Their ids as they leave one server that serves one at a time; the first to come is there already."""
    router = Router([ServerConfig("s0", "m", 1)], RoundRobin(random.Random(0)), order=make_order(name))
    left: list[int] = []
    for view in [request(99), *views]:
        left += [action.request_id for action in router.on_arrival(view.arrived_at, view)]
    for _ in views:
        (action,) = router.on_finish(100.0, left[-1])
        assert isinstance(action, Dispatch)
        left.append(action.request_id)
    return left[1:]


def test_fcfs_and_lcfs() -> None:
    views = [request(number, at=float(number)) for number in range(4)]
    assert order_of("fcfs", views) == [0, 1, 2, 3]
    assert order_of("lcfs", views) == [3, 2, 1, 0]


def test_sjf_takes_the_shortest_expected_answer() -> None:
    assert order_of("sjf", [request(0, expected=30), request(1, expected=10), request(2, expected=20)]) == [1, 2, 0]


def test_wspt_is_one_plus_priority_over_prompt_tokens() -> None:
    # 1/100, 1/50, 4/150, 1/200 for a negative priority.
    views = [
        request(0, prompt=100),
        request(1, prompt=50),
        request(2, prompt=150, priority=3),
        request(3, prompt=200, priority=-5),
    ]
    assert order_of("wspt", views) == [2, 1, 0, 3]
    assert order_of("wspt", [request(0, prompt=200), request(1, prompt=100, priority=-1)]) == [1, 0]


def test_deadlines_for_the_answer_and_for_its_first_token() -> None:
    views = [
        request(0, at=0.0, slo={"e2e_s": 9.0, "ttft_s": 1.0}),
        request(1, at=1.0, slo={"e2e_s": 7.0, "ttft_s": 3.0}),
        request(2, at=2.0, slo={"e2e_s": 6.5}),
        request(3, at=2.5, slo={}),
    ]
    assert order_of("edf", views) == [1, 2, 0, 3]
    assert order_of("slo_deadline", views) == [0, 1, 2, 3]
    assert order_of("slo_deadline", [views[1], views[0]]) == [0, 1]


def test_priority_before_arrival() -> None:
    views = [request(0), request(1, priority=2), request(2, priority=-1), request(3, priority=2)]
    assert order_of("priority", views) == [1, 3, 0, 2]


def test_fair_share_alternates_between_a_heavy_session_and_a_light_one() -> None:
    heavy = [request(number, session=1, prompt=100, expected=50) for number in range(4)]
    light = [request(10 + number, session=2, prompt=100, expected=50) for number in range(2)]
    assert order_of("fair_share", [*heavy, *light]) == [0, 10, 1, 11, 2, 3]


def test_fair_share_counts_tokens_not_requests() -> None:
    # A request of session 1 costs 400, one of session 2 costs 100: tags 0, 400 and 0, 100, 200, 300.
    large = [request(number, session=1, prompt=200, expected=100) for number in range(2)]
    small = [request(10 + number, session=2, prompt=50, expected=25) for number in range(4)]
    assert order_of("fair_share", [*large, *small]) == [0, 10, 11, 12, 13, 1]


def test_fair_share_gives_no_credit_for_having_been_away() -> None:
    queue = WaitingQueue(make_order("fair_share"))
    entries = [InFlight(request(number, session=1, prompt=100, expected=0)) for number in range(4)]
    for entry in entries:
        queue.push(entry)
    for _ in range(3):
        queue.pop()
    # The queue is at tag 200: who comes now starts there, and not at 0, where it would have two turns at once.
    late = [InFlight(request(10 + number, session=2, prompt=60, expected=0)) for number in range(3)]
    for entry in late:
        queue.push(entry)
    left = []
    while (entry := queue.peek()) is not None:  # type: ignore[assignment]
        left.append(entry.request.request_id)
        queue.pop()
    assert left == [10, 11, 3, 12], "200, 260, 300, 320"


def test_fair_share_remembers_so_many_sessions_and_no_more() -> None:
    order = make_order("fair_share")
    for session in range(20_000):
        order.key(request(session=session, prompt=100, expected=0))
    assert order.key(request(session=19_999, prompt=100, expected=0)) == 100.0
    assert order.key(request(session=0, prompt=100, expected=0)) == 0.0
    assert len(order._ends) == 10_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", QUEUE_ORDERS)
def test_every_order_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    order = QUEUE_ORDERS[name]
    assert order.name == name
    assert order.summary
    assert order.source
    assert order.__doc__
