"""The clients: their limit on requests in flight, the closed loop, and sessions whose turns wait for the answers."""

from pathlib import Path

import numpy as np
import pytest
from support.engine import column, fixed_lengths, flat_profile, fleet, replay, run, scenario

from policies import ClusterView, Decision, Policy, Reject, RequestView, Route
from simcore.records import RunResult
from simcore.scenario import Scenario


def most_in_flight(result: RunResult) -> int:
    """The most requests that had arrived at the router and were not answered, at any time."""
    table = result.requests
    begins = [(at, 1) for at in table["arrived_at"]]
    ends = [(at, -1) for at in table["finished_at"]]
    return int(np.cumsum([change for _, change in sorted(begins + ends)]).max())


def closed_loop(folder: Path, limit: int, **profile: object) -> Scenario:
    workload = {
        "arrivals": {"kind": "closed_loop", "max_concurrency": limit},
        "requests": 50,
        "lengths": {"prompt": {"kind": "fixed", "tokens": 9}, "output": {"kind": "uniform", "max_tokens": 300}},
    }
    return scenario(fleet(folder, flat_profile(**profile), count=2), workload)  # type: ignore[arg-type]


def conversations(folder: Path, *, turns: int = 3, think_s: float = 2.0, **workload: object) -> Scenario:
    """Sessions that start a second apart; first prompts of 100 tokens, messages of 10, answers of 20."""
    section = {
        "arrivals": {"kind": "constant", "rate_rps": 1},
        "duration_s": 3,
        "lengths": fixed_lengths(100, 20),
        "sessions": {
            "turns": {"kind": "fixed", "turns": turns},
            "think_s": {"kind": "fixed", "time_s": think_s},
            "message": {"kind": "fixed", "tokens": 10},
        },
        **workload,
    }
    return scenario(fleet(folder, flat_profile(context_length=155), count=2), section)


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_the_closed_loop_keeps_its_limit_filled(limit: int, tmp_path: Path) -> None:
    result = run(closed_loop(tmp_path, limit, max_running_requests=4))
    assert column(result, "status") == ["finished"] * 50
    assert most_in_flight(result) == limit
    arrived, finished = column(result, "arrived_at"), sorted(column(result, "finished_at"))
    assert arrived[:limit] == [0.0] * limit
    assert arrived[limit:] == finished[: 50 - limit], "each end sends the next request at once"


def test_a_limit_beyond_the_requests_sends_them_all(tmp_path: Path) -> None:
    assert column(run(closed_loop(tmp_path, 60)), "arrived_at") == [0.0] * 50


def test_the_clients_semaphore(tmp_path: Path) -> None:
    """Requests come by their own times, but none while three are in flight: it arrives when one of those ends."""
    rows = [(0.0, 9, 1000), (0.1, 9, 2000), (0.2, 9, 3000), (0.3, 9, 1), (0.4, 9, 1), (50.0, 9, 1)]
    servers = fleet(tmp_path, flat_profile(max_running_requests=8), count=6)
    result = run(scenario(servers, replay(tmp_path, rows, max_concurrency=3)))
    arrived, finished = column(result, "arrived_at"), column(result, "finished_at")
    assert arrived == [0.0, 0.1, 0.2, finished[0], finished[3], 50.0]
    assert most_in_flight(result) == 3
    assert column(result, "dispatched_at") == arrived, "the client waits, not the router"


def test_a_rejected_request_frees_the_clients_place(tmp_path: Path) -> None:
    """Two may be in flight; the second is turned away at once, and so is each one after it, until the first ends."""
    rows = [(0.0, 9, 1000), (0.1, 9, 1), (0.2, 9, 1), (0.3, 9, 1), (0.4, 9, 1), (1.5, 9, 1)]
    workload = replay(tmp_path, rows, max_concurrency=2)
    result = run(scenario(fleet(tmp_path), workload, router={"max_running_requests": 1, "queue_limit": 0}))
    assert column(result, "status") == ["finished", *["rejected"] * 4, "finished"]
    assert column(result, "arrived_at") == [at for at, _, _ in rows]


def test_any_number_of_requests_may_be_rejected_one_after_another(tmp_path: Path) -> None:
    """What waited outside while the first request ran is turned away all at once when it ends."""

    class Once(Policy):
        name = "once"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            return Reject("no more") if request.request_id else Route("s0")

    workload = replay(tmp_path, [(0, 9, 10)] * 3000, max_concurrency=1)
    result = run(scenario(fleet(tmp_path), workload), Once)
    assert column(result, "status") == ["finished", *["rejected"] * 2999]
    assert column(result, "arrived_at") == [0.0, *[column(result, "finished_at")[0]] * 2999]


def test_turns_wait_for_the_answer_and_the_time_to_think(tmp_path: Path) -> None:
    result = run(conversations(tmp_path, turns=2))
    table = result.requests
    assert column(result, "session_id") == [0, 0, 1, 1, 2, 2]
    assert column(result, "prompt_tokens") == [100, 130] * 3
    firsts, seconds = table.iloc[0::2], table.iloc[1::2]
    assert firsts["arrived_at"].tolist() == [0, 1, 2]
    assert seconds["arrived_at"].tolist() == (firsts["finished_at"] + 2).tolist()
    # What was said before is in the cache of the server that heard it, all but what the answer's last token is.
    same = seconds["server_id"].to_numpy() == firsts["server_id"].to_numpy()
    assert seconds["cached_tokens"].tolist() == np.where(same, 119, 0).tolist()


def test_a_turn_that_fails_cancels_the_rest(tmp_path: Path) -> None:
    """The third prompt, of 160 tokens, is longer than the context: the fourth and fifth are never sent."""
    result = run(conversations(tmp_path, turns=5))
    assert column(result, "status") == ["finished", "finished", "failed", "cancelled", "cancelled"] * 3
    table = result.requests
    unsent = table[table["status"] == "cancelled"]
    assert set(unsent["reason"]) == {"the session's turn before it was not answered"}
    assert unsent[["arrived_at", "dispatched_at", "first_token_at", "finished_at"]].isna().all(axis=None)
    assert set(unsent["server_id"]) == {""}
    assert (unsent["attempts"] == 0).all()
    failed = table[table["status"] == "failed"]
    assert failed["reason"].str.contains("160 tokens is longer than the server's limit of 148").all()


def test_a_first_turn_that_is_rejected_cancels_the_session(tmp_path: Path) -> None:
    base = conversations(tmp_path, turns=2, arrivals={"kind": "constant", "rate_rps": 1000}, duration_s=0.004)
    router = base.router.model_copy(update={"max_running_requests": 1, "queue_limit": 0})
    result = run(base.model_copy(update={"router": router}))
    assert column(result, "status") == ["finished", "finished"] * 2 + ["rejected", "cancelled"] * 2


def test_the_clients_limit_holds_for_turns_too(tmp_path: Path) -> None:
    """With one place, and nobody who thinks, a session's next turn queues behind the sessions that wait."""
    scene = conversations(
        tmp_path, turns=2, think_s=0, arrivals={"kind": "constant", "rate_rps": 1e6}, duration_s=3e-6, max_concurrency=1
    )
    result = run(scene)
    assert most_in_flight(result) == 1
    order = result.requests.sort_values("arrived_at")["request_id"].tolist()
    assert order[:3] == [0, 2, 4]
    assert sorted(order[3:]) == [1, 3, 5]
