"""The router's transitions: queue, caps, retries, cancellation, and what it refuses of a policy."""

import random

import pytest

from policies import ClusterView, Decision, Hold, Policy, PolicyError, Reject, RequestView, Route
from policies.least_loaded import LeastRequest
from policies.ledger import ServerConfig, ServerReport
from policies.oblivious import RoundRobin
from policies.queue_orders import ShortestJobFirst
from policies.router import Abort, Dispatch, Fail, Refuse, Router


def view(
    request_id: int, *, prompt: int = 10, expected: int | None = 5, at: float = 0.0, model: str = "m"
) -> RequestView:
    return RequestView(request_id, model, prompt, expected, at)


def router(
    policy: Policy | None = None,
    *,
    servers: int = 2,
    cap: int | None = None,
    queue_limit: int | None = None,
    max_attempts: int = 1,
    order: ShortestJobFirst | None = None,
) -> Router:
    configs = [ServerConfig(f"s{index}", "m", cap) for index in range(servers)]
    chosen = policy or RoundRobin(random.Random(0))
    return Router(configs, chosen, order=order, queue_limit=queue_limit, max_attempts=max_attempts)


class Scripted(Policy):
    """Answers what it is told to, in turn."""

    name = "scripted"

    def __init__(self, *answers: Decision) -> None:
        super().__init__(random.Random(0))
        self.answers = list(answers)
        self.events: list[str] = []

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        return self.answers.pop(0)

    def on_dispatch(self, request: RequestView, server: object, now: float) -> None:
        self.events.append(f"dispatch {request.request_id}")

    def on_finish(self, request: RequestView, server: object, now: float) -> None:
        self.events.append(f"finish {request.request_id}")


def test_an_arrival_is_dispatched_at_once_and_counted() -> None:
    r = router()
    assert r.on_arrival(0.0, view(1, prompt=10, expected=5)) == [Dispatch(1, "s0", 1)]
    state = r.servers["s0"]
    assert (state.in_flight_requests, state.in_flight_tokens) == (1, 15)
    assert (state.requests_since_report, state.prefill_tokens_since_report) == (1, 10)
    assert r.on_finish(1.0, 1) == []
    assert (state.in_flight_requests, state.in_flight_tokens) == (0, 0)


def test_a_report_ends_the_credit() -> None:
    r = router(servers=1)
    r.on_arrival(0.0, view(1))
    r.on_report(1.0, "s0", ServerReport(0.9, running_requests=1, throughput_tps=40.0))
    state = r.servers["s0"]
    assert (state.reported_at, state.running_requests, state.throughput_tps) == (0.9, 1, 40.0)
    assert (state.requests_since_report, state.prefill_tokens_since_report) == (0, 0)
    assert state.in_flight_requests == 1


def test_requests_wait_first_come_first_served_while_all_servers_are_at_their_cap() -> None:
    r = router(servers=2, cap=1)
    for request_id in range(4):
        r.on_arrival(float(request_id), view(request_id, at=float(request_id)))
    assert r.queued_requests == 2
    assert r.on_finish(5.0, 1) == [Dispatch(2, "s1", 1)]
    assert r.on_finish(6.0, 0) == [Dispatch(3, "s0", 1)]
    assert r.queued_requests == 0


def test_the_queue_order_decides_who_goes_next() -> None:
    r = router(servers=1, cap=1, order=ShortestJobFirst())
    for request_id, expected in enumerate([100, 50, 7, 50]):
        r.on_arrival(float(request_id), view(request_id, expected=expected, at=float(request_id)))
    started = [0]
    for _ in range(3):
        (action,) = r.on_finish(9.0, started[-1])
        assert isinstance(action, Dispatch)
        started.append(action.request_id)
    assert started == [0, 2, 1, 3], "shortest first, ties by arrival"


def test_raising_a_cap_admits_at_once_and_lowering_preempts_nothing() -> None:
    r = router(servers=1, cap=3)
    for request_id in range(8):
        r.on_arrival(0.0, view(request_id))
    state = r.servers["s0"]
    assert state.in_flight_requests == 3
    assert r.set_cap(1.0, "s0", 1) == []
    assert state.in_flight_requests == 3, "nothing is preempted"
    assert r.on_finish(2.0, 0) == []
    assert r.on_finish(2.0, 1) == [], "still at the new cap"
    assert r.on_finish(3.0, 2) == [Dispatch(3, "s0", 1)]
    assert r.set_cap(4.0, "s0", 4) == [Dispatch(4, "s0", 1), Dispatch(5, "s0", 1), Dispatch(6, "s0", 1)]
    assert r.set_cap(5.0, "s0", None) == [Dispatch(7, "s0", 1)]


def test_the_queue_limit_refuses_the_newcomer() -> None:
    r = router(servers=1, cap=1, queue_limit=1)
    r.on_arrival(0.0, view(0))
    assert r.on_arrival(0.0, view(1)) == []
    assert r.on_arrival(0.0, view(2)) == [Refuse(2, "the router's queue is full")]
    assert r.on_finish(1.0, 0) == [Dispatch(1, "s0", 1)]
    assert r.on_finish(2.0, 1) == [], "the refused request is gone"


def test_a_queue_of_no_length_still_serves() -> None:
    r = router(servers=1, cap=1, queue_limit=0)
    assert r.on_arrival(0.0, view(0)) == [Dispatch(0, "s0", 1)]
    assert r.on_arrival(0.0, view(1)) == [Refuse(1, "the router's queue is full")]


def test_hold_keeps_the_queue_until_something_happens() -> None:
    policy = Scripted(Route("s0"), Hold(), Hold(), Route("s1"), Route("s0"))
    r = router(policy)
    assert r.on_arrival(0.0, view(0)) == [Dispatch(0, "s0", 1)]
    assert r.on_arrival(1.0, view(1)) == []
    assert r.on_arrival(2.0, view(2)) == [], "the head of the queue holds all behind it"
    assert r.on_report(3.0, "s0", ServerReport(3.0)) == [Dispatch(1, "s1", 1), Dispatch(2, "s0", 1)]


def test_reject_turns_one_request_away() -> None:
    r = router(Scripted(Reject("too long"), Route("s0")))
    assert r.on_arrival(0.0, view(0)) == [Refuse(0, "too long")]
    assert r.on_arrival(0.0, view(1)) == [Dispatch(1, "s0", 1)]


def test_a_failure_is_retried_on_another_server_before_the_queue() -> None:
    r = router(LeastRequest(random.Random(0)), cap=1, max_attempts=2)
    r.on_arrival(0.0, view(0))
    r.on_arrival(0.0, view(1))
    r.on_arrival(0.0, view(2))
    first = {request_id: entry.server.server_id for request_id, entry in r._requests.items() if entry.server}
    assert r.on_failure(1.0, 0, "reset", retry=True) == [Dispatch(0, first[0], 2)], "nowhere else is open"
    r.on_finish(2.0, 0)
    actions = r.on_failure(3.0, 1, "reset", retry=True)
    assert Fail(1, "reset") not in actions
    (action,) = [a for a in actions if isinstance(a, Dispatch) and a.request_id == 1] or r.on_finish(4.0, 2)
    assert isinstance(action, Dispatch)
    assert (action.request_id, action.attempt) == (1, 2)
    assert r.on_failure(5.0, 1, "reset again", retry=True) == [Fail(1, "reset again")]


def test_a_failure_after_the_first_byte_is_final() -> None:
    r = router(max_attempts=3)
    r.on_arrival(0.0, view(0))
    assert r.on_failure(1.0, 0, "connection lost", retry=False) == [Fail(0, "connection lost")]
    assert r.servers["s0"].in_flight_requests == 0


def test_cancelling_frees_the_place() -> None:
    r = router(servers=1, cap=1)
    for request_id in range(3):
        r.on_arrival(0.0, view(request_id))
    assert r.on_cancel(1.0, 1) == [], "it was only waiting"
    assert r.queued_requests == 1
    assert r.on_cancel(2.0, 0) == [Abort(0, "s0"), Dispatch(2, "s0", 1)]


def test_a_server_that_is_down_gets_nothing() -> None:
    r = router(LeastRequest(random.Random(0)))
    assert r.set_health(0.0, "s0", False) == []
    for request_id in range(3):
        assert r.on_arrival(0.0, view(request_id)) == [Dispatch(request_id, "s1", 1)]
    r.set_health(1.0, "s1", False)
    assert r.on_arrival(1.0, view(9)) == []
    assert r.set_health(2.0, "s0", True) == [Dispatch(9, "s0", 1)]


def test_a_model_nobody_serves_is_refused() -> None:
    assert router().on_arrival(0.0, view(0, model="other")) == [Refuse(0, "no server serves the model 'other'")]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Route("nowhere"), "policy scripted routed request 0 to the unknown server 'nowhere'"),
        (Route("s1"), "policy scripted routed request 0 to 's1', which is down"),
        ("s0", "must return Route, Hold or Reject, not 's0'"),
    ],
)
def test_decisions_that_cannot_be_carried_out_are_errors(answer: Decision, message: str) -> None:
    r = router(Scripted(answer))
    r.set_health(0.0, "s1", False)
    with pytest.raises(PolicyError, match=message):
        r.on_arrival(0.0, view(0))


def test_hooks_follow_a_request() -> None:
    policy = Scripted(Route("s0"), Route("s1"))
    r = router(policy, max_attempts=2)
    r.on_arrival(0.0, view(0))
    r.on_failure(1.0, 0, "reset", retry=True)
    r.on_finish(2.0, 0)
    assert policy.events == ["dispatch 0", "finish 0", "dispatch 0", "finish 0"]
