"""What happens to a request on its way, by hand: its timestamps, overheads, and ends without an answer."""

from pathlib import Path

import numpy as np
import pytest
from support.engine import column, flat_profile, fleet, replay, run, scenario
from support.servers import flat_steps

from policies import ClusterView, Decision, Policy, Reject, RequestView, Route
from simcore.records import REQUEST_DTYPES, SERVER_DTYPES, TIMELINE_DTYPES

TIMES = ["arrived_at", "dispatched_at", "first_token_at", "finished_at"]


def test_one_request(tmp_path: Path) -> None:
    """A prefill of 2 s gives the first of five tokens, and four decode steps of 1 s the others."""
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0)))
    result = run(scenario(servers, replay(tmp_path, [(0, 100, 5)])))
    assert result.requests[TIMES].to_numpy().tolist() == [[0, 0, 2, 6]]
    row = result.requests.iloc[0]
    assert (row["request_id"], row["server_id"], row["status"], row["reason"]) == (0, "s0", "finished", "")
    assert (row["session_id"], row["model"], row["attempts"], row["retractions"]) == (-1, "m", 1, 0)
    assert (row["prompt_tokens"], row["cached_tokens"], row["output_tokens"]) == (100, 0, 5)
    assert result.duration_s == 6
    server = result.servers.iloc[0]
    assert (server["busy_s"], server["prefill_s"], server["decode_s"], server["mixed_s"]) == (6, 2, 4, 0)
    assert (server["steps"], server["prefill_tokens"], server["decode_tokens"]) == (5, 100, 4)
    assert result.itl.to_numpy().tolist() == [[1.0, 4]]


def test_a_request_waits_at_a_server_without_a_free_slot(tmp_path: Path) -> None:
    """It has been dispatched: the router does not hold it back."""
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0)))
    result = run(scenario(servers, replay(tmp_path, [(0, 100, 5), (1, 100, 1), (10, 100, 2)])))
    assert result.requests[TIMES].to_numpy().tolist() == [[0, 0, 2, 6], [1, 1, 8, 8], [10, 10, 12, 13]]


def test_a_request_waits_at_the_router_while_every_server_is_at_its_cap(tmp_path: Path) -> None:
    """Each server has slots enough: it is the router's cap that holds the third request back."""
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0), max_running_requests=8), count=2)
    workload = replay(tmp_path, [(0, 9, 5), (0, 9, 3), (1, 9, 1)])
    result = run(scenario(servers, workload, router={"max_running_requests": 1}))
    assert result.requests[TIMES].to_numpy().tolist() == [[0, 0, 2, 6], [0, 0, 2, 4], [1, 4, 6, 6]]
    assert column(result, "server_id") == ["s0", "s1", "s1"]


def test_the_way_in_and_back(tmp_path: Path) -> None:
    """Ingress, with its share per prompt token, before the first step; egress after the step that makes a token. The
    next request may start before the answer is back."""
    overheads = {"ingress_s": 0.5, "ingress_per_prompt_token_s": 0.25, "egress_s": 0.125}
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0), requests=overheads))
    result = run(scenario(servers, replay(tmp_path, [(0, 2, 3), (2, 4, 1)])))
    assert result.requests[TIMES].to_numpy().tolist() == [[0, 0, 3.125, 5.125], [2, 2, 7.125, 7.125]]


def test_the_last_token_of_several_takes_longer_on_its_way_back(tmp_path: Path) -> None:
    overheads = {"egress_s": 0.125, "last_token_s": 0.25}
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0), requests=overheads))
    result = run(scenario(servers, replay(tmp_path, [(0, 2, 3), (8, 4, 1)])))
    assert result.requests[TIMES].to_numpy().tolist() == [[0, 0, 2.125, 4.375], [8, 8, 10.125, 10.125]]
    assert column(result, "prefill_s") == [2.0, 2.0]


def test_of_requests_that_are_sent_at_once_the_first_is_prefilled_alone(tmp_path: Path) -> None:
    """An idle server does not wait for a second one. Those on their way meanwhile share the next step."""
    overheads = {"ingress_s": 0.5, "ingress_spacing_s": 0.25}
    profile = flat_profile(steps=flat_steps(1.0, 2.0), requests=overheads, max_running_requests=8)
    result = run(scenario(fleet(tmp_path, profile), replay(tmp_path, [(0, 2, 1)] * 4)))
    assert column(result, "first_token_at") == [2.5, 4.5, 4.5, 4.5]
    # From when each is ready.
    assert column(result, "server_queue_s") == [0.0, 1.75, 1.5, 1.25]


def test_a_server_at_its_cap_is_free_again_when_the_answer_is_back(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(steps=flat_steps(1.0, 2.0), requests={"egress_s": 0.125}))
    workload = replay(tmp_path, [(0, 2, 3), (1, 2, 1)])
    result = run(scenario(servers, workload, router={"max_running_requests": 1}))
    assert column(result, "dispatched_at") == [0, 4.125]


def test_the_routers_queue_limit_rejects(tmp_path: Path) -> None:
    workload = replay(tmp_path, [(0, 9, 500), (0.1, 9, 1), (0.2, 9, 1), (0.3, 9, 1)])
    router = {"max_running_requests": 1, "queue_limit": 2}
    result = run(scenario(fleet(tmp_path), workload, router=router))
    assert column(result, "status") == ["finished", "finished", "finished", "rejected"]
    row = result.requests.iloc[3]
    assert row["reason"] == "the router's queue is full"
    assert (row["server_id"], row["attempts"], row["output_tokens"], row["arrived_at"]) == ("", 0, 0, 0.3)
    assert np.isnan(row[["dispatched_at", "first_token_at", "finished_at"]].astype(float)).all()


def test_a_servers_queue_limit_rejects(tmp_path: Path) -> None:
    """The server answers that it is full: the request had been dispatched."""
    servers = fleet(tmp_path, flat_profile(max_queued_requests=1))
    result = run(scenario(servers, replay(tmp_path, [(0, 9, 500), (0.1, 9, 1), (0.2, 9, 1)])))
    assert column(result, "status") == ["finished", "finished", "rejected"]
    row = result.requests.iloc[2]
    assert (row["reason"], row["server_id"]) == ("the server's queue is full", "s0")
    assert (row["dispatched_at"], row["attempts"], row["output_tokens"]) == (0.2, 1, 0)
    assert np.isnan(row[["first_token_at", "finished_at"]].astype(float)).all()


def test_a_prompt_that_no_context_holds_fails_alone(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(context_length=1000))
    result = run(scenario(servers, replay(tmp_path, [(0, 993, 3), (0, 994, 3), (0, 5, 3)])))
    assert column(result, "status") == ["finished", "failed", "finished"]
    reason = "the prompt of 994 tokens is longer than the server's limit of 993"
    assert column(result, "reason") == ["", reason, ""]
    assert column(result, "server_id") == ["s0"] * 3
    assert result.servers["prefill_tokens"].tolist() == [998]


def test_a_prompt_that_fails_frees_the_place_it_had(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(context_length=1000))
    workload = replay(tmp_path, [(0, 5000, 3), (0, 5, 3)])
    result = run(scenario(servers, workload, router={"max_running_requests": 1}))
    assert column(result, "status") == ["failed", "finished"]
    assert column(result, "dispatched_at") == [0, 0]


def test_a_prompt_may_fit_one_server_and_not_another(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(name="short", context_length=1000), flat_profile(name="long"))
    result = run(scenario(servers, replay(tmp_path, [(0, 5000, 3), (0, 5000, 3)])))
    assert column(result, "status") == ["failed", "finished"]


@pytest.mark.parametrize(("prompt", "output"), [(100, 50), (100, 99), (150, 49), (180, 19)])
def test_an_answer_ends_where_the_context_does(prompt: int, output: int, tmp_path: Path) -> None:
    """``prompt + max_new_tokens`` stays below the most a request may have, 199 tokens in a context of 200."""
    servers = fleet(tmp_path, flat_profile(context_length=200))
    result = run(scenario(servers, replay(tmp_path, [(0, prompt, output)])))
    assert column(result, "output_tokens") == [min(output, 199 - prompt - 1)]


def test_a_policy_may_turn_a_request_away(tmp_path: Path) -> None:
    class Picky(Policy):
        name = "picky"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            return Reject("too long") if request.prompt_tokens > 10 else Route("s0")

    result = run(scenario(fleet(tmp_path), replay(tmp_path, [(0, 9, 1), (0, 11, 1), (0, 10, 1)])), Picky)
    assert column(result, "status") == ["finished", "rejected", "finished"]
    assert column(result, "reason") == ["", "too long", ""]


def test_the_tables_have_their_columns(tmp_path: Path) -> None:
    result = run(scenario(fleet(tmp_path), replay(tmp_path, [(0, 9, 1)])))
    for table, dtypes in (
        (result.requests, REQUEST_DTYPES),
        (result.servers, SERVER_DTYPES),
        (result.timeline, TIMELINE_DTYPES),
    ):
        assert list(table.columns) == list(dtypes)
        assert (table.dtypes == table.astype(dtypes).dtypes).all()
    assert (result.scenario, result.policy, result.seed, result.kind) == ("test", "round_robin", 0, "sim")
    assert not result.interrupted
    assert result.warnings == []
