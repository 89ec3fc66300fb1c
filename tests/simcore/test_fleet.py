"""The servers of a scenario: their order, limits, random streams, and what is refused of them."""

from pathlib import Path

import numpy as np
import pytest
from support.engine import fixed_lengths, flat_profile, fleet, replay, run, scenario

from simcore.engine import simulate
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.fleet import check_prompts_fit, fleet_profiles, max_prompt_tokens, max_request_tokens
from simcore.scenario import PolicySpec, Scenario


def fixed_prompts(folder: Path, prompt: int, *limits: int) -> Scenario:
    """One server for each limit on the context."""
    profiles = [flat_profile(name=f"context-{limit}", context_length=limit) for limit in limits]
    workload = {
        "arrivals": {"kind": "constant", "rate_rps": 10},
        "requests": 3,
        "lengths": fixed_lengths(prompt, 5),
    }
    return scenario(fleet(folder, *profiles), workload)


def test_servers_are_numbered_in_the_scenarios_order(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(name="a"), flat_profile(name="b"))
    servers[0]["count"], servers[1]["count"] = 2, 1
    result = run(scenario(servers, replay(tmp_path, [(0, 9, 1)])))
    assert result.servers["server_id"].tolist() == ["s0", "s1", "s2"]
    assert result.servers["profile"].tolist() == ["a", "a", "b"]


def test_launch_parameters_are_those_of_the_group(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(), flat_profile())
    servers[1]["launch"] = {"max_running_requests": 7, "kv_tokens_capacity": 5000}
    scene = scenario(servers, replay(tmp_path, [(0, 9, 1)]))
    assert [profile.settings.max_running_requests for profile in fleet_profiles(scene)] == [1, 7]
    result = run(scene)
    assert result.servers["max_running_requests"].tolist() == [1, 7]
    assert result.servers["kv_tokens_capacity"].tolist() == [1_000_000, 5000]


def test_requests_must_say_which_of_several_models_they_are_for(tmp_path: Path) -> None:
    servers = fleet(tmp_path, flat_profile(model="llama"), flat_profile(model="qwen"))
    with pytest.raises(UserError, match=r"scenario test: the servers serve llama, qwen: say in workload\.models"):
        run(scenario(servers, replay(tmp_path, [(0, 9, 1)])))


def test_the_longest_request_and_prompt() -> None:
    """SGLang: max_req_len is the context less one, or the pool less a page; a prompt stays 6 below."""
    by_context = flat_profile(context_length=1000)
    assert (max_request_tokens(by_context), max_prompt_tokens(by_context)) == (999, 993)
    by_pool = flat_profile(kv_tokens=640, page_size=16)
    assert (max_request_tokens(by_pool), max_prompt_tokens(by_pool)) == (624, 618)


def test_prompts_that_do_not_fit_are_refused_up_front(tmp_path: Path) -> None:
    """For one server is enough: a policy that sends some there would lose them."""
    scene = fixed_prompts(tmp_path, 994, 5000, 1000)
    message = (
        "scenario test: workload.lengths.prompt.tokens: a prompt of 994 tokens is longer than 993, the most that a "
        "server with profile context-1000 takes"
    )
    for refuse in (lambda: check_prompts_fit(scene, fleet_profiles(scene)), lambda: check_experiment(scene)):
        with pytest.raises(UserError) as caught:
            refuse()
        assert str(caught.value) == message


def test_prompts_that_just_fit_are_served(tmp_path: Path) -> None:
    scene = fixed_prompts(tmp_path, 993, 5000, 1000)
    check_prompts_fit(scene, fleet_profiles(scene))
    assert set(run(scene).requests["status"]) == {"finished"}


def test_prompts_of_a_trace_are_not_checked_up_front(tmp_path: Path) -> None:
    """A trace may have some that are too long: those fail, and the others are served."""
    scene = scenario(fleet(tmp_path, flat_profile(context_length=100)), replay(tmp_path, [(0, 500, 1), (0, 5, 1)]))
    check_experiment(scene)
    assert run(scene).requests["status"].tolist() == ["failed", "finished"]


def test_servers_have_noise_of_their_own(tmp_path: Path) -> None:
    """Two servers given the same work take different times, the same ones each time; the mean is the profile's."""
    profile = flat_profile()
    noisy = profile.model_copy(update={"steps": profile.steps.model_copy(update={"noise_cv": 0.1})})
    workload = replay(tmp_path, [(0.1 * number, 1, 2) for number in range(4000)])
    scene = scenario(fleet(tmp_path, noisy, count=2), workload)
    a, b = run(scene), run(scene)
    assert a.servers["busy_s"].tolist() == b.servers["busy_s"].tolist()
    latency_s = (a.requests["finished_at"] - a.requests["dispatched_at"]).to_numpy()
    first, second = latency_s[0::2], latency_s[1::2]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert latency_s.mean() == pytest.approx(0.002, rel=0.01)
    other = run(scene, seed=1)
    assert other.servers["busy_s"].tolist() != a.servers["busy_s"].tolist()


def test_another_draw_has_other_noise_and_the_same_requests_and_choices(tmp_path: Path) -> None:
    profile = flat_profile()
    noisy = profile.model_copy(update={"steps": profile.steps.model_copy(update={"noise_cv": 0.1})})
    changes = {
        "arrivals": {"kind": "poisson", "rate_rps": 300},
        "lengths": {"prompt": {"kind": "uniform", "max_tokens": 64}, "output": {"kind": "uniform", "max_tokens": 16}},
        "requests": 200,
    }
    scene = scenario(fleet(tmp_path, noisy, count=2), changes)
    random = PolicySpec(name="random")
    runs = [simulate(scene, random, 0, draw=draw) for draw in (0, 1, 2, 1)]
    for column in ("arrived_at", "prompt_tokens", "output_tokens", "server_id"):
        assert all(one.requests[column].tolist() == runs[0].requests[column].tolist() for one in runs)
    finished = [one.requests["finished_at"].tolist() for one in runs]
    assert finished[1] == finished[3]
    assert finished[0] != finished[1] != finished[2] != finished[0]
    assert simulate(scene, random, 0).requests["finished_at"].tolist() == finished[0]

    still = scenario(fleet(tmp_path, profile, count=2), changes)
    once, again = (simulate(still, random, 0, draw=draw).requests for draw in (0, 5))
    assert once.equals(again)
