"""SGLang's launch parameters: what a user may set on a server, and what a scheduler runs with.

Fields carry the names of SGLang's flags (``--max-running-requests`` is ``max_running_requests``), but for its on and
off switches: ``--disable-radix-cache`` is ``radix_cache: false``, ``--disable-overlap-schedule`` is ``overlap: false``,
``--enable-mixed-chunk`` is ``mixed_chunk: true``, ``--cuda-graph-max-bs`` is ``cuda_graph_max_batch`` and
``--disable-cuda-graph`` is ``cuda_graph_max_batch: 0``. The static batching fields and ``kv_tokens_capacity`` are
simroute's own.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["LaunchParameters", "SchedulePolicy", "SchedulerSettings"]

Batching = Literal["continuous", "static"]
SchedulePolicy = Literal["fcfs", "lpm", "lof", "shortest-prefill-first"]


def _minus_one_is_none(value: object) -> object:
    """SGLang switches chunked prefill off with -1."""
    return None if value == -1 else value


PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ChunkSize = Annotated[PositiveInt | None, BeforeValidator(_minus_one_is_none)]


class _Scheduling(BaseModel):
    """What a scheduler needs and a user may set; defaults are those of SGLang 0.5.23 (``arg_groups/fields``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batching: Batching = "continuous"
    schedule_policy: SchedulePolicy = "fcfs"
    max_queued_requests: PositiveInt | None = None
    """Most requests that wait on this server; one more is refused with 503. None: no limit."""
    max_prefill_tokens: PositiveInt = 16384
    """Most new tokens in one prefill step."""
    chunked_prefill_size: ChunkSize = None
    """Most tokens of prompts in one prefill step; one that does not fit is cut. None (or -1): prompts are whole."""
    page_size: PositiveInt = 1
    """Tokens a KV page."""
    radix_cache: bool = True
    overlap: bool = True
    """The next step is scheduled while one runs, so what arrives during step k runs in k+2."""
    mixed_chunk: bool = False
    """Prefill chunks and decode rows share a step."""
    schedule_conservativeness: PositiveFloat = 1.0
    static_batch_size: PositiveInt | None = None
    """Static batching: most requests a batch. None: ``max_running_requests``."""
    static_batch_timeout_s: Seconds | None = None
    """Static batching: a batch starts when it is full, or this long after its first request came. None or 0: at once,
    with whatever waits."""


class SchedulerSettings(_Scheduling):
    """Everything a server's scheduler is run with, resolved to numbers."""

    max_running_requests: PositiveInt
    """Most requests that run at once, on this server."""
    cuda_graph_max_batch: Annotated[int, Field(ge=0)]
    """Largest decode batch replayed as a CUDA graph, padded up to a bucket; larger ones run eagerly. 0: no graphs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        chunk, static = self.chunked_prefill_size, self.static_batch_size
        if chunk is not None and chunk % self.page_size:
            raise ValueError(f"chunked_prefill_size {chunk} is not a multiple of page_size {self.page_size}")
        if static is not None and static > self.max_running_requests:
            raise ValueError(f"static_batch_size {static} exceeds max_running_requests {self.max_running_requests}")
        if self.schedule_policy == "shortest-prefill-first" and not self.radix_cache:
            raise ValueError("schedule_policy shortest-prefill-first needs radix_cache: SGLang would not start")
        return self


class LaunchParameters(_Scheduling):
    """What a user may set when a server is launched; a field that is not given stays as the profile has it.

    Given as null means SGLang's null where it has one: ``chunked_prefill_size: null`` switches chunking off,
    ``max_queued_requests: null`` lifts the limit. For the fields of this class proper null is the same as not given.
    ``ServiceProfile.with_launch`` applies it.
    """

    max_running_requests: PositiveInt | None = None
    """Lowered to half the KV tokens where that is less, as SGLang does."""
    cuda_graph_max_batch: Annotated[int, Field(ge=0)] | None = None
    mem_fraction_static: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the free GPU memory that weights and KV pool may take."""
    max_total_tokens: PositiveInt | None = None
    """Upper limit on the KV pool, tokens; more than the memory holds is an error."""
    kv_tokens_capacity: Annotated[int, Field(ge=2)] | None = None
    """The KV pool outright, tokens, whatever the memory holds: for what-if runs, such as an unlimited prefix cache."""
    context_length: PositiveInt | None = None
    """Longest prompt plus answer, tokens; at most the model's."""

    @model_validator(mode="after")
    def _one_way_to_size_the_pool(self) -> Self:
        if self.kv_tokens_capacity is not None:
            for name in ("mem_fraction_static", "max_total_tokens"):
                if getattr(self, name) is not None:
                    raise ValueError(f"kv_tokens_capacity sets the KV pool outright; remove {name}")
        return self

    def scheduling_given(self) -> dict[str, object]:
        """The scheduler fields that were given, by name."""
        return {name: getattr(self, name) for name in _Scheduling.model_fields if name in self.model_fields_set}
