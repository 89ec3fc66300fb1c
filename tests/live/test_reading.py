"""What the service reads of a request for the policy."""

from typing import Any

import pytest

from live.service.reading import BadRequestError, parse_body, view_of
from policies import RequestView
from policies.predictors import RunningMean


def view(parsed: dict[str, Any], headers: dict[str, str] | None = None, *, with_hashes: bool = False) -> RequestView:
    return view_of(7, "m", parsed, headers or {}, 1.5, RunningMean(100), with_hashes=with_hashes)


@pytest.mark.parametrize(
    ("parsed", "tokens"),
    [
        ({"input_ids": [1, 2, 3]}, 3),
        ({"prompt": [5] * 10}, 10),
        ({"text": "x" * 400}, 100),
        ({"prompt": ""}, 1),
        ({"messages": [{"role": "user", "content": "x" * 400}]}, 110),
    ],
)
def test_a_prompts_length_is_counted_or_estimated(parsed: dict[str, Any], tokens: int) -> None:
    assert view(parsed).prompt_tokens == pytest.approx(tokens, rel=0.1)


@pytest.mark.parametrize(
    ("parsed", "tokens"),
    [
        ({}, 100),
        ({"max_tokens": 20}, 20),
        ({"max_completion_tokens": 1000}, 100),
        ({"sampling_params": {"max_new_tokens": 5}}, 5),
        ({"parameters": {"max_new_tokens": 6}}, 6),
        ({"max_tokens": "many"}, 100),
    ],
)
def test_no_more_is_expected_than_the_client_allows(parsed: dict[str, Any], tokens: int) -> None:
    assert view(parsed).expected_output_tokens == tokens


def test_a_session_is_the_same_from_header_or_body_and_small_enough_to_store() -> None:
    one, other = view({}, {"X-Session-Id": "abc"}), view({"routing_key": "abc"})
    assert one.session_id == other.session_id is not None
    assert 0 <= one.session_id < 2**63
    assert view({"routing_key": "abd"}).session_id != one.session_id
    assert view({}).session_id is None
    assert view({"priority": 3}).priority == 3


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({"text": "a" * 600}, {"text": "a" * 520 + "b" * 300}, 2),
        ({"input_ids": list(range(200))}, {"input_ids": [*range(130), *range(5)]}, 2),
        ({"text": "short"}, {"text": "short"}, 0),
    ],
)
def test_equal_beginnings_have_equal_hashes(one: dict[str, Any], other: dict[str, Any], shared: int) -> None:
    first, second = (view(parsed, with_hashes=True).prefix_hashes for parsed in (one, other))
    assert first[:shared] == second[:shared]
    assert set(first[shared:]).isdisjoint(second[shared:])
    assert all(0 <= value < 2**63 for value in first)
    assert view(one).prefix_hashes == ()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_the_clients_mistake(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse_body(body)
