"""The servers of a scenario."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd

from policies.ledger import ServerConfig

from .clock import Clock
from .errors import UserError
from .profile import ServiceProfile
from .records import SERVER_DTYPES
from .scenario import Scenario
from .server.continuous import ContinuousServer
from .server.interface import Listener
from .server.static import StaticServer
from .step_time import StepTimes
from .workload.lengths import FixedLength

__all__ = ["Member", "build_fleet", "fleet_profiles", "max_prompt_tokens", "server_configs", "server_frame"]


@dataclass(frozen=True, slots=True)
class Member:
    """A server with what the engine needs of its profile."""

    server: ContinuousServer | StaticServer
    profile: ServiceProfile
    index: int
    ingress_s: float
    ingress_per_prompt_token_s: float
    egress_s: float
    max_request_tokens: int
    max_prompt_tokens: int


def max_request_tokens(profile: ServiceProfile) -> int:
    """Most tokens of prompt and answer together: SGLang's max_req_len, for whole pages (``tp_worker.py``)."""
    return min(profile.context_length - 1, profile.kv_tokens_capacity - profile.settings.page_size)


def max_prompt_tokens(profile: ServiceProfile) -> int:
    """The longest prompt that is not refused with 400: less than SGLang's max_req_input_len."""
    return max_request_tokens(profile) - 6


def fleet_profiles(scenario: Scenario) -> list[ServiceProfile]:
    """One profile a server, launch parameters applied. Raises UserError."""
    profiles = []
    for group in scenario.servers:
        profile = ServiceProfile.load(group.profile, scenario.base_dir).with_launch(group.launch)
        profiles += [profile] * group.count
    models = sorted({profile.model for profile in profiles})
    if len(models) > 1:
        raise UserError(f"scenario {scenario.name}: servers must serve one model, not {', '.join(models)}")
    return profiles


def server_configs(scenario: Scenario, models: Sequence[str]) -> list[ServerConfig]:
    """The servers s0, s1, ... as the router knows them, by their models. Where they are more than the scenario's, as
    those of a live run may be, it is gone through again."""
    cap = scenario.router.max_running_requests
    groups = cycle([group for group in scenario.servers for _ in range(group.count)])
    return [
        ServerConfig(f"s{index}", model, cap, group.weight, group.remote)
        for index, (model, group) in enumerate(zip(models, groups, strict=False))
    ]


def check_prompts_fit(scenario: Scenario, profiles: list[ServiceProfile]) -> None:
    """A prompt of fixed length that a server does not take is a mistake in the scenario, not a run of rejections."""
    lengths = scenario.workload.lengths
    if lengths is None or not isinstance(lengths.prompt, FixedLength):
        return
    tokens = lengths.prompt.tokens
    smallest = min(profiles, key=max_prompt_tokens)
    if tokens > max_prompt_tokens(smallest):
        raise UserError(
            f"scenario {scenario.name}: workload.lengths.prompt.tokens: a prompt of {tokens} tokens is longer than "
            f"{max_prompt_tokens(smallest)}, the most that a server with profile {smallest.name} takes"
        )


def build_fleet(
    clock: Clock,
    listener: Listener,
    profiles: list[ServiceProfile],
    seed: np.random.SeedSequence,
    *,
    exact_steps: bool,
    reported: bool,
) -> list[Member]:
    """The servers s0, s1, ... in the scenario's order, each with a random stream of its own; ``reported`` says whether
    their telemetry is read while they run."""
    members = []
    compiled: dict[int, StepTimes] = {}
    for index, (profile, stream) in enumerate(zip(profiles, seed.spawn(len(profiles)), strict=True)):
        settings, capacity = profile.settings, profile.kv_tokens_capacity
        if id(profile) not in compiled:
            compiled[id(profile)] = StepTimes(profile.steps, settings)
        times = compiled[id(profile)]
        server: ContinuousServer | StaticServer
        match settings.batching:
            case "continuous":
                server = ContinuousServer(
                    clock,
                    f"s{index}",
                    listener,
                    settings,
                    capacity,
                    times,
                    exact_steps=exact_steps,
                    looks_past=not reported,
                    sums_latencies=reported,
                    noise_cv=profile.steps.noise_cv,
                    valid_range=profile.valid_range,
                    rng=np.random.default_rng(stream),
                )
            case "static":
                server = StaticServer(
                    clock, f"s{index}", listener, settings, capacity, times, valid_range=profile.valid_range
                )
        requests = profile.requests
        members.append(
            Member(
                server,
                profile,
                index,
                requests.ingress_s,
                requests.ingress_per_prompt_token_s,
                requests.egress_s,
                max_request_tokens(profile),
                max_prompt_tokens(profile),
            )
        )
    return members


def server_frame(members: list[Member]) -> pd.DataFrame:
    """The table of servers (``SERVER_DTYPES``)."""
    rows = []
    for member in members:
        telemetry, profile = member.server.telemetry, member.profile
        totals = telemetry.totals
        rows.append(
            {
                "server_id": member.server.server_id,
                "profile": profile.name,
                "busy_s": totals.busy_s,
                "prefill_s": totals.prefill_s,
                "decode_s": totals.decode_s,
                "mixed_s": totals.mixed_s,
                "steps": totals.steps,
                "prefill_tokens": totals.prefill_tokens,
                "cached_tokens": telemetry.cached_tokens,
                "decode_tokens": totals.decode_tokens,
                "retractions": telemetry.retractions,
                "peak_kv_tokens": member.server.peak_kv_tokens,
                "kv_tokens_capacity": profile.kv_tokens_capacity,
                "max_running_requests": profile.settings.max_running_requests,
                "peak_running": telemetry.peak_running,
            }
        )
    return pd.DataFrame(rows).astype(SERVER_DTYPES)
