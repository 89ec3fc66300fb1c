import pytest
from support.experiment import small_scenario

from policies import PolicyError
from simcore.engine import simulate
from simcore.errors import UserError
from simcore.experiment.check import check_experiment, check_workload


def test_it_returns_one_profile_a_server() -> None:
    assert [profile.name for profile in check_experiment(small_scenario())] == ["llama-3.1-8b-l40s"] * 2


@pytest.mark.parametrize(
    ("override", "kind", "message"),
    [
        ("servers.0.profile=none", UserError, "unknown profile 'none'"),
        ("workload.lengths.prompt.tokens=131066", UserError, "is longer than 131065"),
        ("servers.0.launch.kv_tokens_capacity=90", UserError, "a prompt of 100 tokens is longer than"),
        ("policies=[random, random]", UserError, "policy random is given twice"),
        ("policies=[rondom]", PolicyError, "unknown policy 'rondom'"),
        ("policies=[{name: random, params: {a: 1}}]", PolicyError, "has no parameter 'a'"),
        ("router.queue_order=lifo", UserError, "router.queue_order: unknown queue order 'lifo'"),
        (
            "servers=[{profile: llama-2-7b-h100}, {profile: llama-3.1-8b-h100}]",
            UserError,
            "the servers serve meta-llama/Llama-2-7b-hf, meta-llama/Llama-3.1-8B: say in workload.models",
        ),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(override: str, kind: type[Exception], message: str) -> None:
    scenario = small_scenario(override)
    with pytest.raises(kind, match=message):
        check_experiment(scenario)


def test_two_settings_of_a_policy_are_two() -> None:
    policies = "[parameter_aware, {name: parameter_aware, params: {queue_weight: 2}}]"

    assert check_experiment(small_scenario(f"policies={policies}"))


def test_the_workload_is_that_of_the_run() -> None:
    scenario = small_scenario("seed=4")
    workload = check_workload(scenario)
    requests = simulate(scenario, scenario.policies[0], seed=4).requests

    assert workload.arrival_s.tolist() == requests["arrived_at"].tolist()
    assert workload.output_tokens.tolist() == requests["output_tokens"].tolist()
