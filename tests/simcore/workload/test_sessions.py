from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from simcore.errors import UserError
from simcore.workload import NONE, Workload, answer_segment, prompt_segment
from simcore.workload.sessions import TimeSpec, draw_times

Build = Callable[..., Workload]

CHAT: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_rps": 2},
    "requests": 200,
    "lengths": {"prompt": {"kind": "uniform", "max_tokens": 90}, "output": {"kind": "uniform", "max_tokens": 70}},
    "sessions": {
        "turns": {"kind": "geometric", "mean_turns": 4},
        "think_s": {"kind": "exponential", "mean_s": 5},
        "message": {"kind": "uniform", "max_tokens": 30},
    },
}
PREFIX = {"groups": 2, "system_prompt": {"kind": "fixed", "tokens": 100}}


def row(workload: Workload, request: int) -> list[tuple[int, int]]:
    segments = workload.segments
    assert segments is not None
    runs = slice(segments.offsets[request], segments.offsets[request + 1])
    return list(zip(segments.ids[runs].tolist(), segments.tokens[runs].tolist(), strict=True))


def with_sessions(**changes: Any) -> dict[str, Any]:
    return CHAT | {"sessions": CHAT["sessions"] | changes}


@pytest.mark.parametrize("prefixes", [None, PREFIX])
def test_a_turn_repeats_its_whole_session_and_adds_a_message(build: Build, prefixes: dict[str, Any] | None) -> None:
    workload = build(**CHAT, prefixes=prefixes)
    later = [i for i in range(200) if workload.think_s[i] > 0]
    assert len(later) > 100
    for request in later:
        before = request - 1
        own = (prompt_segment(request), row(workload, request)[-1][1])
        answer = (answer_segment(before), int(workload.output_tokens[before]))
        assert row(workload, request) == [*row(workload, before), answer, own]
        assert own[1] <= 30
        assert workload.prompt_tokens[request] == sum(tokens for _, tokens in row(workload, request))


def test_only_first_turns_have_an_arrival_and_only_later_ones_a_pause(build: Build) -> None:
    workload = build(**CHAT)
    first = ~np.isnan(workload.arrival_s)
    assert workload.arrival_s[0] == 0
    assert (np.diff(workload.arrival_s[first]) >= 0).all()
    assert (workload.think_s[first] == 0).all()
    assert (workload.think_s[~first] > 0).all()
    assert len(np.unique(workload.session_id)) == first.sum()


def test_turns_are_chained_within_their_session(build: Build) -> None:
    workload = build(**CHAT)
    for request in range(200):
        following = workload.next_turn[request]
        ends = request == 199 or workload.session_id[request + 1] != workload.session_id[request]
        assert following == (NONE if ends else request + 1)


@pytest.mark.parametrize(
    ("turns", "mean"),
    [
        ({"kind": "fixed", "turns": 3}, 3),
        ({"kind": "uniform", "min_turns": 2, "max_turns": 6}, 4),
        ({"kind": "geometric", "mean_turns": 2.5}, 2.5),
    ],
)
def test_sessions_have_the_turns_asked_for(build: Build, turns: dict[str, Any], mean: float) -> None:
    workload = build(**with_sessions(turns=turns) | {"requests": 30_000})
    counts = np.bincount(workload.session_id)[:-1]
    assert counts.mean() == pytest.approx(mean, rel=0.03)
    if turns["kind"] == "uniform":
        assert (counts.min(), counts.max()) == (2, 6)


def test_all_turns_count_as_requests_and_the_last_session_is_cut(build: Build) -> None:
    workload = build(**with_sessions(turns={"kind": "fixed", "turns": 4}) | {"requests": 10})
    assert np.bincount(workload.session_id).tolist() == [4, 4, 2]


def test_sessions_that_start_in_time_run_to_their_end(build: Build) -> None:
    section = with_sessions(turns={"kind": "fixed", "turns": 4})
    del section["requests"]
    workload = build(**section, duration_s=30)
    starts = int((~np.isnan(workload.arrival_s)).sum())
    assert starts > 30
    assert len(workload) == 4 * starts
    assert np.nanmax(workload.arrival_s) < 30


@pytest.mark.parametrize("prefixes", [None, PREFIX])
def test_a_session_ends_before_its_prompt_gets_too_long(build: Build, prefixes: dict[str, Any] | None) -> None:
    section = with_sessions(max_prompt_tokens=300, turns={"kind": "fixed", "turns": 50}) | {"prefixes": prefixes}
    workload = build(**section)
    assert len(workload) == 200
    assert workload.prompt_tokens.max() <= 300
    last = np.flatnonzero(workload.next_turn == NONE)[:-1]
    # One more answer (at most 70) and message (at most 30) would have gone over.
    assert (workload.prompt_tokens[last] + workload.output_tokens[last] + 30 > 300).all()
    for request in np.flatnonzero(np.isnan(workload.arrival_s)).tolist():
        assert row(workload, request)[:-2] == row(workload, request - 1)


def test_a_prompt_as_long_as_the_limit_is_not_too_long(build: Build) -> None:
    hundred = {"kind": "fixed", "tokens": 100}
    sessions = {"turns": {"kind": "fixed", "turns": 9}, "message": hundred, "max_prompt_tokens": 500}
    workload = build(**with_sessions(**sessions) | {"requests": 6, "lengths": {"prompt": hundred, "output": hundred}})
    assert workload.prompt_tokens.tolist() == [100, 300, 500, 100, 300, 500]


def test_a_first_prompt_over_the_limit_is_the_users_mistake(build: Build) -> None:
    with pytest.raises(UserError, match=r"max_prompt_tokens: a session's first prompt has \d+ tokens"):
        build(**with_sessions(max_prompt_tokens=20))


def test_answers_are_cut_before_later_turns_repeat_them(build: Build) -> None:
    workload = build(**CHAT, max_new_tokens=16)
    assert workload.output_tokens.max() == 16
    answers = {i: t for r in range(200) for i, t in row(workload, r) if i % 2}
    assert answers
    assert all(tokens == workload.output_tokens[answer // 2] for answer, tokens in answers.items())


@pytest.mark.parametrize(
    ("spec", "cv"),
    [
        ({"kind": "fixed", "time_s": 8}, 0),
        ({"kind": "exponential", "mean_s": 8}, 1),
        ({"kind": "lognormal", "mean_s": 8, "cv": 0.5}, 0.5),
    ],
)
def test_pauses_have_their_moments(spec: dict[str, Any], cv: float) -> None:
    times = draw_times(TypeAdapter[TimeSpec](TimeSpec).validate_python(spec), np.random.default_rng(1), 100_000)
    assert times.mean() == pytest.approx(8, rel=0.02)
    assert times.std() / times.mean() == pytest.approx(cv, abs=0.02)


def test_turns_out_of_order_are_refused(build: Build) -> None:
    with pytest.raises(ValidationError, match="'min_turns' is above 'max_turns'"):
        build(**with_sessions(turns={"kind": "uniform", "min_turns": 5, "max_turns": 2}))
