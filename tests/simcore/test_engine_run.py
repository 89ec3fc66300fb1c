"""A run as a whole: its progress, its interruption, its warnings, and that exact steps change nothing."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from support.engine import column, flat_profile, fleet, replay, run, scenario

from policies import ClusterView, Policy, PolicyError, RequestView, Route, policy_descriptions
from policies.views import ServerView
from simcore.engine import simulate
from simcore.metrics import summarise
from simcore.records import RunResult
from simcore.scenario import PolicySpec, Scenario, load_scenario

POLICIES = [policy.name for policy in policy_descriptions()]
WIDE = {"max_batch": 64, "max_context_tokens": 10_000, "max_prefill_tokens": 10_000}
ROWS = [(0.01 * number, 20 + number % 7, 1 + 13 * number % 50) for number in range(1000)]


def thousand(folder: Path) -> Scenario:
    return scenario(fleet(folder, count=3), replay(folder, ROWS))


def test_progress_is_told_from_the_first_to_the_last(tmp_path: Path) -> None:
    told: list[tuple[float, int]] = []
    run(thousand(tmp_path), on_progress=lambda share, ended: told.append((share, ended)))
    assert told == [(ended / 1000, ended) for ended in range(5, 1001, 5)]


def test_progress_of_few_requests(tmp_path: Path) -> None:
    told: list[tuple[float, int]] = []
    scene = scenario(fleet(tmp_path), replay(tmp_path, ROWS[:3]))
    run(scene, on_progress=lambda share, ended: told.append((share, ended)))
    assert told == [(1 / 3, 1), (2 / 3, 2), (1.0, 3)]


def check_partial(result: RunResult, whole: RunResult) -> None:
    """What had ended is as in the whole run, and what had not is marked; times do not run ahead of the clock."""
    assert result.interrupted
    assert len(result.requests) == len(whole.requests)
    ended = result.requests["status"] == "finished"
    assert result.requests[ended].equals(whole.requests[ended])
    rest = result.requests[~ended]
    assert set(rest["status"]) == {"unfinished"}
    assert (result.requests["reason"] == "").all()
    assert rest[["first_token_at", "finished_at"]].isna().all(axis=None)
    assert (rest["output_tokens"] == 0).all()
    under_way = rest[rest["dispatched_at"].notna()]
    assert (under_way["arrived_at"] <= under_way["dispatched_at"]).all()
    assert (under_way["dispatched_at"] <= result.duration_s).all()
    assert (under_way["server_id"] != "").all()
    assert (rest.loc[rest["dispatched_at"].isna(), "server_id"] == "").all()
    assert result.requests["finished_at"].max() == result.duration_s < whole.duration_s
    assert (result.timeline["t_s"] <= result.duration_s).all()


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    def interrupt(_: float, ended: int) -> None:
        if ended == 400:
            raise KeyboardInterrupt

    result = run(thousand(tmp_path), on_progress=interrupt)
    assert (result.requests["status"] == "finished").sum() == 400
    check_partial(result, run(thousand(tmp_path)))
    summary = summarise(result, {"e2e_s": 1.0}, 0.0)
    assert summary.interrupted
    assert summary.to_dict()["counts"]["unfinished"] == 600


def test_ctrl_c_is_an_interruption(tmp_path: Path) -> None:
    """The signal itself, in the middle of what a request's end sets in motion."""

    def interrupt(_: float, ended: int) -> None:
        if ended == 400:
            os.kill(os.getpid(), signal.SIGINT)

    # Where the tests were started in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run(thousand(tmp_path), on_progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    check_partial(result, run(thousand(tmp_path)))


def test_any_other_error_of_a_callback_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(Policy):
        name = "broken"

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(thousand(tmp_path), Broken)


def test_a_policy_that_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"unknown policy 'round_robbin'.*did you mean round_robin"):
        run(thousand(tmp_path), "round_robbin")


@pytest.mark.parametrize(
    ("valid_range", "share"),
    [
        ({"max_batch": 1}, "0.0%"),
        ({"max_prefill_tokens": 99}, "20.0%"),
        ({"max_context_tokens": 102}, "40.0%"),
    ],
)
def test_steps_outside_a_profiles_range_are_warned_of(valid_range: dict[str, int], share: str, tmp_path: Path) -> None:
    """A prefill of 100 tokens, then four decode steps over contexts of 101 to 104; the run begins at 101."""
    whole = {"max_batch": 1, "max_context_tokens": 1000, "max_prefill_tokens": 1000, **valid_range}
    servers = fleet(tmp_path, flat_profile(name="narrow", valid_range=whole), count=2)
    result = run(scenario(servers, replay(tmp_path, [(0, 100, 5), (0, 100, 5)])), exact_steps=True)
    expected = f"profile narrow was used outside its valid range in {share} of steps: their times are extrapolated"
    assert result.warnings == ([] if share == "0.0%" else [expected])


@pytest.mark.parametrize(("ratio", "share"), [(500, "0.2%"), (1000, "0.1%"), (1001, "under 0.1%")])
def test_a_small_share_of_steps_is_not_called_none(ratio: int, share: str, tmp_path: Path) -> None:
    """One prefill beyond the range, and as many decode steps within it as make the ratio."""
    servers = fleet(tmp_path, flat_profile(name="narrow", valid_range={**WIDE, "max_prefill_tokens": 99}))
    result = run(scenario(servers, replay(tmp_path, [(0, 100, ratio)])), exact_steps=True)
    assert len(result.warnings) == 1
    assert f"in {share} of steps" in result.warnings[0]


def test_what_arrives_in_the_warm_up_is_served_but_not_measured(tmp_path: Path) -> None:
    """The engine serves it; the summary leaves it out."""
    result = run(thousand(tmp_path).model_copy(update={"warmup_s": 5.0}))
    assert column(result, "status") == ["finished"] * 1000
    summary = summarise(result, {}, 5.0)
    assert summary.measured_requests == sum(at >= 5.0 for at, _, _ in ROWS) == 500


def shortened(name: str) -> Scenario:
    """A bundled scenario that lasts some seconds; the static one's few requests need longer to make batches."""
    seconds = 40 if name.startswith("node") else 6
    return load_scenario(name, [f"workload.duration_s={seconds}", "warmup_s=0"])


def check_exact(scene: Scenario, policy: str) -> None:
    """Through the whole engine: the same decisions, and every timestamp within 1e-9 s."""
    macro, exact = (simulate(scene, PolicySpec(name=policy), 0, exact_steps=steps) for steps in (False, True))
    same = ["status", "reason", "server_id", "cached_tokens", "output_tokens", "attempts", "retractions"]
    assert macro.requests[same].equals(exact.requests[same])
    for time in ("arrived_at", "dispatched_at", "first_token_at", "finished_at"):
        np.testing.assert_allclose(macro.requests[time], exact.requests[time], rtol=0, atol=1e-9)
    for total in ("steps", "prefill_tokens", "decode_tokens", "cached_tokens", "retractions", "peak_running"):
        assert macro.servers[total].tolist() == exact.servers[total].tolist()
    np.testing.assert_allclose(macro.servers["busy_s"], exact.servers["busy_s"], rtol=1e-9)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "parameter_aware"])
@pytest.mark.parametrize("name", ["quickstart", "shared-prefix", "overload"])
def test_exact_steps_change_nothing(name: str, policy: str) -> None:
    check_exact(shortened(name), policy)


@pytest.mark.parametrize("name", ["node-static", "node-continuous"])
def test_exact_steps_change_nothing_on_one_server(name: str) -> None:
    check_exact(shortened(name), "round_robin")


@pytest.mark.parametrize("name", ["quickstart", "mixed-gpus", "routing-poisson"])
def test_exact_steps_change_nothing_for_a_policy_that_decides_on_reports(name: str) -> None:
    check_exact(shortened(name), "parameter_aware")


def test_exact_steps_report_the_same() -> None:
    """What a server says of itself at a time does not depend on how its steps are simulated."""
    reports: list[list[tuple[float | None, ...]]] = []

    class Listening(Policy):
        name = "listening"
        needs = frozenset({"running_requests"})

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            return Route(cluster.servers[request.request_id % len(cluster.servers)].server_id)

        def on_report(self, server: ServerView, now: float) -> None:
            loads = server.running_requests, server.queued_requests, server.kv_tokens_used
            means = server.throughput_tps, server.mean_ttft_s, server.mean_tpot_s
            reports[-1].append((now, *loads, *means))

    for exact_steps in (False, True):
        reports.append([])
        run(shortened("quickstart"), Listening, exact_steps=exact_steps)
    macro, exact = (np.array(rows, dtype=np.float64) for rows in reports)
    np.testing.assert_allclose(macro, exact, rtol=1e-9)


def test_exact_steps_change_nothing_where_a_request_arrives_as_a_prefill_starts(tmp_path: Path) -> None:
    """The third is sent when the second's answer is back, the fourth when the first's is: at once, as nothing takes
    time on the way. The third's prefill starts at the end of the step that makes the first's last token."""
    profile = flat_profile(max_running_requests=2, overlap=True)
    workload = replay(tmp_path, [(0, 9, 8), (0, 9, 7), (0, 9, 19), (0, 9, 7)], max_concurrency=2)
    check_exact(scenario(fleet(tmp_path, profile), workload), "round_robin")
