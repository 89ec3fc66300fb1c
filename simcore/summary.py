"""The summary of one run, as it stands in ``summary.json``."""

import math
from dataclasses import asdict, dataclass, field
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from simcore.errors import UserError

__all__ = [
    "SUMMARY_SCHEMA_VERSION",
    "Cost",
    "Imbalance",
    "ModelSummary",
    "ServerSummary",
    "Spread",
    "Summary",
    "json_safe",
]

SUMMARY_SCHEMA_VERSION: Final = 1
"""Raised when a key of ``summary.json`` changes its meaning or goes; new keys alone do not raise it."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How ``count`` observations are spread, in their own unit (seconds here); NaN when there are none."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Coefficients of variation over the servers, 0 when all did the same: standard deviation over mean."""

    busy: float
    requests: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the whole run cost, warm-up included, in the currency of the prices; NaN where no price was given.

    ``own`` are the servers that are paid by the hour, ``remote`` the APIs that are paid by the token. The two ratios
    are of ``total`` to the finished requests, and to the tokens of their answers.
    """

    total: float = math.nan
    own: float = math.nan
    remote: float = math.nan
    per_1k_requests: float = math.nan
    per_million_output_tokens: float = math.nan


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The measured requests for one model: their number by status, rates over the run's window, and latencies.
    ``cost`` is of its servers in the whole run."""

    model: str
    servers: int
    measured: dict[str, int]
    request_throughput_rps: float
    output_throughput_tps: float
    goodput_rps: float
    slo_attainment: float
    cost: Cost
    latencies: dict[str, Spread]


@dataclass(frozen=True, slots=True)
class ServerSummary:
    """What one server did in the whole run, warm-up included, as a server's counters know no warm-up.

    ``cost`` is what it cost, NaN where it has no price; ``model`` what it serves, empty in records that do not tell.
    ``utilisation`` is the share of the run it spent in steps, ``prefill_share``, ``decode_share`` and ``mixed_share``
    its parts; ``requests`` those last dispatched to it; ``cache_hit_rate`` cached over prompt tokens of these,
    ``max_running_requests`` the server's own limit, ``cap_changes`` how often the router's cap on it changed.
    """

    server_id: str
    profile: str
    requests: int
    finished: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    cache_hit_rate: float
    utilisation: float
    prefill_share: float
    decode_share: float
    mixed_share: float
    steps: int
    retractions: int
    peak_kv_tokens: int
    kv_tokens_capacity: int
    peak_running: int
    max_running_requests: int
    cap_changes: int = 0
    model: str = ""
    cost: float = math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """One run in numbers; ``metrics.summarise`` says how each is made. NaN stands for undefined (JSON: null).

    ``counts`` are requests by status over the whole run, ``measured`` those after the warm-up; ``latencies`` the spread
    of every latency by its name, ``itl_s`` included; ``slo`` the limits in force, empty when there are none; ``oracle``
    is not empty where the policy saw true lengths of answers, which no router knows; ``controller`` names what changed
    caps, empty where nothing did; ``models`` are the requests by the model that they asked for.
    """

    scenario: str
    policy: str
    seed: int
    kind: Literal["sim", "live"]
    interrupted: bool
    duration_s: float
    warmup_s: float
    window_s: float
    counts: dict[str, int]
    measured: dict[str, int]
    slo: dict[str, float]
    request_throughput_rps: float
    input_throughput_tps: float
    output_throughput_tps: float
    goodput_rps: float
    slo_attainment: float
    concurrency: float
    cache_hit_rate: float
    utilisation: float
    retractions: int
    imbalance: Imbalance
    latencies: dict[str, Spread]
    servers: list[ServerSummary]
    warnings: list[str]
    oracle: str = ""
    controller: str = ""
    cost: Cost = Cost()
    models: list[ModelSummary] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Requests of the whole run."""
        return sum(self.counts.values())

    @property
    def measured_requests(self) -> int:
        """Requests that arrived after the warm-up."""
        return sum(self.measured.values())

    def to_dict(self) -> dict[str, object]:
        """What ``summary.json`` holds: the fields by name after ``schema_version``, NaN as None."""
        safe = json_safe({"schema_version": SUMMARY_SCHEMA_VERSION, **asdict(self)})
        assert isinstance(safe, dict)
        return safe

    @classmethod
    def from_dict(cls, data: object, source: str) -> "Summary":
        """The inverse of ``to_dict``; ``source`` names the file in the UserError of a malformed or newer one."""
        version = data.get("schema_version") if isinstance(data, dict) else None
        if not isinstance(data, dict) or version != SUMMARY_SCHEMA_VERSION:
            raise UserError(f"{source}: schema_version is {version!r}, this simroute reads {SUMMARY_SCHEMA_VERSION}")
        fields = {key: _nan_for_none(value) for key, value in data.items() if key != "schema_version"}
        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def json_safe(value: object) -> object:
    """``value`` with NaN and infinities as None, which JSON has no numbers for, and tuples as lists."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nan_for_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: _nan_for_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_for_none(item) for item in value]
    return math.nan if value is None else value
