"""A single simulated server to drive by hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from simcore.clock import Clock
from simcore.launch import SchedulerSettings
from simcore.profile_parts import DecodeSteps, MixedSteps, PrefillSteps, Slowdown, StepCoefficients
from simcore.server.continuous import ContinuousServer
from simcore.server.interface import Load, Server
from simcore.server.pieces import Pieces
from simcore.server.request import ServerRequest
from simcore.server.slowing import SlowingServer
from simcore.server.static import StaticServer
from simcore.step_time import StepTimes

STEPS = StepCoefficients(
    decode=DecodeSteps(batches=(1, 8, 64), base_s=(0.010, 0.012, 0.020), context_s=(1e-6, 1.1e-6, 1.3e-6)),
    prefill=PrefillSteps(base_s=0.008, below_knee_s=0.0, per_token_s=5e-5, knee_tokens=100, per_attended_s=1e-8),
    mixed=MixedSteps(decode_context_ratio=1.0),
    floor_s=0.0,
    overhead_s=0.0,
    noise_cv=0.0,
)
"""Decode takes about 10 ms, prefill 8 ms and 50 us a token: made up, with every term present."""


def flat_steps(decode_s: float, prefill_s: float) -> StepCoefficients:
    """Every decode step and every prefill step takes the same time, whatever is in it."""
    return StepCoefficients(
        decode=DecodeSteps(batches=(1,), base_s=(decode_s,), context_s=(0.0,)),
        prefill=PrefillSteps(base_s=prefill_s, below_knee_s=0.0, per_token_s=0.0, knee_tokens=0, per_attended_s=0.0),
        mixed=MixedSteps(decode_context_ratio=0.0),
        floor_s=0.0,
        overhead_s=0.0,
        noise_cv=0.0,
    )


@dataclass
class Log:
    """A listener that writes down what it is told."""

    wants_first_tokens = True
    first: dict[int, float] = field(default_factory=dict)
    ended_at: dict[int, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    failed_at: dict[int, float] = field(default_factory=dict)

    def first_token(self, server: Server, request: ServerRequest, now: float) -> None:
        assert request.request_id not in self.first, "two first tokens"
        self.first[request.request_id] = now

    def ended(self, server: Server, request: ServerRequest, now: float) -> None:
        assert request.request_id not in self.ended_at, "ended twice"
        self.ended_at[request.request_id] = now

    def failed(self, server: Server, request: ServerRequest, reason: str, now: float) -> None:
        assert request.request_id not in self.failures, "failed twice"
        self.failures[request.request_id] = reason
        self.failed_at[request.request_id] = now


def request(
    request_id: int,
    prompt: int | Pieces,
    output: int,
    *,
    at: float = 0.0,
    max_new: int | None = None,
    ignore_eos: bool = False,
    shareable: bool = True,
) -> ServerRequest:
    """A request whose prompt is its own tokens, or the given pieces. It ends by length, or before ``max_new``."""
    pieces = [(2 * request_id, 0, prompt)] if isinstance(prompt, int) else prompt
    return ServerRequest(
        request_id,
        pieces,
        sum(tokens for _, _, tokens in pieces),
        output,
        max_new or output,
        answer_segment=2 * request_id + 1,
        ignore_eos=ignore_eos,
        ready_at=at,
        shareable=shareable,
    )


class Bench:
    """A clock, a server and a log. ``settings`` are SchedulerSettings; those not given are SGLang's defaults."""

    def __init__(
        self,
        *,
        kv_tokens: int = 100_000,
        steps: StepCoefficients = STEPS,
        exact_steps: bool = False,
        slowdowns: Sequence[Slowdown] = (),
        **settings: object,
    ) -> None:
        merged: dict[str, object] = {"max_running_requests": 64, "cuda_graph_max_batch": 0, **settings}
        self.settings = SchedulerSettings.model_validate(merged)
        self.clock = Clock()
        self.log = Log()
        times = StepTimes(steps, self.settings)
        self.server: ContinuousServer | StaticServer
        if self.settings.batching == "static":
            self.server = StaticServer(self.clock, "s0", self.log, self.settings, kv_tokens, times)
        else:
            kind = partial(SlowingServer, slowdowns=slowdowns) if slowdowns else ContinuousServer
            self.server = kind(self.clock, "s0", self.log, self.settings, kv_tokens, times, exact_steps=exact_steps)

    @property
    def continuous(self) -> ContinuousServer:
        assert isinstance(self.server, ContinuousServer)
        return self.server

    @property
    def generated_tokens(self) -> int:
        """Output tokens so far."""
        return self.server.load(self.clock.now).generated_tokens

    def send(self, *requests: ServerRequest) -> None:
        """Submit each at its ``ready_at``."""
        for one in requests:
            self.clock.at(one.ready_at, lambda now, sent: self.server.submit(sent, now), one)

    def at(self, time_s: float, act: Callable[[float], object]) -> None:
        """Have ``act(now)`` called then."""
        self.clock.at(time_s, lambda now, _: act(now))

    def cancel(self, one: ServerRequest, *, at: float) -> None:
        """The client gives a request up."""
        self.at(at, lambda now: self.server.cancel(one, now))

    def limit(self, max_running_requests: int, *, at: float) -> None:
        """Change the server's admission cap while it serves."""
        self.at(at, lambda now: self.continuous.set_max_running_requests(max_running_requests, now))

    def watch(self, *times_s: float) -> list[Load]:
        """The loads at these times, once the bench has run; give them in ascending order."""
        loads: list[Load] = []
        for time_s in times_s:
            self.at(time_s, lambda now: loads.append(self.server.load(now)))
        return loads

    def run(self) -> Log:
        """Until nothing is left to happen."""
        self.clock.run_calls()
        return self.log


def step_bench(**settings: object) -> Bench:
    """A bench whose times count steps: a prefill step takes 10 s, whatever is in it, and a decode step 1 s.

    No overlap scheduling and no prefix cache, unless asked for.
    """
    defaults: dict[str, object] = {"steps": flat_steps(1.0, 10.0), "overlap": False, "radix_cache": False}
    return Bench(**{**defaults, **settings})  # type: ignore[arg-type]
