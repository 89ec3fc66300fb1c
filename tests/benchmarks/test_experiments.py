"""The experiments name scenarios, policies and gates that are there."""

import pytest
from experiments import Experiment

from live.validation.gates import parse_gate
from policies import policy_descriptions
from simcore.scenario import load_scenario

ALL = [
    Experiment.policies("1,2", below=2),
    Experiment.bursts("1,2", below=2),
    Experiment.conversations(),
    Experiment.prefixes(),
    Experiment.caps("validation-sglang-cpu-caps"),
    Experiment.node("round_robin"),
    Experiment.retraction(),
    Experiment.rates("1,2", below=2),
    Experiment.closed_loop(),
    Experiment.order("1,2", cap=2),
]


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_its_scenario_and_its_gates_are_known(experiment: Experiment) -> None:
    scenario = load_scenario(experiment.scenario, [])

    assert {policy.name for policy in scenario.policies} <= {known.name for known in policy_descriptions()}
    assert [str(parse_gate(bar.gate)) for bar in experiment.bars] == [bar.gate for bar in experiment.bars]


def test_a_load_that_nothing_was_chosen_for_is_none_of_the_others() -> None:
    held_out, chosen = load_scenario(ALL[1].scenario, []), load_scenario(ALL[0].scenario, [])

    assert held_out.workload.arrivals.kind != chosen.workload.arrivals.kind
    assert len({policy.name for policy in held_out.policies} - {policy.name for policy in chosen.policies}) == 3
