"""A policy over a workload, simulated: what ``simroute sim`` does for each policy and seed."""

import time

import numpy as np

from .fleet import Member, server_frame
from .records import RunResult
from .scenario import PolicySpec, Scenario
from .server.step_log import itl_frame
from .simulation import Progress, Simulation
from .workload import Workload

__all__ = ["simulate"]


def simulate(
    scenario: Scenario,
    policy: PolicySpec,
    seed: int,
    *,
    draw: int = 0,
    exact_steps: bool = False,
    on_progress: Progress | None = None,
    workload: Workload | None = None,
) -> RunResult:
    """Run one policy over the scenario's workload, or over the one that is given in its place.

    The same seed gives the same requests to every policy, and the same result every time; with another ``draw`` servers
    have other chance, where their profiles leave any, and nothing else has. ``on_progress`` is told the
    share of requests that have ended and their number. On Ctrl-C the result so far comes back, marked ``interrupted``.
    Raises UserError and PolicyError before anything runs, and PolicyError when a policy decides what cannot be done.
    """
    started = time.perf_counter()
    simulation = Simulation(
        scenario, policy, seed, draw=draw, exact_steps=exact_steps, on_progress=on_progress, workload=workload
    )
    interrupted = simulation.run()
    members = simulation.members
    simulation.recorder.tell_prefill_s(np.array([member.overheads.egress_s for member in members]))
    return RunResult(
        scenario=scenario.name,
        policy=policy.label,
        seed=seed,
        kind="sim",
        requests=simulation.recorder.frame([member.server.server_id for member in members]),
        servers=server_frame(scenario, members),
        timeline=simulation.sampler.frame(),
        itl=itl_frame([member.server.telemetry.steps for member in members]),
        duration_s=simulation.clock.now,
        wall_s=time.perf_counter() - started,
        interrupted=interrupted,
        warnings=_warnings(members),
        oracle=simulation.oracle,
        caps=simulation.caps.frame(),
        controller=simulation.controller_label,
    )


def _warnings(members: list[Member]) -> list[str]:
    """Where a profile was used outside the range it was measured in, once a profile."""
    outside: dict[str, tuple[int, int]] = {}
    for member in members:
        totals = member.server.telemetry.totals
        out, steps = outside.get(member.profile.name, (0, 0))
        outside[member.profile.name] = (out + totals.steps_out_of_range, steps + totals.steps)
    shares = {name: _percent(out, steps) for name, (out, steps) in outside.items() if out}
    return [
        f"profile {name} was used outside its valid range in {share} of steps: their times are extrapolated"
        for name, share in shares.items()
    ]


def _percent(some: int, of: int) -> str:
    """What is there is not rounded to nothing."""
    return "under 0.1%" if some < of / 1000 else f"{some / of:.1%}"
