"""What holds in every run, whatever happens in it: over random small scenarios."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from support.engine import run
from support.scenarios import Case, cases

from simcore.records import RunResult

many = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def played(case: Case, *, exact_steps: bool = False) -> RunResult:
    with tempfile.TemporaryDirectory() as folder:
        return run(case.scenario(Path(folder)), case.policy, seed=case.seed, exact_steps=exact_steps)


def most_at_once(begins: "pd.Series[float]", ends: "pd.Series[float]") -> int:
    """The most intervals that are open at one time; one that ends when another begins makes room for it."""
    changes = sorted([(at, 1) for at in begins] + [(at, -1) for at in ends])
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


def check_statuses(table: pd.DataFrame) -> None:
    """Every request ends once, in one way, and its times and counts are those of that way."""
    finished, cancelled = table["status"] == "finished", table["status"] == "cancelled"
    assert set(table["status"]) <= {"finished", "rejected", "failed", "cancelled"}
    assert (table.loc[finished, "reason"] == "").all()
    assert (table.loc[~finished, "reason"] != "").all()
    assert table.loc[~cancelled, "arrived_at"].notna().all()
    assert table.loc[cancelled, "arrived_at"].isna().all()
    sent = table["dispatched_at"].notna()
    assert ((table["server_id"] != "") == sent).all()
    assert ((table["attempts"] == 1) == sent).all()
    assert (sent | ~(finished | (table["status"] == "failed"))).all(), "what finished or failed had been sent"
    for time in ("first_token_at", "finished_at"):
        assert (table[time].notna() == finished).all()
    assert ((table["output_tokens"] >= 1) == finished).all()


def check_times(table: pd.DataFrame) -> None:
    done = table[table["status"] == "finished"]
    times = done[["arrived_at", "dispatched_at", "first_token_at", "finished_at"]].to_numpy()
    assert (np.diff(times, axis=1) >= 0).all()
    assert (done["cached_tokens"] < done["prompt_tokens"]).all(), "a token of each prompt is computed"


def check_tokens(result: RunResult, case: Case) -> None:
    """What the servers did is what the requests got: each token of a prompt is cached or computed, each token of an
    answer comes out of a prefill or a decode step."""
    servers = result.servers.set_index("server_id")
    for server_id, mine in result.requests.groupby("server_id"):
        if server_id == "":
            continue
        row, profile = servers.loc[server_id], case.profiles[int(str(server_id)[1:])]
        done = mine[mine["status"] == "finished"]
        assert row["retractions"] == mine["retractions"].sum() or (mine["status"] == "failed").any()
        assert row["peak_kv_tokens"] <= row["kv_tokens_capacity"] or profile["batching"] == "static"
        assert row["peak_running"] <= row["max_running_requests"]
        if row["retractions"] or profile["batching"] == "static" or case.workload["max_new_tokens"] != "exact":
            continue
        assert row["prefill_tokens"] == (done["prompt_tokens"] - done["cached_tokens"]).sum()
        assert row["cached_tokens"] == done["cached_tokens"].sum()
        assert row["decode_tokens"] == (done["output_tokens"] - 1).sum()


@many
@given(cases())
def test_no_request_is_lost_or_ends_twice(case: Case) -> None:
    result = played(case)
    assert len(result.requests) == case.workload["requests"]
    assert result.requests["request_id"].tolist() == list(range(case.workload["requests"]))
    check_statuses(result.requests)
    check_times(result.requests)
    check_tokens(result, case)


@many
@given(cases())
def test_no_limit_is_exceeded(case: Case) -> None:
    result = played(case)
    table, router, workload = result.requests, case.sections["router"], case.workload
    done = table[table["status"] == "finished"]
    caps = [router["max_running_requests"], *(action["max_running_requests"] for action in case.sections["control"])]
    if None not in caps:
        for _, mine in done.groupby("server_id"):
            assert most_at_once(mine["dispatched_at"], mine["finished_at"]) <= max(caps)
    limit = workload["arrivals"].get("max_concurrency", workload.get("max_concurrency"))
    if limit is not None:
        assert most_at_once(done["arrived_at"], done["finished_at"]) <= limit
    if router["queue_limit"] is not None:
        waited = done[done["dispatched_at"] > done["arrived_at"]]
        assert most_at_once(waited["arrived_at"], waited["dispatched_at"]) <= router["queue_limit"]
    else:
        assert (table["reason"] != "the router's queue is full").all()


@many
@given(cases())
def test_turns_follow_one_another(case: Case) -> None:
    """A turn is sent when the one before was answered, and never after one that was not."""
    table = played(case).requests
    if "sessions" not in case.workload:
        assert (table["session_id"] == -1).all()
        return
    for _, turns in table.groupby("session_id"):
        answered = turns["finished_at"].to_numpy()[:-1]
        assert (turns["arrived_at"].to_numpy()[1:][~np.isnan(answered)] >= answered[~np.isnan(answered)]).all()
        statuses = turns["status"].tolist()
        unanswered = [index for index, status in enumerate(statuses) if status != "finished"]
        if unanswered:
            assert statuses[unanswered[0] + 1 :] == ["cancelled"] * (len(statuses) - unanswered[0] - 1)
            assert statuses[unanswered[0]] in ("rejected", "failed")


@settings(many, max_examples=60)
@given(cases())
def test_exact_steps_and_repetition_change_nothing(case: Case) -> None:
    """Ways in and back that take odd times, so that no request arrives at the very end of a step."""
    profiles = [{**profile, "requests": {"ingress_s": 0.0017, "egress_s": 0.00031}} for profile in case.profiles]
    case = replace(case, profiles=profiles)
    once, again = played(case), played(case)
    pd.testing.assert_frame_equal(once.requests, again.requests, check_exact=True)
    if case.policy == "parameter_aware":
        return
    exact = played(case, exact_steps=True)
    assert exact.requests["status"].tolist() == once.requests["status"].tolist()
    for time in ("dispatched_at", "first_token_at", "finished_at"):
        np.testing.assert_allclose(exact.requests[time], once.requests[time], rtol=0, atol=1e-9)
