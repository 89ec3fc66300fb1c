"""The ``workload:`` section of a scenario: generated requests, or a trace's."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .arrivals import ArrivalSpec, ClosedLoopArrivals
from .lengths import LengthsSpec
from .outputs import ExpectedOutputSpec, LimitExpectation, MeanExpectation
from .prefixes import PrefixSpec
from .section import Count, Positive, Section
from .sessions import SessionSpec
from .traces import BurstGptTrace, ShareGptTrace, TraceSpec

__all__ = ["WorkloadSpec"]


class WorkloadSpec(Section):
    """What the clients send.

    Generated: ``arrivals``, ``lengths`` and exactly one of ``requests`` and ``duration_s`` (arrivals before it), and if
    wanted ``prefixes`` and ``sessions``. Replayed: ``trace``, whose own times may be replaced by ``arrivals``.

    max_concurrency   the client's limit on requests in flight, as in sglang.bench_serving: they are scheduled at the
                      rate and wait for the client's semaphore. Not a server's max_running_requests.
    max_new_tokens    "exact": each request asks for as many tokens as it will generate, so answers end by length. A
                      number: the sampling limit of every request; longer answers are cut there, others end before it.
    ignore_eos        whether the model is told to generate to the limit; where not given, true with "exact" only.
    expected_output   what policies may see of an answer's length.
    models            the models that requests ask for, each with its share; all turns of a session ask for the same
                      one. Not needed where the servers serve one model.
    """

    arrivals: ArrivalSpec | None = None
    requests: Count | None = None
    duration_s: Positive | None = None
    lengths: LengthsSpec | None = None
    prefixes: PrefixSpec | None = None
    sessions: SessionSpec | None = None
    trace: TraceSpec | None = None
    max_concurrency: Count | None = None
    max_new_tokens: Literal["exact"] | Count = "exact"
    ignore_eos: bool | None = None
    expected_output: ExpectedOutputSpec = MeanExpectation()
    models: Annotated[dict[Annotated[str, Field(min_length=1)], Positive], Field(min_length=1)] | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every model that requests ask for; empty where they name none."""
        if isinstance(self.trace, BurstGptTrace) and self.trace.models is not None:
            return tuple(dict.fromkeys(self.trace.models.values()))
        return tuple(self.models or ())

    @property
    def output_limit(self) -> int | None:
        """The one sampling limit of all requests, in tokens; None where each has its own."""
        return None if self.max_new_tokens == "exact" else self.max_new_tokens

    @property
    def ends_by_length(self) -> bool:
        """Whether requests are sent with ignore_eos."""
        return self.max_new_tokens == "exact" if self.ignore_eos is None else self.ignore_eos

    @property
    def client_limit(self) -> int | None:
        """The client's limit on requests in flight, wherever it was set."""
        if isinstance(self.arrivals, ClosedLoopArrivals):
            return self.arrivals.max_concurrency
        return self.max_concurrency

    @model_validator(mode="after")
    def _generated_or_replayed(self) -> Self:
        if self.trace is None:
            self._check_generated()
        else:
            self._check_replayed()
        if isinstance(self.arrivals, ClosedLoopArrivals) and self.max_concurrency is not None:
            raise ValueError("a closed loop sets its own 'max_concurrency'; leave out the workload's")
        if self.ignore_eos and self.max_new_tokens != "exact":
            raise ValueError("'ignore_eos' makes answers end by length, which needs 'max_new_tokens: exact'")
        if isinstance(self.expected_output, LimitExpectation) and self.max_new_tokens == "exact":
            raise ValueError("with 'max_new_tokens: exact' limits are true lengths: expect 'exact', or give a limit")
        return self

    def _check_generated(self) -> None:
        if self.arrivals is None or self.lengths is None:
            raise ValueError("give 'arrivals' and 'lengths' to generate requests, or a 'trace' to replay")
        if (self.requests is None) == (self.duration_s is None):
            raise ValueError("give exactly one of 'requests' and 'duration_s'")
        if isinstance(self.arrivals, ClosedLoopArrivals) and self.requests is None:
            raise ValueError("a closed loop has no rate, so it needs 'requests', not 'duration_s'")

    def _check_replayed(self) -> None:
        for name in ("requests", "duration_s"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name!r} is for generated requests; 'trace.limit' says how many of a trace are read")
        if self.models is not None and isinstance(self.trace, BurstGptTrace) and self.trace.models is not None:
            raise ValueError("'models' draws what 'trace.models' reads; leave one out")
        for name in ("lengths", "prefixes", "sessions"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name!r} is for generated requests; a trace has its own")
        if isinstance(self.trace, ShareGptTrace):
            if self.arrivals is None:
                raise ValueError("a ShareGPT trace has no times: say when requests arrive with 'arrivals'")
        elif self.trace is not None and self.arrivals is not None and self.trace.rate_scale != 1:
            raise ValueError("'arrivals' replaces the trace's times, so 'trace.rate_scale' would do nothing")
