"""A server with a rate limit, to the router: closed while the limit is used up, as one at its cap is."""

import random
from collections.abc import Sequence

import pytest

from policies import RequestView
from policies.ledger import ServerConfig
from policies.oblivious import RoundRobin
from policies.router import Action, Dispatch, Fail, Router

LIMITED = ServerConfig("api", "m", remote=True, requests_per_minute=2)


def view(request_id: int) -> RequestView:
    return RequestView(request_id, "m", 10, 5, 0.0)


def router(servers: Sequence[ServerConfig] = (LIMITED,), **options: int) -> Router:
    return Router(servers, RoundRobin(random.Random(0)), **options)


def sent_to(actions: list[Action]) -> list[tuple[int, str, int]]:
    return [tuple(action) for action in actions if isinstance(action, Dispatch)]


def test_requests_wait_while_the_limit_is_used_up() -> None:
    r = router()
    assert [r.on_arrival(0.0, view(number)) for number in (0, 1)] == [[Dispatch(0, "api", 1)], [Dispatch(1, "api", 1)]]
    assert r.on_arrival(0.0, view(2)) == []
    assert r.on_arrival(1.0, view(3)) == []
    assert r.servers["api"].rate is not None
    assert r.servers["api"].rate.opens_at == 30.0
    assert r.on_room(29.0, "api") == [], "too early"
    assert r.on_finish(29.5, 0) == [], "an answer gives back no part of a rate"
    assert r.on_room(30.0, "api") == [Dispatch(2, "api", 1)], "one, and not the next"
    assert r.on_room(60.0, "api") == [Dispatch(3, "api", 1)]


def test_meanwhile_requests_go_elsewhere() -> None:
    r = router([LIMITED, ServerConfig("own", "m")])
    served = [sent_to(r.on_arrival(0.0, view(number)))[0][1] for number in range(6)]
    assert served == ["api", "own", "api", "own", "own", "own"]


def test_a_request_that_the_api_sends_back_waits_at_the_head_and_is_no_attempt() -> None:
    r = router(max_attempts=1)
    r.on_arrival(0.0, view(0))
    r.on_arrival(0.0, view(1))
    r.on_arrival(0.0, view(2))
    assert r.on_limited(0.1, 1, retry_after_s=45.0) == []
    assert r.servers["api"].in_flight_requests == 1
    assert r.on_room(30.0, "api") == [], "the API's word counts for more than the router's account"
    assert r.on_room(45.1, "api") == [Dispatch(1, "api", 1)], "the one sent back is before the one that waited"
    # It is still the first attempt: what fails now has been tried once.
    assert r.on_failure(46.0, 1, "lost", retry=True) == [Fail(1, "lost")]


def test_a_request_that_is_sent_back_may_go_elsewhere_at_once() -> None:
    r = router([LIMITED, ServerConfig("own", "m")])
    r.on_arrival(0.0, view(0))
    assert r.on_limited(0.1, 0, retry_after_s=1.0) == [Dispatch(0, "own", 1)]


def test_a_cap_and_a_limit_hold_together() -> None:
    r = router([ServerConfig("api", "m", 1, remote=True, requests_per_minute=60)])
    r.on_arrival(0.0, view(0))
    assert r.on_arrival(0.0, view(1)) == [], "at its cap"
    assert r.on_finish(1.0, 0) == [Dispatch(1, "api", 1)]
    r.set_cap(1.0, "api", None)
    assert sent_to(r.on_arrival(1.0, view(2))) == [(2, "api", 1)]
    assert r.servers["api"].limited, "without a cap the limit is still there"


@pytest.mark.parametrize("now", [0.0, 5.0])
def test_tokens_count_as_the_router_knows_them(now: float) -> None:
    r = router([ServerConfig("api", "m", remote=True, tokens_per_minute=15)])
    for number in range(2):
        assert sent_to(r.on_arrival(now, view(number))), "15 tokens a request: the first empties the account"
    rate = r.servers["api"].rate
    assert rate is not None
    assert rate.opens_at == pytest.approx(now + 60), "and the second overdraws it by a minute's"
    assert r.on_arrival(now, view(2)) == []
