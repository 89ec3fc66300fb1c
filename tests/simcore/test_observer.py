"""What is read off the servers while they run: reports as old as a scraper's, and the timeline."""

from pathlib import Path
from typing import Any

import pytest
from support.engine import STEP_S, column, flat_profile, fleet, replay, run, scenario

from policies import ClusterView, Policy, RequestView, Route
from policies.views import ServerView

Seen = dict[str, Any]
REPORTED = (
    "reported_at",
    "running_requests",
    "queued_requests",
    "kv_tokens_used",
    "kv_tokens_capacity",
    "throughput_tps",
    "mean_ttft_s",
    "mean_tpot_s",
)


def watching(choices: list[Seen], reports: list[Seen]) -> type[Policy]:
    """A policy that decides on reports, and writes down what it sees of s0 when it chooses and when it is told."""

    def look(server: ServerView, now: float) -> Seen:
        return {"now": now, "sent": server.requests_since_report, **{name: getattr(server, name) for name in REPORTED}}

    class Watching(Policy):
        name = "watching"
        needs = frozenset({"running_requests"})

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            choices.append(look(cluster.servers[0], cluster.now))
            return Route(cluster.servers[0].server_id)

        def on_report(self, server: ServerView, now: float) -> None:
            if server.server_id == "s0":
                reports.append(look(server, now))

    return Watching


def watch(folder: Path, rows: list[tuple[float, int, int]], *, servers: int = 1, **router: float) -> tuple[Any, ...]:
    choices: list[Seen] = []
    reports: list[Seen] = []
    scene = scenario(fleet(folder, flat_profile(), count=servers), replay(folder, rows), router=router)
    return run(scene, watching(choices, reports)), choices, reports


@pytest.mark.parametrize(("interval_s", "delay_s"), [(1.0, 0.0), (1.0, 0.25), (0.5, 0.75)])
def test_reports_are_as_old_as_the_scenario_says(interval_s: float, delay_s: float, tmp_path: Path) -> None:
    """A decision sees the newest report that has been under way long enough."""
    rows = [(0.9 * number + 0.01, 9, 50) for number in range(20)]
    _, choices, reports = watch(tmp_path, rows, report_interval_s=interval_s, report_delay_s=delay_s)
    for seen in reports:
        assert seen["now"] == pytest.approx(seen["reported_at"] + delay_s)
        assert seen["reported_at"] / interval_s == pytest.approx(round(seen["reported_at"] / interval_s))
    assert [seen["reported_at"] for seen in reports] == pytest.approx([interval_s * n for n in range(len(reports))])
    for seen in choices:
        arrived = [interval_s * n for n in range(100) if interval_s * n + delay_s <= seen["now"]]
        assert seen["reported_at"] == (pytest.approx(arrived[-1]) if arrived else None)


@pytest.mark.parametrize("age_s", [0.0, 0.25, 1.75])
def test_the_load_that_a_report_tells_is_as_old_as_the_scenario_says(age_s: float, tmp_path: Path) -> None:
    """One request that runs until 1.9 s, seen only in reports that are asked for by so much later; what it has
    generated is told as of the moment."""
    _, _, reports = watch(tmp_path, [(0, 9, 1900), (9, 9, 1)], report_interval_s=0.5, report_age_s=age_s)
    for seen in reports[:15]:
        then = seen["now"] - age_s
        assert seen["reported_at"] == seen["now"]
        assert seen["running_requests"] == (0 < then < 1.9)
        assert (seen["kv_tokens_used"] > 0) == (0 < then < 1.9)
        assert (seen["throughput_tps"] > 0) == (0 < seen["now"] < 2.4)


def test_what_a_report_says(tmp_path: Path) -> None:
    """Three requests of 1,200 tokens, a prompt of 9 each, at a server of one slot, asked after a second."""
    _, _, reports = watch(tmp_path, [(0, 9, 1200), (0.1, 9, 1200), (0.1, 9, 1200), (9, 9, 1)], report_interval_s=1.0)
    empty, first, second = reports[:3]
    assert empty == {
        "now": 0.0,
        "sent": 0,
        "reported_at": 0.0,
        "running_requests": 0,
        "queued_requests": 0,
        "kv_tokens_used": 0,
        "kv_tokens_capacity": 1_000_000,
        "throughput_tps": 0.0,
        "mean_ttft_s": None,
        "mean_tpot_s": None,
    }
    assert (first["running_requests"], first["queued_requests"], first["sent"]) == (1, 2, 0)
    # A step a token; rounding decides whether the step that ends with the second has ended.
    assert first["throughput_tps"] == pytest.approx(1000, abs=1)
    assert first["kv_tokens_used"] == pytest.approx(1009, abs=2)
    assert first["mean_ttft_s"] == pytest.approx(STEP_S)
    assert first["mean_tpot_s"] == pytest.approx(STEP_S), "of the request that runs"
    assert second["mean_ttft_s"] == pytest.approx(1.201 - 0.1), "of the one whose first token came since"
    assert second["mean_tpot_s"] == pytest.approx(STEP_S)
    assert reports[8]["mean_ttft_s"] == pytest.approx(2.401 - 0.1), "as it was, where there were none"
    assert reports[8]["throughput_tps"] == 0


def test_a_report_ends_the_credit_for_what_was_sent_before(tmp_path: Path) -> None:
    rows = [(0.1, 9, 1), (0.2, 9, 1), (0.3, 9, 1), (1.1, 9, 1), (1.2, 9, 1)]
    _, choices, _ = watch(tmp_path, rows, report_interval_s=1.0)
    assert [seen["sent"] for seen in choices] == [0, 1, 2, 0, 1]


def test_reports_stop_with_the_run(tmp_path: Path) -> None:
    result, _, reports = watch(tmp_path, [(0, 9, 2500)], report_interval_s=1.0)
    assert result.duration_s == pytest.approx(2.5)
    assert len(reports) == 3


def test_policies_that_decide_without_reports_get_none(tmp_path: Path) -> None:
    reported: list[float | None] = []

    class Deaf(Policy):
        name = "deaf"

        def choose(self, request: RequestView, cluster: ClusterView) -> Route:
            reported.append(cluster.servers[0].reported_at)
            return Route("s0")

        def on_report(self, server: ServerView, now: float) -> None:
            raise AssertionError("it was not asked for")

    run(scenario(fleet(tmp_path), replay(tmp_path, [(0, 9, 1), (7, 9, 1)])), Deaf)
    assert reported == [None, None]


def test_reading_reports_changes_nothing_else(tmp_path: Path) -> None:
    """Asking a server how it does leaves its times as they are."""
    rows = [(0.37 * number, 9 + number, 1 + 37 * number % 400) for number in range(40)]
    asked, _, _ = watch(tmp_path, rows, servers=1, report_interval_s=0.013)
    alone = run(scenario(fleet(tmp_path), replay(tmp_path, rows)))
    assert column(asked, "finished_at") == column(alone, "finished_at")


def test_the_timeline_by_hand(tmp_path: Path) -> None:
    """A sample each three-hundredth of the time over which requests arrive, of every server."""
    result = run(scenario(fleet(tmp_path, count=2), replay(tmp_path, [(0, 100, 1500), (0, 9, 10), (3.005, 9, 1)])))
    timeline = result.timeline
    assert timeline["server_id"].tolist()[:4] == ["s0", "s1", "s0", "s1"]
    s0 = timeline[timeline["server_id"] == "s0"]
    assert s0["t_s"].tolist() == pytest.approx([3.005 / 300 * n for n in range(len(s0))])
    while_it_runs = s0[(s0["t_s"] > 0) & (s0["t_s"] < 1.499)]
    assert (while_it_runs[["running", "queued", "in_flight"]].to_numpy() == [1, 0, 1]).all()
    grown = while_it_runs["kv_tokens_used"] - 100 - while_it_runs["t_s"] / STEP_S
    assert grown.between(-2, 1).all(), "a token of KV a step, read in the middle of a run of steps"
    idle = s0[(s0["t_s"] > 1.501) & (s0["t_s"] < 3)]
    assert (idle[["running", "queued", "kv_tokens_used", "in_flight"]] == 0).all(axis=None)


def test_a_long_run_is_thinned(tmp_path: Path) -> None:
    """A closed loop begins with a sample each 10 ms; after an hour there are still at most 400, evenly spaced."""
    workload = {
        "arrivals": {"kind": "closed_loop", "max_concurrency": 1},
        "requests": 40,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 9}, "output": {"kind": "fixed", "tokens": 90_000}},
    }
    result = run(scenario(fleet(tmp_path), workload))
    times = result.timeline["t_s"]
    assert result.duration_s == pytest.approx(3600)
    assert 190 <= len(times) <= 400
    assert times.iloc[0] == 0
    gaps = times.diff().dropna()
    assert gaps.max() == pytest.approx(gaps.min())
    assert times.iloc[-1] + gaps.max() > result.duration_s
