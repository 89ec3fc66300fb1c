"""What can be wrong with an experiment, looked for before anything runs."""

from collections.abc import Sequence

import numpy as np

from policies import PolicyError, make_order, make_policy
from policies.controllers import make_controller
from simcore.errors import UserError
from simcore.fleet import check_prompts_fit, fleet_profiles
from simcore.models import check_models
from simcore.remote_profile import AnyProfile
from simcore.scenario import PolicySpec, Scenario
from simcore.workload import Workload, build_workload

__all__ = ["check_experiment", "check_workload", "nothing_to_measure"]


def check_experiment(scenario: Scenario) -> list[AnyProfile]:
    """Profiles, prompts, policies, the controller and their parameters; returns one profile a server. Raises UserError.

    Requests are not made: a trace's faults come to light when it is read, which ``check_workload`` does.
    """
    profiles = fleet_profiles(scenario)
    check_models(scenario, [profile.model for profile in profiles])
    check_prompts_fit(scenario, profiles)
    _check_policies(scenario.policies)
    if scenario.controller is not None:
        controller = make_controller(scenario.controller.name, scenario.controller.params)
        controller.check([f"s{index}" for index in range(len(profiles))])
    for action in scenario.control:
        if action.policy is not None:
            make_policy(action.policy.name, action.policy.params, seed=0)
    if scenario.router.queue_order is not None:
        try:
            make_order(scenario.router.queue_order)
        except PolicyError as error:
            raise UserError(f"scenario {scenario.name}: router.queue_order: {error}") from error
    return profiles


def check_workload(scenario: Scenario) -> Workload:
    """The scenario's requests, made as a run with its seed makes them. Raises UserError where they cannot be."""
    workload_seed, *_ = np.random.SeedSequence(scenario.seed).spawn(3)
    workload = build_workload(scenario.workload, workload_seed, base_dir=scenario.base_dir)
    # NaN, where a request waits for the answer to another, makes the comparison false: only a run can tell.
    if workload.arrival_s.max() < scenario.warmup_s:
        raise nothing_to_measure(scenario, float(workload.arrival_s.max()))
    return workload


def nothing_to_measure(scenario: Scenario, last_arrival_s: float) -> UserError:
    """The error for a run whose requests all arrive before the warm-up is over."""
    return UserError(
        f"scenario {scenario.name}: nothing is left to measure: the last request arrives at {last_arrival_s:.3g} s, "
        f"and warmup_s is {scenario.warmup_s:g}"
    )


def _check_policies(policies: Sequence[PolicySpec]) -> None:
    labels = [policy.label for policy in policies]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"policy {label} is given twice; what is compared must differ")
    for policy in policies:
        make_policy(policy.name, policy.params, seed=0)
