"""The workload of a run, from its records and its configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simcore.errors import UserError
from simcore.run_folder import StoredRun
from simcore.scenario import Scenario, load_scenario
from simcore.workload import Workload, build_workload

__all__ = ["recorded_scenario", "recorded_workload"]

_MAY_CHANGE = ("servers", "router", "control", "controller")


def recorded_scenario(run: StoredRun, overrides: Sequence[str] = (), profile: str | None = None) -> Scenario:
    """The run's scenario with as many servers as it had, their profile replaced where one is given, and ``overrides``
    applied. Raises UserError for an override of what makes the run's requests or what is measured of them."""
    for text in overrides:
        section = text.partition("=")[0].partition(".")[0].strip()
        if section not in _MAY_CHANGE:
            raise UserError(
                f"--set {text}: the run's requests stay as they were; what may change is {', '.join(_MAY_CHANGE)}"
            )
    config = str(run.path / "config.yaml")
    scenario = load_scenario(config)
    fleet = []
    servers, counted = len(run.result.servers), sum(group.count for group in scenario.servers)
    if servers != counted and len(scenario.servers) == 1:
        fleet.append(f"servers.0.count={servers}")
    elif servers != counted:
        raise UserError(f"{run.path} had {servers} servers, and its config.yaml says {counted} of several kinds")
    if profile is not None:
        named = Path(profile).resolve() if profile.endswith(".json") else profile
        fleet += [f"servers.{index}.profile={named}" for index in range(len(scenario.servers))]
    return load_scenario(config, [*fleet, *overrides])


def recorded_workload(run: StoredRun, scenario: Scenario) -> Workload:
    """The requests as they were: content, order and expectations as the configuration and seed make them; times of
    arrival and, where the model decided on its answers' lengths, those as recorded.

    Behind a client's limit the times at which requests were let through are not the client's own: there the times at
    which they were due stay. Raises UserError for an interrupted run, and for records of other requests.
    """
    if run.result.interrupted:
        raise UserError(f"{run.path} was interrupted: its workload is not whole")
    workload_seed, *_ = np.random.SeedSequence(run.result.seed).spawn(3)
    made = build_workload(scenario.workload, workload_seed, base_dir=scenario.base_dir)
    requests = run.result.requests
    if not np.array_equal(requests["prompt_tokens"], made.prompt_tokens):
        raise UserError(f"{run.path}: its records are not of the requests that its config.yaml and seed make")
    arrival_s, output = made.arrival_s, made.output_tokens
    if made.max_concurrency is None:
        arrived = requests["arrived_at"].to_numpy("float64")
        arrival_s = np.where(np.isnan(made.arrival_s) | np.isnan(arrived), made.arrival_s, arrived)
    if not made.ignore_eos:
        finished = (requests["status"] == "finished").to_numpy()
        output = np.where(finished, requests["output_tokens"].to_numpy("int64"), made.output_tokens)
    return replace(made, arrival_s=arrival_s, output_tokens=output)
