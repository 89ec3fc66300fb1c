"""What holds of every workload, whatever it was built from."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simcore.workload import NONE, Workload, WorkloadSpec, build_workload

Build = Callable[..., Workload]

GENERATED: dict[str, Any] = {
    "arrivals": {"kind": "poisson", "rate_rps": 4},
    "requests": 3_000,
    "lengths": {
        "prompt": {"kind": "lognormal", "mean_tokens": 80, "cv": 1},
        "output": {"kind": "uniform", "max_tokens": 99},
    },
}

tokens = st.integers(1, 5_000)
length = st.one_of(
    st.builds(lambda n: {"kind": "fixed", "tokens": n}, tokens),
    st.builds(lambda n, r: {"kind": "uniform", "max_tokens": n, "range_ratio": r}, tokens, st.floats(0, 1)),
    st.builds(lambda n, cv: {"kind": "lognormal", "mean_tokens": n, "cv": cv}, tokens, st.floats(0.01, 3)),
    st.builds(lambda t: {"kind": "empirical", "table": t}, st.sampled_from(["azure-conv", "azure-code"])),
)
rate = st.floats(0.1, 100)
arrivals = st.one_of(
    st.builds(lambda r: {"kind": "poisson", "rate_rps": r}, rate),
    st.builds(lambda r, cv: {"kind": "gamma", "rate_rps": r, "cv": cv}, rate, st.floats(0.1, 5)),
    st.builds(lambda r: {"kind": "constant", "rate_rps": r}, rate),
    st.builds(lambda r, b: {"kind": "bursty", "rate_rps": r, "burst_rate_rps": b, "on_s": 3, "off_s": 9}, rate, rate),
    st.just({"kind": "closed_loop", "max_concurrency": 3}),
)
choice = st.sampled_from(["shuffled", "round_robin", "random", "zipf"]).map(lambda kind: {"kind": kind})
prefixes = st.none() | st.builds(
    lambda g, n, c: {"groups": g, "system_prompt": n, "choice": c}, st.integers(1, 9), length, choice
)
turns = st.one_of(
    st.builds(lambda n: {"kind": "fixed", "turns": n}, st.integers(1, 6)),
    st.builds(lambda n: {"kind": "uniform", "max_turns": n}, st.integers(1, 6)),
    st.builds(lambda n: {"kind": "geometric", "mean_turns": n}, st.floats(1, 6)),
)
sessions = st.none() | st.builds(
    lambda t, m: {"turns": t, "message": m, "think_s": {"kind": "exponential", "mean_s": 2}}, turns, length
)
lengths = st.just({"table": "mooncake-conversation"}) | st.builds(
    lambda p, o: {"prompt": p, "output": o}, length, length
)
expected = st.sampled_from(
    [{"kind": "none"}, {"kind": "mean"}, {"kind": "exact"}, {"kind": "noisy", "cv": 0.5}],
)
size = st.integers(1, 60).map(lambda n: {"requests": n}) | st.floats(0.01, 5).map(lambda s: {"duration_s": s})


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    section = {
        "arrivals": draw(arrivals),
        "lengths": draw(lengths),
        "prefixes": draw(prefixes),
        "sessions": draw(sessions),
        "expected_output": draw(expected),
        "max_new_tokens": draw(st.just("exact") | tokens),
    }
    return section | ({"requests": 20} if section["arrivals"]["kind"] == "closed_loop" else draw(size))


def check(workload: Workload) -> None:
    """Everything that Workload's and Segments' docstrings promise."""
    n = len(workload)
    for field in fields(workload):
        if isinstance(column := getattr(workload, field.name), np.ndarray):
            assert column.shape == (n,), field.name
            assert column.dtype == (np.float64 if field.name in ("arrival_s", "think_s") else np.int64), field.name
    later = np.isnan(workload.arrival_s)
    first_s = workload.arrival_s[~later]
    assert first_s[0] == 0
    assert (np.diff(first_s) >= 0).all()
    assert min(workload.prompt_tokens.min(), workload.output_tokens.min()) >= 1
    assert (workload.max_new_tokens >= workload.output_tokens).all()
    assert ((workload.expected_output_tokens >= 1) | (workload.expected_output_tokens == NONE)).all()
    assert not workload.ignore_eos or (workload.max_new_tokens == workload.output_tokens).all()
    assert (workload.think_s[~later] == 0).all()
    follows = workload.next_turn[workload.next_turn != NONE]
    np.testing.assert_array_equal(np.sort(follows), np.flatnonzero(later))
    before = np.flatnonzero(workload.next_turn != NONE)
    np.testing.assert_array_equal(workload.session_id[before], workload.session_id[follows])
    if (segments := workload.segments) is not None:
        assert (segments.tokens > 0).all()
        assert segments.offsets[-1] == len(segments.ids) == len(segments.tokens)
        np.testing.assert_array_equal(np.add.reduceat(segments.tokens, segments.offsets[:-1]), workload.prompt_tokens)


@settings(max_examples=150, deadline=None)
@given(section=sections(), seed=st.integers(0, 2**64))
def test_every_generated_workload_is_sound(section: dict[str, Any], seed: int) -> None:
    spec = WorkloadSpec.model_validate(section)
    workload = build_workload(spec, np.random.SeedSequence(seed), base_dir=Path())
    check(workload)
    assert spec.requests is None or len(workload) == spec.requests
    assert spec.duration_s is None or np.nanmax(workload.arrival_s) < spec.duration_s


@settings(max_examples=50, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 2_000), st.integers(0, 50)), min_size=1, max_size=20
    ),
    limit=st.none() | st.integers(1, 25),
    max_new_tokens=st.just("exact") | tokens,
)
def test_every_replayed_workload_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[int, int, int]],
    limit: int | None,
    max_new_tokens: str | int,
) -> None:
    calls = [*calls, (5, 100, 10)]
    folder = tmp_path_factory.mktemp("traces")
    records = (
        {"timestamp": t, "input_length": p, "output_length": o, "hash_ids": list(range(-(-p // 512)))}
        for t, p, o in calls
    )
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    rows = (f"{t},{p},{o}" for t, p, o in calls)
    (folder / "t.csv").write_text("\n".join(["Timestamp,Request tokens,Response tokens", *rows]))
    for kind, name in (("mooncake", "t.jsonl"), ("burstgpt", "t.csv")):
        section = {"trace": {"kind": kind, "path": name, "limit": limit}, "max_new_tokens": max_new_tokens}
        spec = WorkloadSpec.model_validate(section)
        workload = build_workload(spec, np.random.SeedSequence(0), base_dir=folder)
        check(workload)
        assert len(workload) == min(limit or 99, sum(p > 0 and o > 0 for _, p, o in calls))


def columns(workload: Workload) -> dict[str, bytes]:
    plain = {f.name: getattr(workload, f.name) for f in fields(workload)}
    return {name: column.tobytes() for name, column in plain.items() if isinstance(column, np.ndarray)}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(build: Build) -> None:
    one, again, other = columns(build(seed=7, **GENERATED)), columns(build(seed=7, **GENERATED)), build(**GENERATED)
    assert one == again
    assert one["arrival_s"] != columns(other)["arrival_s"]
    assert one["prompt_tokens"] != columns(other)["prompt_tokens"]


def test_building_does_not_use_up_the_seed(tmp_path: Path) -> None:
    seed = np.random.SeedSequence(3).spawn(2)[1]
    spec = WorkloadSpec.model_validate(GENERATED)
    one, again = (columns(build_workload(spec, seed, base_dir=tmp_path)) for _ in range(2))
    assert one == again
    assert seed.n_children_spawned == 0


def test_no_two_parts_share_their_randomness(build: Build) -> None:
    lognormal = {"kind": "lognormal", "mean_tokens": 1_000, "cv": 1}
    section = GENERATED | {"lengths": {"prompt": lognormal, "output": lognormal}}
    workload = build(**section, expected_output={"kind": "noisy", "cv": 1})
    error = workload.expected_output_tokens / workload.output_tokens
    gaps = np.diff(workload.arrival_s, prepend=0)
    drawn = np.array([workload.prompt_tokens, workload.output_tokens, error, gaps])
    between = stats.spearmanr(drawn, axis=1).statistic - np.eye(4)
    assert np.abs(between).max() < 0.08


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"arrivals": {"kind": "gamma", "rate_rps": 4, "cv": 2}}, {"arrival_s"}),
        ({"expected_output": {"kind": "noisy", "cv": 1}}, {"expected_output_tokens"}),
        (
            {"lengths": GENERATED["lengths"] | {"output": {"kind": "lognormal", "mean_tokens": 9, "cv": 1}}},
            {"output_tokens", "max_new_tokens", "expected_output_tokens"},
        ),
        ({"lengths": GENERATED["lengths"] | {"prompt": {"kind": "uniform", "max_tokens": 9}}}, {"prompt_tokens"}),
    ],
)
def test_changing_one_part_leaves_the_others_alone(build: Build, change: dict[str, Any], changed: set[str]) -> None:
    before, after = columns(build(**GENERATED)), columns(build(**GENERATED | change))
    assert {name for name in before if before[name] != after[name]} == changed


def test_expected_outputs(build: Build) -> None:
    def expect(**how: Any) -> Workload:
        return build(**GENERATED, expected_output=how)

    true = build(**GENERATED).output_tokens
    assert set(expect(kind="none").expected_output_tokens) == {NONE}
    assert set(build(**GENERATED).expected_output_tokens) == {round(true.mean())}
    np.testing.assert_array_equal(expect(kind="exact").expected_output_tokens, true)
    error = (expect(kind="noisy", cv=0.4).expected_output_tokens / true)[true > 40]
    assert error.mean() == pytest.approx(1, abs=0.03)
    assert error.std() == pytest.approx(0.4, abs=0.04)


def test_a_sampling_limit_cuts_answers_and_bounds_predictions(build: Build) -> None:
    workload = build(**GENERATED, max_new_tokens=50, expected_output={"kind": "noisy", "cv": 2})
    uncut = build(**GENERATED).output_tokens
    assert set(workload.max_new_tokens) == {50}
    np.testing.assert_array_equal(workload.output_tokens, np.minimum(uncut, 50))
    assert workload.expected_output_tokens.max() == 50
    assert not workload.ignore_eos


def test_the_clients_limit_stands_beside_open_arrivals_and_in_a_closed_loop(build: Build) -> None:
    assert build(**GENERATED).max_concurrency is None
    assert build(**GENERATED, max_concurrency=5).max_concurrency == 5
    closed = build(**GENERATED | {"arrivals": {"kind": "closed_loop", "max_concurrency": 6}})
    assert closed.max_concurrency == 6
    assert not closed.arrival_s.any()


def test_all_clients_of_a_closed_loop_send_at_once(build: Build) -> None:
    assert build(**GENERATED | {"arrivals": {"kind": "closed_loop", "max_concurrency": 6}}).sent_at_once == 6
    assert build(**GENERATED).sent_at_once == 1
