"""What decides in a run: the policy that it begins with, those that ``control`` switches to, and what changes caps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies import Policy, QueueOrder, make_order
from policies.controllers import ControlledRouter, Controller, FixedSchedule, check_controller_needs
from policies.needs import check_needs
from policies.per_model import policy_for
from policies.queue_orders import FirstComeFirstServed
from policies.router import Router

from .fleet import server_configs
from .scenario import ControlAction, ControllerSpec, PolicySpec, Scenario

__all__ = [
    "PolicyTurn",
    "check_turns",
    "control_actions",
    "controller_label",
    "controller_of",
    "oracle",
    "policy_turns",
    "queue_order",
    "router_of",
]

_ORACLES = {"exact": "oracle", "noisy": "noisy oracle"}


@dataclass(frozen=True, slots=True)
class PolicyTurn:
    """A policy with the seed of its random stream."""

    spec: PolicySpec
    seed: int

    def make(self, models: Sequence[str]) -> Policy:
        """The policy itself, for servers of these models. Raises PolicyError."""
        return policy_for(models, self.spec.name, self.spec.params, self.seed)


def policy_turns(scenario: Scenario, first: PolicySpec, seed: np.random.SeedSequence) -> list[PolicyTurn]:
    """``first``, and then the policies of ``control`` in the order in which they stand there."""
    specs = [first, *(action.policy for action in scenario.control if action.policy is not None)]
    return [PolicyTurn(spec, int(state)) for spec, state in zip(specs, seed.generate_state(len(specs)), strict=True)]


def control_actions(scenario: Scenario, turns: Sequence[PolicyTurn]) -> list[tuple[ControlAction, PolicyTurn | None]]:
    """Each action but those on caps, with the turn that it begins, where it begins one; ``turns`` as ``policy_turns``
    gives them."""
    later = iter(turns[1:])
    return [
        (action, next(later) if action.policy is not None else None)
        for action in scenario.control
        if not action.changes_cap
    ]


def controller_of(scenario: Scenario) -> ControllerSpec | None:
    """What decides on caps while the scenario runs: its controller, or a schedule of what ``control`` says of them."""
    if scenario.controller is not None:
        return scenario.controller
    caps = [
        [action.at_s, action.server or "all", action.max_running_requests]
        for action in scenario.control
        if action.changes_cap
    ]
    return ControllerSpec(name=FixedSchedule.name, params={"caps": caps}) if caps else None


def controller_label(scenario: Scenario) -> str:
    """How results call what decides on caps; empty where nothing does."""
    if scenario.controller is not None:
        return scenario.controller.label
    return "control" if controller_of(scenario) is not None else ""


def queue_order(scenario: Scenario, policy: Policy) -> QueueOrder:
    """The scenario's, or else the policy's own."""
    if scenario.router.queue_order is not None:
        return make_order(scenario.router.queue_order)
    return (policy.order or FirstComeFirstServed)()


def check_turns(scenario: Scenario, policies: Sequence[Policy], missing: set[str]) -> None:
    """Whether a run gives each policy what it needs. Raises PolicyError."""
    for policy in policies:
        check_needs(policy, queue_order(scenario, policy), missing)


def oracle(scenario: Scenario, policies: Sequence[Policy]) -> str:
    """What tables call a run that decides on true lengths of answers, which no router knows: "oracle", "noisy oracle"
    where they have an error, empty for any other run."""
    needs = [policy.needs | queue_order(scenario, policy).needs for policy in policies]
    if not any("expected_output_tokens" in need for need in needs):
        return ""
    return _ORACLES.get(scenario.workload.expected_output.kind, "")


def router_of(scenario: Scenario, policy: Policy, models: Sequence[str], controller: Controller | None) -> Router:
    """The router of a simulation's servers. Raises PolicyError where the controller needs what these do not give."""
    servers = server_configs(scenario, models)
    order, limit = queue_order(scenario, policy), scenario.router.queue_limit
    if controller is None:
        return Router(servers, policy, order=order, queue_limit=limit)
    check_controller_needs(controller, set())
    return ControlledRouter(servers, policy, controller, order=order, queue_limit=limit)
