"""The servers of a scenario."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from math import nan

import numpy as np
import pandas as pd

from policies.ledger import ServerConfig

from .clock import Clock
from .errors import UserError
from .profile import ServiceProfile
from .profile_parts import RequestOverheads
from .records import SERVER_DTYPES
from .remote_profile import AnyProfile, RemoteProfile, load_profile
from .scenario import Scenario, ServerGroup
from .server.continuous import ContinuousServer
from .server.ingress import Ingress
from .server.interface import Listener
from .server.remote import RemoteServer
from .server.slowing import SlowingServer
from .server.static import StaticServer
from .step_time import StepTimes
from .workload.lengths import FixedLength

__all__ = ["Member", "build_fleet", "fleet_profiles", "max_prompt_tokens", "server_configs", "server_frame"]

_REMOTE = RequestOverheads(ingress_s=0, ingress_per_prompt_token_s=0, egress_s=0)
"""What a remote API's profile says of its first token holds them."""


@dataclass(frozen=True, slots=True)
class Member:
    """A server with what the engine needs of its profile; ``kv_tokens_capacity`` is 0 for a remote API."""

    server: ContinuousServer | StaticServer | RemoteServer
    profile: AnyProfile
    index: int
    ingress: Ingress
    overheads: RequestOverheads
    max_request_tokens: int
    max_prompt_tokens: int
    kv_tokens_capacity: int


def max_request_tokens(profile: AnyProfile) -> int:
    """Most tokens of prompt and answer together: SGLang's max_req_len, for whole pages (``tp_worker.py``)."""
    if isinstance(profile, RemoteProfile):
        return profile.context_length
    return min(profile.context_length - 1, profile.kv_tokens_capacity - profile.settings.page_size)


def max_prompt_tokens(profile: AnyProfile) -> int:
    """The longest prompt that is not refused with 400: less than SGLang's max_req_input_len."""
    if isinstance(profile, RemoteProfile):
        return profile.context_length - 1
    return max_request_tokens(profile) - 6


def group_profile(scenario: Scenario, group: ServerGroup) -> AnyProfile:
    """A group's profile, launch parameters and model applied. Raises UserError."""
    profile = load_profile(group.profile, scenario.base_dir).with_launch(group.launch)
    return profile if group.model is None else profile.with_model(group.model)


def fleet_profiles(scenario: Scenario) -> list[AnyProfile]:
    """One profile a server, launch parameters and models applied. Raises UserError."""
    profiles: list[AnyProfile] = []
    for group in scenario.servers:
        profiles += [group_profile(scenario, group)] * group.count
    return profiles


def server_configs(scenario: Scenario, models: Sequence[str]) -> list[ServerConfig]:
    """The servers s0, s1, ... as the router knows them, by their models. Where they are more than the scenario's, as
    those of a live run may be, it is gone through again. Raises UserError."""
    kinds = cycle(
        [kind for group in scenario.servers for kind in [(group, group_profile(scenario, group))] * group.count]
    )
    return [
        _config(f"s{index}", model, group, profile, scenario.router.max_running_requests)
        for index, (model, (group, profile)) in enumerate(zip(models, kinds, strict=False))
    ]


def _config(server_id: str, model: str, group: ServerGroup, profile: AnyProfile, cap: int | None) -> ServerConfig:
    if not isinstance(profile, RemoteProfile):
        return ServerConfig(server_id, model, cap, group.weight, group.remote)
    caps = [limit for limit in (cap, profile.max_running_requests) if limit is not None]
    return ServerConfig(
        server_id,
        model,
        min(caps, default=None),
        group.weight,
        remote=True,
        requests_per_minute=profile.requests_per_minute,
        tokens_per_minute=profile.tokens_per_minute,
    )


def check_prompts_fit(scenario: Scenario, profiles: Sequence[AnyProfile]) -> None:
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
    profiles: Sequence[AnyProfile],
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
        rng = np.random.default_rng(stream)
        server: ContinuousServer | StaticServer | RemoteServer
        requests, capacity = _REMOTE, 0
        if isinstance(profile, RemoteProfile):
            server = RemoteServer(clock, f"s{index}", listener, profile, exact_steps=exact_steps, rng=rng)
        else:
            if id(profile) not in compiled:
                compiled[id(profile)] = StepTimes(profile.steps, profile.settings)
            times, requests = compiled[id(profile)], profile.requests
            server = _own_server(
                clock, f"s{index}", listener, profile, times, rng, exact_steps=exact_steps, reported=reported
            )
            capacity = profile.kv_tokens_capacity
        longest = max_request_tokens(profile), max_prompt_tokens(profile)
        members.append(Member(server, profile, index, Ingress(requests), requests, *longest, capacity))
    return members


def _own_server(
    clock: Clock,
    server_id: str,
    listener: Listener,
    profile: ServiceProfile,
    times: StepTimes,
    rng: np.random.Generator,
    *,
    exact_steps: bool,
    reported: bool,
) -> ContinuousServer | StaticServer:
    settings, capacity, valid_range = profile.settings, profile.kv_tokens_capacity, profile.valid_range
    match settings.batching:
        case "continuous":
            kind = partial(SlowingServer, slowdowns=profile.slowdowns) if profile.slowdowns else ContinuousServer
            return kind(
                clock,
                server_id,
                listener,
                settings,
                capacity,
                times,
                exact_steps=exact_steps,
                looks_past=not reported,
                sums_latencies=reported,
                noise_cv=profile.steps.noise_cv,
                valid_range=valid_range,
                rng=rng,
            )
        case "static":
            if profile.slowdowns:
                raise UserError(f"profile {profile.name}: slowdowns are for continuous batching, and it has static")
            return StaticServer(clock, server_id, listener, settings, capacity, times, valid_range=valid_range)


def server_frame(scenario: Scenario, members: list[Member]) -> pd.DataFrame:
    """The table of servers (``SERVER_DTYPES``)."""
    rows = []
    for member, terms in zip(members, server_terms(scenario, len(members)), strict=True):
        known = {"server_id": member.server.server_id, "profile": member.profile.name, "model": member.profile.model}
        rows.append({**known, **_counted(member), **terms})
    return pd.DataFrame(rows, columns=list(SERVER_DTYPES)).astype(SERVER_DTYPES)


def _counted(member: Member) -> dict[str, float]:
    server, telemetry, profile = member.server, member.server.telemetry, member.profile
    totals = telemetry.totals
    if isinstance(server, RemoteServer):
        # Of what goes on behind an API nothing is known but the tokens.
        counted: dict[str, float] = dict.fromkeys(("busy_s", "prefill_s", "decode_s", "mixed_s"), nan)
        counted |= {"steps": 0, "prefill_tokens": server.prompt_tokens, "decode_tokens": server.later_tokens}
    else:
        names = ("busy_s", "prefill_s", "decode_s", "mixed_s", "steps", "prefill_tokens", "decode_tokens")
        counted = {name: getattr(totals, name) for name in names}
    limits = profile if isinstance(profile, RemoteProfile) else profile.settings
    return {
        **counted,
        "cached_tokens": telemetry.cached_tokens,
        "retractions": telemetry.retractions,
        "peak_kv_tokens": server.peak_kv_tokens,
        "kv_tokens_capacity": member.kv_tokens_capacity,
        "max_running_requests": limits.max_running_requests or 0,
        "peak_running": telemetry.peak_running,
    }


def server_terms(scenario: Scenario, count: int) -> list[dict[str, float]]:
    """What each of ``count`` servers costs, as the columns of ``SERVER_DTYPES`` that are prices; NaN: no such price."""
    groups = cycle([group for group in scenario.servers for _ in range(group.count)])
    return [_terms(scenario, group) for _, group in zip(range(count), groups, strict=False)]


def _terms(scenario: Scenario, group: ServerGroup) -> dict[str, float]:
    profile = load_profile(group.profile, scenario.base_dir)
    tokens = profile.price if isinstance(profile, RemoteProfile) else None
    return {
        "price_per_hour": nan if group.price_per_hour is None else group.price_per_hour,
        "input_price_per_million": nan if tokens is None else tokens.input_per_million,
        "output_price_per_million": nan if tokens is None else tokens.output_per_million,
    }
