"""Whole runs of the engine on servers simple enough to follow by hand."""

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from policies import ClusterView, Decision, Policy, RequestView, Route
from policies.registry import _POLICIES
from simcore.engine import simulate
from simcore.launch import SchedulerSettings
from simcore.profile import ServiceProfile
from simcore.profile_parts import Provenance, RequestOverheads, Residuals, StepCoefficients, ValidRange
from simcore.records import RunResult
from simcore.remote_profile import AnyProfile
from simcore.scenario import PolicySpec, Scenario

from .servers import flat_steps

STEP_S = 0.001
"""What every step of a flat profile takes, prefill or decode: a request of n output tokens is served in n of them."""


def flat_profile(
    *,
    name: str = "flat",
    model: str = "m",
    steps: StepCoefficients | None = None,
    requests: Mapping[str, float] | None = None,
    kv_tokens: int = 1_000_000,
    context_length: int = 400_000,
    valid_range: Mapping[str, int] | None = None,
    **settings: object,
) -> ServiceProfile:
    """A server of made-up step times. ``settings`` are the scheduler's; it has one slot, and no overlap, unless they
    say otherwise."""
    overheads = {"ingress_s": 0.0, "ingress_per_prompt_token_s": 0.0, "egress_s": 0.0, **(requests or {})}
    unbounded = {"max_batch": 10**9, "max_context_tokens": 10**9, "max_prefill_tokens": 10**9}
    made_up = dict.fromkeys(
        ("gpu", "engine", "engine_version", "measured_by", "source", "licence", "method"), "made up for a test"
    )
    return ServiceProfile(
        schema_version=1,
        name=name,
        provenance=Provenance(model=model, date=None, **made_up),
        steps=steps or flat_steps(STEP_S, STEP_S),
        requests=RequestOverheads.model_validate(overheads),
        memory=None,
        kv_tokens_capacity=kv_tokens,
        context_length=context_length,
        settings=SchedulerSettings.model_validate(
            {"max_running_requests": 1, "cuda_graph_max_batch": 0, "overlap": False, **settings}
        ),
        valid_range=ValidRange.model_validate(valid_range or unbounded),
        residuals=Residuals(decode=None, prefill=None, mixed=None),
    )


def fleet(folder: Path, *profiles: AnyProfile, count: int = 1) -> list[dict[str, object]]:
    """The ``servers:`` section of ``count`` servers a profile, whose files are written to the folder."""
    groups: list[dict[str, object]] = []
    for number, profile in enumerate(profiles or (flat_profile(),)):
        path = folder / f"profile{number}.json"
        path.write_text(profile.to_json())
        groups.append({"profile": str(path), "count": count})
    return groups


def scenario(servers: list[dict[str, object]], workload: Mapping[str, object], **sections: object) -> Scenario:
    return Scenario.model_validate({"name": "test", "servers": servers, "workload": workload, **sections})


def replay(folder: Path, rows: list[tuple[float, int, int]], **sections: object) -> dict[str, object]:
    """The ``workload:`` section of requests given as (arrival in seconds, prompt tokens, output tokens)."""
    path = folder / "trace.csv"
    lines = [f"{at!r},{prompt},{output}\n" for at, prompt, output in rows]
    path.write_text("Timestamp,Request tokens,Response tokens\n" + "".join(lines))
    return {"trace": {"kind": "burstgpt", "path": str(path)}, **sections}


def fixed_lengths(prompt: int, output: int) -> dict[str, object]:
    """A ``lengths:`` section."""
    return {"prompt": {"kind": "fixed", "tokens": prompt}, "output": {"kind": "fixed", "tokens": output}}


def run(scenario: Scenario, policy: str | type[Policy] = "round_robin", *, seed: int = 0, **options: Any) -> RunResult:
    """Simulate under a policy by name, or under one that a test defines."""
    if isinstance(policy, str):
        known, name = nullcontext(), policy
    else:
        name = policy.name
        known = patch.dict(_POLICIES, {name: policy})  # type: ignore[assignment]
    with known:
        return simulate(scenario, PolicySpec(name=name), seed, **options)


def column(result: RunResult, name: str) -> list[Any]:
    """A column of the requests' table."""
    values: list[Any] = result.requests[name].tolist()
    return values


def write_table(folder: Path, levels: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64]) -> str:
    """A table of lengths whose inverse distribution function is linear between ``tokens`` at ``levels``."""
    values = tokens.tolist()
    source = {"repository": "-", "file": "-", "sha256": "-", "licence": "-", "requests": 1}
    table = {
        "name": "made-up",
        "derived_from": source,
        "derived_by": "a test",
        "prompt_mean_tokens": 1,
        "output_mean_tokens": 1,
        "rank_correlation": 0,
        "copula_correlation": 0,
        "levels": levels.tolist(),
        "prompt_tokens": values,
        "output_tokens": values,
    }
    path = folder / "table.json"
    path.write_text(json.dumps(table))
    return str(path)


def busy(folder: Path, **sections: object) -> Scenario:
    """Two servers, one request of a second, and another one 0.1 s later."""
    return scenario(fleet(folder, count=2), replay(folder, [(0, 9, 1000), (0.1, 9, 1)]), **sections)


class First(Policy):
    """To be made into policies that do something besides."""

    name = "first"

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        return Route(cluster.servers[0].server_id)


def answering(decision: Any) -> type[Policy]:
    class Answers(First):
        name = "answers"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            answer: Decision = decision
            return answer

    return Answers
