"""The account of a rate limit, by hand."""

import pytest

from policies.rate_limit import RateLimit


def test_a_minutes_requests_may_go_at_once_and_then_one_each_interval() -> None:
    limit = RateLimit(requests_per_minute=2, tokens_per_minute=None)
    limit.take(0.0, 1)
    assert limit.opens_at == 0.0
    limit.take(0.0, 1)
    assert limit.opens_at == 30.0, "both are gone; one has come back after half a minute"
    limit.take(30.0, 1)
    assert limit.opens_at == 60.0
    # After a long pause the account is full, not fuller.
    limit.take(1000.0, 1)
    limit.take(1000.0, 1)
    assert limit.opens_at == 1030.0


def test_tokens_may_be_overdrawn_and_are_paid_back_by_waiting() -> None:
    limit = RateLimit(requests_per_minute=None, tokens_per_minute=600)  # ten a second
    limit.take(0.0, 599)
    assert limit.opens_at <= 0.0, "one is left"
    limit.take(0.0, 301)
    assert limit.opens_at == pytest.approx(30.0), "300 too many"


def test_what_was_sent_back_is_not_counted() -> None:
    limit = RateLimit(requests_per_minute=1, tokens_per_minute=None)
    limit.take(0.0, 1)
    limit.push_back(0.5, 1)
    assert limit.opens_at == 0.5, "not a minute later"


def test_the_stricter_of_the_two_decides() -> None:
    limit = RateLimit(requests_per_minute=1, tokens_per_minute=600)
    limit.take(0.0, 10)
    assert limit.opens_at == 60.0
    limit.take(60.0, 1800)
    assert limit.opens_at == pytest.approx(180.0)


@pytest.mark.parametrize(("requests", "tokens"), [(60, None), (None, 600), (60, 600)])
def test_after_a_push_back_one_request_goes_and_the_next_waits(requests: float | None, tokens: float | None) -> None:
    limit = RateLimit(requests, tokens)
    limit.take(4.0, 20)
    limit.push_back(5.0, 20)
    assert limit.opens_at == pytest.approx(5.0)
    limit.take(5.0, 20)
    assert limit.opens_at == pytest.approx(6.0 if tokens is None else 7.0), "a second for it, or two for its tokens"
