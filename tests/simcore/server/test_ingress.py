"""A server's way in: one process takes requests, one at a time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcore.profile_parts import RequestOverheads
from simcore.server.ingress import Ingress


def ingress(s: float = 0.0, per_prompt_token_s: float = 0.0, spacing_s: float = 0.0) -> Ingress:
    return Ingress(
        RequestOverheads(
            ingress_s=s, ingress_per_prompt_token_s=per_prompt_token_s, ingress_spacing_s=spacing_s, egress_s=0.0
        )
    )


def test_what_takes_longer_on_its_way_in_is_not_overtaken() -> None:
    one = ingress(s=0.25, per_prompt_token_s=0.5)
    assert one.ready_at(1.0, 4) == 3.25
    assert one.ready_at(1.5, 1) == 3.25
    assert one.ready_at(2.0, 4) == 4.25


def test_requests_of_one_moment_come_one_after_another() -> None:
    one = ingress(s=0.25, spacing_s=0.5)
    assert [one.ready_at(1.0, 10) for _ in range(3)] == [1.25, 1.75, 2.25]
    # The process is still at the third.
    assert one.ready_at(2.25, 10) == 2.75
    assert one.ready_at(9.0, 10) == 9.25


SENT = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1, max_size=20)


@given(sent=SENT, spacing_s=st.sampled_from([0.0, 0.25, 2.0]))
def test_none_is_early_nor_later_than_what_came_before_it_demands(
    sent: list[tuple[int, int]], spacing_s: float
) -> None:
    """Without end: each is ready on its own account, or just after the one before it."""
    one = ingress(s=0.5, per_prompt_token_s=0.25, spacing_s=spacing_s)
    sent.sort(key=lambda each: each[0])
    alone = [at + 0.5 + 0.25 * prompt for at, prompt in sent]
    ready = [one.ready_at(at, prompt) for at, prompt in sent]
    assert ready[0] == alone[0]
    for own, (before, at) in zip(alone[1:], pairwise(ready), strict=True):
        assert at == pytest.approx(max(own, before + spacing_s))
