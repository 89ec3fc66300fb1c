"""Replaying a run's requests, at the times they were dispatched, through a simulated server of another pace."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.clock import Clock
from simcore.profile import ServiceProfile
from simcore.profile_parts import RequestOverheads
from simcore.server.continuous import ContinuousServer
from simcore.server.ingress import Ingress
from simcore.server.interface import Server
from simcore.server.request import ServerRequest
from simcore.step_time import StepTimes

__all__ = ["Replayed", "replay"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replayed:
    """Per request, in the order given: from dispatch to first token, and from there to the last; NaN if it failed."""

    ttft_s: Floats
    decode_s: Floats


@dataclass(slots=True)
class _Log:
    wants_first_tokens: bool = True
    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)

    def first_token(self, server: Server, request: ServerRequest, now: float) -> None:
        self.first[request.request_id] = now

    def ended(self, server: Server, request: ServerRequest, now: float) -> None:
        self.last[request.request_id] = now

    def failed(self, server: Server, request: ServerRequest, reason: str, now: float) -> None:
        """It stays without times."""


def replay(requests: pd.DataFrame, profile: ServiceProfile) -> Replayed:
    """``requests``: rows of a run's records that were served by one server, in order of dispatch.

    What the prefix cache held is taken from the records: cached tokens are left off the prompt, whose attention to
    them is thereby neglected.
    """
    clock, log = Clock(), _Log()
    settings = profile.settings.model_copy(update={"radix_cache": False})
    times = StepTimes(profile.steps, settings)
    server = ContinuousServer(clock, "s0", log, settings, profile.kv_tokens_capacity, times)
    ingress = Ingress(profile.requests)
    columns = (requests[name].tolist() for name in ("dispatched_at", "prompt_tokens", "cached_tokens", "output_tokens"))
    for index, (at, prompt, cached, output) in enumerate(zip(*columns, strict=True)):
        new = max(int(prompt - cached), 1)
        ready_at = ingress.ready_at(at, prompt)
        request = ServerRequest(
            index, [(2 * index, 0, new)], new, int(output), int(output), 2 * index + 1, ready_at, ignore_eos=True
        )
        clock.at(at, lambda now, one: server.submit(one, now), request)
    clock.run_calls()
    return _times(requests, log, profile.requests)


def _times(requests: pd.DataFrame, log: _Log, overheads: RequestOverheads) -> Replayed:
    first = np.array([log.first.get(index, np.nan) for index in range(len(requests))])
    last = np.array([log.last.get(index, np.nan) for index in range(len(requests))])
    first += overheads.egress_s
    last += [overheads.back_s(int(tokens)) for tokens in requests["output_tokens"]]
    return Replayed(first - requests["dispatched_at"].to_numpy(), last - first)
